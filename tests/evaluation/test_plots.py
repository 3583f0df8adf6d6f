import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.figures import Confusion
from tamis.evaluation.plots import (
    change_plot,
    comparison_plot,
    confusion_plot,
    reliability_plot,
    score_plot,
)
from tamis.evaluation.reliability import reliability
from tests.evaluation.examples import BINARY, CLASSES, ORDINAL


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        (ORDINAL, np.arange(30) % 6.0),
        (ORDINAL, np.linspace(0, 5, 30)),
        (ORDINAL, np.full(30, 3.0)),
        (BINARY, np.arange(30) % 2.0),
        (CLASSES, np.arange(30) % 3.0),
    ],
)
def test_score_plot_of_any_target(target, labels):
    scores = labels * target.scale[1] / 5
    assert opened(score_plot(target, labels, scores, 0.5)).width > 500


def test_pictures_differ_with_what_they_show():
    labels = np.arange(30) % 6.0
    low, high = (score_plot(ORDINAL, labels, labels, t) for t in (1.0, 4.0))
    assert low != high
    assert low == score_plot(ORDINAL, labels, labels, 1.0)


def test_other_pictures():
    one = Interval(value=0.7, low=0.6, high=0.8, n=50, groups=20)
    few = opened(comparison_plot("Spearman", {"model": one}))
    many = opened(comparison_plot("Spearman", {f"$\\foo{i}$": one for i in range(6)}))
    assert many.height > few.height
    confusion = Confusion(levels=("a$b$", "c"), counts=((3, 0), (0, 0)))
    assert opened(confusion_plot(confusion)).width > 100


@pytest.mark.parametrize("target", [ORDINAL, BINARY])
def test_reliability_plot_shows_the_bins(target):
    labels = np.arange(60) % 2.0
    made = [
        reliability_plot(target, reliability(target, labels, scores, [str(i) for i in range(60)]))
        for scores in (np.linspace(0, 1, 60), np.linspace(0.4, 0.6, 60))
    ]
    assert made[0] != made[1]
    assert opened(made[0]).width > 300


def test_pyplot_is_never_loaded():
    code = "import sys, tamis.evaluation.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_change_plot_grows_with_the_tests_and_takes_none_that_move():
    still = opened(change_plot({"whitespace": (0.0,) * 5}))
    moved = opened(change_plot({f"$t{n}$": (-1, -0.5, 0, 0.1, 0.2) for n in range(8)}))
    assert moved.height > still.height
