"""To Argilla and Label Studio, and back with labels by people."""

import json
from xml.etree import ElementTree

import pytest

from tamis.annotation.exchange import export, labelling_interface, read_labels
from tamis.annotation.journal import Journal
from tamis.annotation.output import gather
from tamis.annotation.reviews import keep, reviews_of, together
from tamis.annotation.run import rewrite
from tamis.corpus.store import open_store
from tamis.errors import DataError, UsageError
from tests.annotation.judge_server import serving
from tests.annotation.rounds import ORDINAL, ask, numbered, rows, selection

CHOSEN = selection([*numbered(5), "a text that is refused"])


@pytest.fixture
def judged(tmp_path):
    """A folder with five labels and one refusal."""
    with serving(faults={"refused": ("refusal", 9)}) as server:
        ask(tmp_path, server.url, CHOSEN)
    return tmp_path


def exported(folder, tool):
    file = folder / f"{tool}.json"
    with Journal(str(folder / "journal")) as journal:
        assert export(tool, str(file), CHOSEN, gather(CHOSEN, journal)) == 6
    return json.loads(file.read_text("utf-8"))


def imported(folder, tool, given):
    """Import records and write the labels again."""
    file = folder / "in.json"
    file.write_text(given if isinstance(given, str) else json.dumps(given), "utf-8")
    with Journal(str(folder / "journal")) as journal:
        labels, told = read_labels(tool, str(file), CHOSEN)
        keep(journal.store, labels)
        return told, rewrite(CHOSEN, journal, open_store(str(folder / "out")))


def answer_argilla(record, value, who="ann", **more):
    record["responses"].setdefault("score", []).append({"value": value, "user_id": who, **more})


def answer_label_studio(task, value, who=None, **more):
    result = {"from_name": "score", "to_name": "text", "type": "choices",
              "value": {"choices": [value]}}  # fmt: skip
    who = who or {"id": 3, "email": "ann@example.org"}
    task.setdefault("annotations", []).append(
        {"result": [result], "completed_by": who, "was_cancelled": False, **more}
    )


def test_argilla_records_have_the_fields_of_its_format(judged):
    records = exported(judged, "argilla")
    assert all(
        list(r) == ["id", "fields", "metadata", "suggestions", "responses", "vectors"]
        for r in records
    )
    assert records[3]["fields"] == {"text": CHOSEN.items[3].text}
    assert records[3]["suggestions"] == {
        "score": {"value": "3", "score": None, "agent": "judge-7b"}
    }
    assert records[3]["metadata"]["reason"].startswith("it says")
    assert records[5]["suggestions"] == {} and "cannot rate" in records[5]["metadata"]["reason"]


def test_label_studio_tasks_fit_the_labelling_interface(judged):
    tasks = exported(judged, "label-studio")
    view = ElementTree.fromstring(labelling_interface(ORDINAL))
    choices = view.find("Choices")
    (result,) = tasks[4]["predictions"][0]["result"]
    assert (result["from_name"], result["to_name"]) == (choices.get("name"), choices.get("toName"))
    assert result["type"] == "choices"
    assert result["value"]["choices"] == ["4"]
    assert "4" in [choice.get("value") for choice in choices]
    assert tasks[4]["data"]["text"] == CHOSEN.items[4].text
    assert tasks[4]["predictions"][0]["model_version"] == "judge-7b"
    assert tasks[5]["predictions"] == []


@pytest.mark.parametrize(
    ("tool", "answer"), [("argilla", answer_argilla), ("label-studio", answer_label_studio)]
)
def test_people_overrule_the_judge_and_are_named(judged, tool, answer):
    records = exported(judged, tool)
    for record, value in zip(records, ["5", "1", "2", "3", "4", "0"], strict=True):
        answer(record, value)
    told, report = imported(judged, tool, records)
    assert (told.labels, told.documents, told.skipped) == (6, 6, {})
    found = rows(judged)
    assert [row["score"] for row in found] == [5, 1, 2, 3, 4, 0]
    assert [row["judge_score"] for row in found] == [0, 1, 2, 3, 4, None]
    assert {row["labelled_by"] for row in found} == set(told.people)
    assert "ann" in told.people[0]
    assert (report.reviewed, report.with_people.n) == (6, 5)
    assert report.with_people.exact.value == 0.8
    assert "6 of 6 by people" in (judged / "out" / "source.yaml").read_text()
    # A later run keeps what people said.
    with serving() as server:
        ask(judged, server.url, CHOSEN)
    assert [row["score"] for row in rows(judged)] == [5, 1, 2, 3, 4, 0]


def test_what_is_no_label_is_skipped_and_counted(judged):
    records = exported(judged, "argilla")
    answer_argilla(records[0], "9")
    answer_argilla(records[1], "2", status="draft")
    answer_argilla(records[2], "2")
    records[2]["fields"]["text"] += " changed"
    records[3]["responses"] = {"score": "3"}
    records[4]["fields"] = None
    told, report = imported(judged, "argilla", records)
    assert told.labels == 0 and report.reviewed == 0
    assert told.skipped == {
        "malformed": 2,
        "no label by a person": 2,
        "not a document of this output": 1,
        "not a label of the task": 1,
    }


def test_discarded_annotations_and_suggestions_are_no_labels(judged):
    tasks = exported(judged, "label-studio")
    answer_label_studio(tasks[0], "5", was_cancelled=True)
    answer_label_studio(tasks[1], "5", who=7)
    rating = {"from_name": "score", "type": "rating", "value": {"rating": 4}}
    tasks[2]["annotations"] = [{"result": [rating], "completed_by": 7}]
    told, _ = imported(judged, "label-studio", tasks)
    assert (told.labels, told.people) == (2, ("7",))
    assert [row["score"] for row in rows(judged)][:3] == [0, 5, 4]


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", "[" * 100_000])
def test_a_file_of_something_else_is_refused(judged, text):
    with pytest.raises(DataError, match="--import"):
        imported(judged, "argilla", text)
    with pytest.raises(UsageError, match="a file to read"):
        read_labels("argilla", str(judged / "none.json"), CHOSEN)


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ({"a": 3}, 3), ({"a": 3, "b": 4, "c": 4}, 4), ({"a": 1, "b": 4}, 1),
        ({"a": 1, "b": 4, "c": 5}, 4), ({"a": "x", "b": "x", "c": "y"}, "x"),
        ({"a": "x", "b": "y"}, None),
    ],
)  # fmt: skip
def test_several_people_make_one_label(said, label):
    found = together(said)
    assert (found and found.label) == label


def test_a_person_may_change_their_mind(judged):
    for value in ("1", "5"):
        records = exported(judged, "argilla")
        answer_argilla(records[0], value)
        imported(judged, "argilla", records)
    with Journal(str(judged / "journal")) as journal:
        (review,) = reviews_of(journal.store).values()
    assert (review.label, review.who) == (5, ("ann",))
