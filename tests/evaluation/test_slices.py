import numpy as np

from tamis.evaluation.slices import MAX_SOURCES, slices


def sizes(sources, characters):
    return {(s.kind, s.name): int(s.mask.sum()) for s in slices(sources, np.array(characters))}


def test_families_sources_and_the_pooled_rest():
    sources = ["docstring/a"] * 20 + ["docstring/b"] * 15 + ["wiki"] * 12 + ["x"] * 6 + ["y"] * 5
    found = sizes(sources, range(58))
    assert found["family", "docstring/*"] == 35
    assert found["source", "docstring/a"] == 20
    assert found["source", "wiki"] == 12
    assert found["source", "(other sources)"] == 11
    assert ("family", "wiki/*") not in found
    assert ("source", "x") not in found


def test_terciles_part_the_documents():
    found = sizes([""] * 90, range(90))
    lengths = [n for (kind, _), n in found.items() if kind == "length"]
    assert lengths == [30, 30, 30]
    # One source holds everything: a slice of it would repeat the overall figure.
    assert not [kind for kind, _ in found if kind == "source"]


def test_thousands_of_sources_do_not_make_thousands_of_slices():
    sources = [f"site{i}" for i in range(200) for _ in range(11)]
    found = [name for kind, name in sizes(sources, range(2200)) if kind == "source"]
    assert len(found) == MAX_SOURCES + 1
