import os
import re
from importlib import metadata

import pytest

from tamis.corpus import packages
from tamis.corpus.document import content_hash, normalise
from tamis.errors import DataError

CHEAP = ("news", "licence", "wikipedia")


@pytest.fixture(scope="module")
def pool():
    return list(packages.read_pool(CHEAP))


def of(pool, genre):
    return [document for document in pool if document.genre == genre]


def test_the_cheap_genres_are_there_in_the_order_of_the_pool(pool):
    order = [genre for genre in packages.genres() if genre in CHEAP]
    assert list(dict.fromkeys(document.genre for document in pool)) == order
    assert len(of(pool, "news")) > 200
    assert len(of(pool, "wikipedia")) > 200
    assert len(of(pool, "licence")) > 20


def test_documents_are_normalised_and_long_enough(pool):
    for document in pool:
        assert document.text == normalise(document.text)
        assert document.sha256 == content_hash(document.text)
    assert all(len(document.text) >= 600 for document in of(pool, "wikipedia"))
    assert all(not re.match("#redirect", d.text, re.IGNORECASE) for d in of(pool, "wikipedia"))


def test_every_text_comes_once(pool):
    keys = [re.sub(r"\W+", "", document.text[:1500]).lower() for document in pool]
    assert len(set(keys)) == len(keys)


def test_every_document_has_an_origin_of_its_own(pool):
    origins = [document.origin for document in pool]
    assert len(set(origins)) == len(origins)


def test_an_origin_names_package_version_and_genre(pool):
    gensim = f"gensim=={metadata.version('gensim')}:"
    assert all(d.origin.startswith(gensim) for d in of(pool, "news") + of(pool, "wikipedia"))
    for document in of(pool, "licence")[:10]:
        name, version = re.match(r"(.+?)==(.+?):", document.origin).groups()
        assert metadata.version(name) == version
    assert all(packages.genre_of(document.origin) == document.genre for document in pool)


def test_sections_of_one_page_are_one_group_and_stories_each_their_own(pool):
    for document in of(pool, "wikipedia"):
        title = document.text.split(" - ")[0]
        assert document.group.endswith(f"#{title.split('/')[0]}")
    assert len({d.group for d in of(pool, "wikipedia")}) < len(of(pool, "wikipedia")) / 2
    assert len({d.group for d in of(pool, "news")}) == len(of(pool, "news"))
    for document in of(pool, "licence"):
        assert re.fullmatch(r"[^:]+==[^:]+", document.group)


@pytest.mark.parametrize(
    ("origin", "genre", "group"),
    [
        ("scipy==1.0:scipy/fft/a.py#dst", "docstring/scipy", "scipy==1.0:scipy/fft/a.py"),
        ("scipy==1.0:scipy/fft/a.py#", "docstring/scipy", "scipy==1.0:scipy/fft/a.py"),
        ("rich==1.0:METADATA", "readme", "rich==1.0:METADATA"),
        ("rich==1.0:rich-1.0.dist-info/LICENSE", "licence", "rich==1.0"),
    ],
)
def test_genre_and_group_follow_from_the_origin(origin, genre, group):
    assert packages.genre_of(origin) == genre
    assert packages.PackageDocument(genre, origin, "text").group == group


def test_reading_again_and_with_workers_gives_the_same(pool):
    one = list(packages.read_pool(("news", "licence")))
    assert one == list(packages.read_pool(("licence", "news"), workers=2))
    alike = {(d.genre, d.text) for d in pool if d.genre != "wikipedia"}
    assert {(d.genre, d.text) for d in one} >= alike


def test_patterns_choose_genres():
    assert packages.unknown_patterns(("*", "docstring/*", "news")) == []
    assert packages.unknown_patterns(("newz", "docstring", "NEWS", "news")) == [
        "newz",
        "docstring",
        "NEWS",
    ]
    assert list(packages.read_pool(("nothing",))) == []


def test_docstrings_of_chosen_files_only():
    origin = f"mpmath=={metadata.version('mpmath')}:mpmath/calculus/quadrature.py"
    found = list(packages.read_pool(("docstring/mpmath",), frozenset({origin})))
    assert found
    assert {document.group for document in found} == {origin}
    assert all(len(document.text) > 400 for document in found)
    assert not any(re.search(r"[#.]_", document.origin) for document in found)


def test_public_docstrings_are_named_by_their_place():
    import ast

    source = '''"""Module."""
class A:
    """Class."""
    def f(self):
        """Method."""
    def _g(self):
        """Private."""
def h():
    """Function."""
    def inner():
        """Nested."""
'''
    found = dict(packages._module_docstrings(ast.parse(source)))
    assert found == {
        "": "Module.", "A": "Class.", "A.f": "Method.", "h": "Function.", "h.inner": "Nested.",
    }  # fmt: skip


def test_a_missing_package_is_one_sentence(monkeypatch):
    def gone(files):
        raise metadata.PackageNotFoundError("gensim")

    monkeypatch.setitem(packages._READERS, "news", gone)
    with pytest.raises(DataError, match=r"^packages: gensim is not installed; run make setup$"):
        list(packages.read_pool(("news",)))


def test_of_one_text_in_two_genres_the_first_stays(monkeypatch):
    story = "Some story, told twice. " * 40
    monkeypatch.setitem(packages._READERS, "news", lambda files: iter([("n#0", story)]))
    shouted = story.upper().replace(",", " -")
    monkeypatch.setitem(packages._READERS, "licence", lambda files: iter([("l", shouted)]))
    assert [d.origin for d in packages.read_pool(("licence", "news"))] == ["n#0"]
    assert [d.origin for d in packages.read_pool(("licence",))] == ["l"]


def test_the_version_follows_the_installed_packages(monkeypatch, tmp_path):
    before = packages.version()
    assert packages.version() == before
    info = tmp_path / "tamis_test_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tamis-test-package\nVersion: 1\n")
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    assert packages.version() != before
