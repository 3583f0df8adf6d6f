"""Another decision over the same scores."""

import json

import pytest

from tamis.corpus.manifest import read_output
from tamis.corpus.readers import list_shards
from tamis.corpus.settings import (
    ExactSettings,
    FilterSettings,
    LanguageSettings,
    PiiSettings,
)
from tamis.engine.local import LocalEngine
from tamis.errors import ConfigError, UsageError
from tamis.scoring.filter_run import run_filter
from tamis.scoring.scored import count_scores
from tamis.scoring.select import Criterion, select
from tests.scoring import filter_stubs as stubs
from tests.scoring.test_stages import GERMAN, prose

HERE = LocalEngine(0)  # a start of workers takes longer than all the work


@pytest.fixture(scope="module", params=["parquet", "jsonl.zst"])
def scored(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("select")
    corpus = folder / "c"
    corpus.mkdir()
    texts = [prose(i, 3) for i in range(60)]
    for number, part in enumerate((texts[:25], texts[25:])):
        rows = [json.dumps({"text": text}) for text in [*part, GERMAN, part[0], part[0] + " Yes."]]
        (corpus / f"p{number}.jsonl").write_text("\n".join([*rows, "{"]))
    out = str(folder / "scored")
    settings = FilterSettings(language=LanguageSettings(enabled=True))
    plan = stubs.make_plan(out, filter=settings, threshold=3.0, format=request.param)
    report = run_filter(plan, list_shards([str(corpus)]), progress=stubs.quiet, engine=HERE)
    return out, report, settings, corpus


def run(scored, tmp_path, kind, value, engine=HERE, **more):
    out, how = str(tmp_path / "selected"), {"progress": stubs.quiet, "engine": engine}
    return out, select(scored[0], out, Criterion(kind, value), **how, **more)


def rows(out, part="kept"):
    return {(row["shard"], row["row"]): row for row in read_output(out, part, verify=True)}


@pytest.mark.parametrize("threshold", [1.0, 3.0])
def test_the_same_as_a_filter_with_that_threshold(scored, tmp_path, threshold):
    _source, _before, settings, corpus = scored
    out, selection = run(scored, tmp_path, "threshold", threshold)
    plan = stubs.make_plan(tmp_path / "again", filter=settings, threshold=threshold)
    again = run_filter(plan, list_shards([str(corpus)]), progress=stubs.quiet, engine=HERE)
    assert selection.report.counts == again.counts
    for part in ("kept", "dropped", "duplicates"):
        assert rows(out, part) == rows(str(tmp_path / "again"), part)
    assert selection.unscored == {"exact_duplicate": 2, "language": 2} or (
        selection.unscored == {"exact_duplicate": 3, "language": 1}
    )
    assert len(list(read_output(out, "quarantine"))) == 2


def test_a_share_of_the_scored(scored, tmp_path):
    _out, selection = run(scored, tmp_path, "top_share", 0.25)
    scores = sorted(
        row["score"]
        for part in ("kept", "dropped", "duplicates")
        for row in rows(scored[0], part).values()
        if row["score"] is not None
    )
    above = [score for score in scores if score >= selection.threshold]
    assert selection.threshold in scores
    assert len(above) == round(0.25 * len(scores)) or len(above) == -(-len(scores) // 4)


def test_a_budget_of_tokens_is_kept_and_used(scored, tmp_path):
    whole = count_scores(scored[0], (0.0, 5.0)).tokens.sum()
    _out, selection = run(scored, tmp_path, "token_budget", whole // 3)
    assert 0.8 * whole / 3 < selection.report.tokens_kept <= whole // 3
    with pytest.raises(UsageError, match="--token-budget: given 1; allowed: at least"):
        run(scored, tmp_path / "b", "token_budget", 1)


def test_stages_after_the_score_may_change(scored, tmp_path):
    _out, selection = run(
        scored, tmp_path, "threshold", 0.5, settings=["near_duplicates.enabled=false"]
    )
    assert selection.report.counts.duplicates == selection.unscored["exact_duplicate"]
    with pytest.raises(ConfigError, match="near_duplicate"):
        run(scored, tmp_path / "b", "threshold", 0.5, settings=["near_duplicate.enabled=false"])


def test_what_was_masked_before_stays_counted(tmp_path):
    texts = [f"{prose(i, 3)} Write to reader{i}@example.org." for i in range(40)]
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    chosen = FilterSettings(pii=PiiSettings(action="mask"))
    plan = stubs.make_plan(tmp_path / "scored", filter=chosen, threshold=2.0)
    before = run_filter(
        plan, list_shards([str(tmp_path / "c.jsonl")]), progress=stubs.quiet, engine=HERE
    )
    out = str(tmp_path / "selected")
    after = select(
        str(tmp_path / "scored"),
        out,
        Criterion("threshold", 1.0),
        progress=stubs.quiet,
        engine=HERE,
    )
    found = [row["pii_found"] for row in rows(out).values()]
    assert found == [1] * after.report.counts.kept
    again = after.report.counts.kept - before.counts.kept
    assert again > 0
    assert after.report.summary.pii == {"email": again, "masked before": before.counts.kept}


def test_workers_give_the_same(scored, tmp_path):
    one, _ = run(scored, tmp_path / "1", "threshold", 2.0)
    two, _ = run(scored, tmp_path / "2", "threshold", 2.0, engine=LocalEngine(2))
    assert rows(one) == rows(two)


def test_what_cannot_be_selected_from(scored, tmp_path):
    with pytest.raises(UsageError, match="no output of tamis"):
        select(str(tmp_path), str(tmp_path / "x"), Criterion("threshold", 1.0))
    with pytest.raises(UsageError, match="another folder than --scores"):
        select(scored[0], scored[0] + "/", Criterion("threshold", 1.0))
    half = tmp_path / "half"
    plan = stubs.make_plan(half, filter=FilterSettings(exact=ExactSettings(enabled=False)))
    run_filter(plan, list_shards([str(scored[3])]), progress=stubs.quiet, engine=HERE)
    (half / "report.json").unlink()
    with pytest.raises(UsageError, match="finished filter"):
        select(str(half), str(tmp_path / "x"), Criterion("threshold", 1.0))
