"""What an estimate says, beside the run that follows."""

import gzip
import json
import random
import time

import numpy as np
import pytest

from tamis.corpus.readers import list_shards
from tamis.corpus.settings import FilterSettings, LanguageSettings
from tamis.engine.local import LocalEngine
from tamis.errors import ConfigError, UsageError
from tamis.scoring.estimate import estimate
from tamis.scoring.filter_run import run_filter
from tamis.scoring.prices import Machine, load_prices
from tests.scoring import filter_stubs as stubs
from tests.scoring.test_stages import prose

SHARDS, ROWS = 6, 500
SETTINGS = FilterSettings(language=LanguageSettings(enabled=True))


class Burning(stubs.Stub):
    """A stub that takes CPU time as a model does: with the length of the texts."""

    def score(self, texts):
        end = time.thread_time() + 3e-6 * sum(map(len, texts))
        while time.thread_time() < end:
            pass
        return super().score(texts)


def load(model_dir):
    return Burning(model_dir)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Shards whose documents differ in length, with repetitions in each."""
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(5)
    for shard in range(SHARDS):
        texts = [prose(chance.randrange(10**6), chance.randint(2, 8)) for _ in range(ROWS)]
        for _ in range(20):
            texts[chance.randrange(ROWS)] = texts[chance.randrange(ROWS)]
        lines = [json.dumps({"text": text}) for text in texts]
        lines[shard] = "{broken"
        data = ("\n".join(lines) + "\n").encode()
        packed = gzip.compress(data) if shard % 2 else data
        (folder / f"part{shard:02}.jsonl{'.gz' if shard % 2 else ''}").write_bytes(packed)
    return [*list_shards([str(folder)])]


def plan_of(out):
    return stubs.make_plan(out, filter=SETTINGS, threshold=2.5, load=load)


def finished(out, shards):
    return run_filter(plan_of(out), shards, engine=LocalEngine(0), progress=stubs.quiet)


def test_the_run_that_follows_is_within_30_percent(corpus, tmp_path):
    found = estimate(plan_of(tmp_path / "unused"), corpus, documents=300)
    assert not (tmp_path / "unused").exists()
    report = finished(tmp_path / "out", corpus)
    assert found.sampled_documents == pytest.approx(300, abs=SHARDS)
    assert found.documents.value == pytest.approx(report.counts.read, rel=0.15)
    assert found.kept.value == pytest.approx(report.counts.kept, rel=0.3)
    assert found.tokens_kept.value == pytest.approx(report.tokens_kept, rel=0.3)
    assert found.tokens_kept.low < report.tokens_kept < found.tokens_kept.high
    assert found.cpu_seconds == pytest.approx(report.cpu_seconds, rel=0.3)
    spent = report.stages["score"].cpu_seconds
    assert found.stages["score"].cpu_seconds == pytest.approx(spent, rel=0.3)
    assert set(found.stages) == set(report.stages)


def test_a_sample_of_everything_is_exact(corpus, tmp_path):
    few = corpus[:2]
    found = estimate(plan_of(tmp_path), few, documents=4_000)
    report = finished(tmp_path / "out", few)
    assert found.sampled_documents == found.documents.value == report.counts.read
    assert (found.kept.value, found.tokens_kept.value) == (report.counts.kept, report.tokens_kept)


def test_the_same_seed_says_the_same(corpus, tmp_path):
    one, two = (estimate(plan_of(tmp_path), corpus, documents=100) for _ in range(2))
    assert (one.kept, one.tokens_kept) == (two.kept, two.tokens_kept)
    other = estimate(plan_of(tmp_path), corpus, documents=100, seed=1)
    assert other.kept != one.kept


def test_nothing_to_sample_is_one_sentence(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UsageError, match="nothing can be estimated"):
        estimate(plan_of(tmp_path / "out"), list_shards([str(tmp_path / "a.jsonl")]))


def test_the_bill_of_a_machine(corpus, tmp_path):
    machine = Machine(cores=8, hour=0.5, speed=2.0)
    assert machine.bill(3600 * 32) == (2.0, 1.0)
    found = estimate(plan_of(tmp_path), corpus[:2], documents=100)
    bills = [machine.bill(stage.cpu_seconds)[1] for stage in found.stages.values()]
    assert sum(bills) == pytest.approx(found.on(machine)[1], rel=0.3)
    assert np.all(np.array(bills) >= 0)


def test_prices_are_checked(tmp_path):
    assert load_prices().machines
    (tmp_path / "p.yaml").write_text("currency: EUR\nmachines: {m: {cores: 0, hour: 1}}\n")
    with pytest.raises(ConfigError, match="machines.m.cores: given 0"):
        load_prices(tmp_path / "p.yaml")
