import random
import re
import uuid

import fsspec
import numpy as np
import pytest

from tamis.corpus import dedup, near
from tamis.corpus.near import (
    NearResult,
    Signatures,
    Signer,
    candidate_edges,
    read_removed,
    resolve,
    write_signatures,
)
from tamis.corpus.packages import read_pool
from tamis.corpus.settings import NearDuplicateSettings
from tamis.corpus.store import open_store
from tamis.errors import DataError

THRESHOLD = 0.8
SETTINGS = NearDuplicateSettings(threshold=THRESHOLD)
RATES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    """An output on a local disk, and one on an object store."""
    if request.param == "local":
        yield open_store(str(tmp_path / "out"))
        return
    yield open_store(f"memory://{uuid.uuid4().hex}/out")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def disk(tmp_path):
    return open_store(str(tmp_path / "disk"))


def deduplicate(store, shards, threshold=THRESHOLD):
    """All stages over shards of (row, signature row, score): what goes, by (position, row)."""
    paths = [f"work/{position}.signatures" for position in range(len(shards))]
    bands = 0
    for path, (signatures, rows, scores) in zip(paths, shards, strict=True):
        write_signatures(store, path, signatures, np.array(rows, dtype=np.uint64), np.array(scores))
        bands = signatures.bands.shape[1]
    edges = [f"work/{band}.edges" for band in range(bands)]
    for band, path in enumerate(edges):
        candidate_edges(store, paths, band, path)
    result = resolve(store, paths, edges, threshold, "work/removed")
    removed = {
        (position, row): kept
        for position in range(len(paths))
        for row, kept in read_removed(store, "work/removed", position).items()
    }
    assert len(removed) == result.removed
    return removed, result


def text_shards(shards, scores=None, settings=SETTINGS):
    """Shards of texts as shards of signatures; rows count in threes."""
    signer = Signer(settings)
    given = scores or [[0.0] * len(texts) for texts in shards]
    return [
        (signer.sign(texts), [3 * i for i in range(len(texts))], score)
        for texts, score in zip(shards, given, strict=True)
    ]


def text(seed, length=200):
    return " ".join(random.Random(seed).choices([f"w{i}" for i in range(3_000)], k=length))


def edited(original, rate, seed):
    """A text in which some words are replaced by others."""
    chance = random.Random(seed)
    return re.sub(
        r"\w+", lambda m: f"new{chance.random():.9f}" if chance.random() < rate else m[0], original
    )


def exact_similarities(texts):
    """Jaccard similarities of runs of five words of all pairs (n, n)."""
    from scipy.sparse import csr_matrix

    runs = []
    for one in texts:
        found = re.findall(r"\w+", one.lower())
        runs.append({tuple(found[i : i + 5]) for i in range(max(1, len(found) - 4))})
    numbers = {run: i for i, run in enumerate(set().union(*runs))}
    columns = [numbers[run] for one in runs for run in one]
    ends = np.cumsum([0, *map(len, runs)])
    matrix = csr_matrix((np.ones(len(columns)), columns, ends))
    shared = (matrix @ matrix.T).toarray()
    sizes = np.diff(ends)
    return shared / (sizes[:, None] + sizes[None, :] - shared)


@pytest.fixture(scope="module")
def family():
    """Real documents, each with three edited copies, in seven shards, with scores."""
    chance = random.Random(0)
    originals = [d.text for d in read_pool(("news", "docstring/networkx"))]
    originals = [one for one in originals if len(one.split()) > 100][:350]
    texts = list(originals)
    for number, one in enumerate(originals):
        texts += [edited(one, chance.choice(RATES), (number + 1) * 10 + i) for i in range(3)]
    chance.shuffle(texts)
    shards = [texts[start::7] for start in range(7)]
    scores = [[chance.random() for _ in one] for one in shards]
    return shards, scores


@pytest.fixture(scope="module")
def signed(family):
    return text_shards(*family)


def identities(family, order):
    """(position, row) of each document in an order of shards -> the text's number."""
    shards, _ = family
    offsets = np.cumsum([0, *map(len, shards)])
    return {
        (position, 3 * index): int(offsets[shard]) + index
        for position, shard in enumerate(order)
        for index in range(len(shards[shard]))
    }


class TestOnRealDocuments:
    def test_recall_and_precision_against_brute_force(self, disk, family, signed):
        removed, result = deduplicate(disk, signed)
        texts = [one for shard in family[0] for one in shard]
        truth = exact_similarities(texts)
        number = identities(family, range(7))
        kept = np.arange(len(texts))
        for gone, (position, row, _) in removed.items():
            kept[number[gone]] = number[position, row]
        one, other = np.nonzero(np.triu(truth >= THRESHOLD, 1))
        found = kept[one] == kept[other]
        clear = truth[one, other] >= THRESHOLD + 0.05
        gone = np.flatnonzero(kept != np.arange(len(texts)))
        to_kept = truth[gone, kept[gone]]
        best = np.where(np.eye(len(texts), dtype=bool), 0, truth)[gone].max(axis=1)
        figures = {
            "recall": found.mean(),
            "recall_from_0.85": found[clear].mean(),
            "precision_to_kept": (to_kept >= THRESHOLD - 0.05).mean(),
            "precision_to_any": (best >= THRESHOLD - 0.05).mean(),
        }
        assert len(one) > 400
        assert len(gone) == result.removed > 300
        assert figures["recall"] > 0.93, figures
        assert figures["recall_from_0.85"] > 0.99, figures
        assert figures["precision_to_kept"] > 0.95, figures
        assert figures["precision_to_any"] > 0.98, figures
        estimates = np.array([estimate for _, _, estimate in removed.values()])
        errors = estimates - [truth[number[key], kept[number[key]]] for key in removed]
        assert abs(errors.mean()) < 0.01
        assert errors.std() < 0.06

    def test_the_best_of_each_cluster_stays(self, disk, family, signed):
        removed, _ = deduplicate(disk, signed)
        scores = family[1]
        for (position, row), (kept_position, kept_row, _) in removed.items():
            assert scores[kept_position][kept_row // 3] > scores[position][row // 3]
            assert (kept_position, kept_row) not in removed

    def test_the_order_of_shards_does_not_count(self, disk, family, signed):
        found = []
        for order in (range(7), [3, 6, 0, 2, 5, 1, 4]):
            removed, _ = deduplicate(disk, [signed[shard] for shard in order])
            number = identities(family, order)
            found.append(
                {number[gone]: (number[kept[:2]], kept[2]) for gone, kept in removed.items()}
            )
        assert found[0] == found[1]

    def test_it_is_the_same_every_time(self, tmp_path, family, signed):
        files = []
        for name in ("one", "two"):
            store = open_store(str(tmp_path / name))
            deduplicate(store, text_shards(*family) if name == "two" else signed)
            names = store.names("work")
            files.append({path: store.read(f"work/{path}") for path in names})
        assert files[0] == files[1]


class TestClusters:
    def test_copies_across_shards(self, store):
        shards = [[text(1), text(2)], [edited(text(1), 0.004, 5), text(3)], [text(3) + " end"]]
        removed, result = deduplicate(store, text_shards(shards, [[1, 1], [2, 0.5], [0.7]]))
        assert {gone: kept[:2] for gone, kept in removed.items()} == {
            (0, 0): (1, 0),
            (1, 3): (2, 0),
        }
        assert all(0.8 < kept[2] <= 1 for kept in removed.values())
        assert (result.clusters, result.removed) == (2, 2)
        assert 2 <= result.verified <= result.candidates

    def test_shards_without_documents(self, store):
        removed, result = deduplicate(store, text_shards([[], [text(1)], [], [text(1)], []]))
        assert removed == {(3, 0): (1, 0, 1.0)}
        removed, result = deduplicate(store, text_shards([[], []]))
        assert (removed, result) == ({}, NearResult(0, 0, 0, 0))

    def test_of_equal_scores_the_first_stays(self, store):
        (signatures, _, _), _ = text_shards([[text(1)] * 3, []])
        shards = [(signatures, [9, 4, 7], [1.0] * 3), (signatures, [0, 1, 2], [1.0] * 3)]
        removed, _ = deduplicate(store, shards)
        assert set(removed.values()) == {(0, 4, 1.0)}
        assert len(removed) == 5

    @pytest.mark.parametrize("worse", [float("nan"), -float("nan"), float("-inf")])
    def test_a_missing_score_loses(self, disk, worse):
        better = -1e200 if worse == float("-inf") else float("-inf")
        removed, _ = deduplicate(disk, text_shards([[text(1)] * 3], [[worse, better, worse]]))
        assert removed == {(0, 0): (0, 3, 1.0), (0, 6): (0, 3, 1.0)}

    def test_chains_are_one_cluster(self, disk):
        chain = [text(1, 400)]
        for step in range(6):
            chain.append(edited(chain[-1], 0.01, step))
        truth = exact_similarities(chain)
        assert truth[0, -1] < 0.75 < THRESHOLD < min(np.diag(truth, 1))
        removed, result = deduplicate(disk, text_shards([chain], [[0, 0, 0, 0, 0, 0, 1]]))
        assert {kept[:2] for kept in removed.values()} == {(0, 18)}
        assert (result.clusters, result.removed) == (1, 6)
        assert removed[0, 0][2] == pytest.approx(truth[0, -1], abs=0.12)

    def test_scripts_without_spaces_are_compared_by_characters(self, disk):
        chance = random.Random(0)
        one = "".join(chance.choice("的一是不了人我在有他这中大来上国") for _ in range(400))
        other = one[:200] + "們" + one[201:]
        removed, _ = deduplicate(disk, text_shards([[one, other, one[::-1]]]))
        assert list(removed) == [(0, 3)]


def made(codes, bands):
    """Signatures of given bytes and band hashes."""
    return Signatures(np.array(bands, dtype=np.uint64), np.array(codes, dtype=np.uint8))


def groups_of(sizes, alike):
    """One band whose groups have sizes; of each, ``alike`` members resemble, but not the first."""
    chance = np.random.default_rng(0)
    codes = chance.integers(0, 256, (sum(sizes), 120))
    start = 0
    for size in sizes:
        members = start + 1 + chance.choice(size - 1, alike, replace=False)
        codes[members] = codes[members[:1]]
        start += size
    return made(codes, np.repeat(np.arange(len(sizes)), sizes)[:, None])


class TestGroups:
    def test_what_only_resembles_others_than_the_first_is_found(self, disk):
        signatures = groups_of([3, 5, 9, dedup.PAIRWISE], 2)
        removed, result = deduplicate(disk, [(signatures, range(33), np.zeros(33))])
        assert (result.clusters, result.removed) == (4, 4)
        assert {kept[2] for kept in removed.values()} == {1.0}

    def test_large_groups_are_searched_in_bounded_time(self, disk):
        size = 3_000
        signatures = groups_of([size], size // 2)
        _, result = deduplicate(disk, [(signatures, range(size), np.zeros(size))])
        assert result.candidates < (1 + dedup.LEADERS) * size
        assert result.removed == size // 2 - 1

    def test_in_a_large_group_only_leaders_are_compared(self, disk):
        size = 200
        signatures = groups_of([size], 0)
        signatures.codes[-1] = signatures.codes[-2]
        _, result = deduplicate(disk, [(signatures, range(size), np.zeros(size))])
        assert result.candidates == sum(size - 1 - i for i in range(1 + dedup.LEADERS))
        assert result.removed == 0

    def test_what_was_joined_is_not_compared_again(self, disk):
        one = np.random.default_rng(0).integers(0, 256, (1, 120))
        signatures = made(np.repeat(one, 50, axis=0), np.zeros((50, 20)))
        _, result = deduplicate(disk, [(signatures, range(50), np.zeros(50))])
        assert result == NearResult(clusters=1, removed=49, candidates=49, verified=49)

    def test_agreeing_in_a_band_is_not_enough(self, disk):
        codes = np.random.default_rng(0).integers(0, 256, (40, 120))
        _, result = deduplicate(
            disk, [(made(codes, np.zeros((40, 20))), range(40), np.zeros(40))], threshold=0.31
        )
        assert (result.removed, result.verified) == (0, 0)
        assert result.candidates > 39

    def test_edges_are_stars_in_keys(self, disk):
        blank = np.zeros((3, 2), dtype=np.uint8)
        bands = [[[5, 1], [6, 2], [5, 3]], [[7, 4], [5, 5], [6, 3]]]
        for name, band in zip("ab", bands, strict=True):
            write_signatures(disk, name, made(blank, band), np.arange(3), np.zeros(3))
        assert candidate_edges(disk, ["a", "b"], 0, "e") == 3
        body = np.frombuffer(disk.read("e")[32:-32], dtype="<u8").reshape(-1, 2)
        shard = 1 << 32
        assert body.tolist() == [[0, 2], [0, shard + 1], [1, shard + 2]]
        assert candidate_edges(disk, ["a", "b"], 1, "e") == 1

    def test_several_passes_find_the_same(self, disk, signed, monkeypatch):
        once = deduplicate(disk, signed)
        monkeypatch.setattr(near, "DOCUMENTS_PER_PASS", 100)
        monkeypatch.setattr(near, "BYTES_IN_MEMORY", 1_000)
        monkeypatch.setattr(near, "_BLOCK", 37)
        monkeypatch.setattr(dedup, "_BLOCK", 37)
        assert deduplicate(disk, signed) == once


class TestDamage:
    @pytest.fixture
    def files(self, disk):
        signatures = Signer(SETTINGS).sign([text(1), text(2), text(1)])
        write_signatures(disk, "s", signatures, np.arange(3), np.zeros(3))
        candidate_edges(disk, ["s"], 0, "e")
        resolve(disk, ["s"], ["e"], THRESHOLD, "r")
        return disk

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[:30],
            lambda data: data[:-1],
            lambda data: data[:-16],
            lambda data: data + data[-16:],
            lambda data: data[:7] + b"\x09" + data[8:],
            lambda data: b"x" + data[1:],
        ],
    )
    def test_damaged_files_are_told(self, files, damage):
        whole = {name: files.read(name) for name in "ser"}
        files.write("s", damage(whole["s"]))
        with pytest.raises(DataError, match="s (is|has)"):
            candidate_edges(files, ["s"], 0, "other")
        with pytest.raises(DataError, match="s (is|has)"):
            resolve(files, ["s"], ["e"], THRESHOLD, "other")
        files.write("s", whole["s"])
        files.write("e", damage(whole["e"]))
        with pytest.raises(DataError, match="e (is|has)"):
            resolve(files, ["s"], ["e"], THRESHOLD, "other")
        files.write("r", damage(whole["r"]))
        with pytest.raises(DataError, match="r (is|has)"):
            read_removed(files, "r", 0)

    def test_files_that_do_not_fit_together(self, files):
        with pytest.raises(DataError, match="an edge leads to shard"):
            resolve(files, [], ["e"], THRESHOLD, "other")
        short = Signer(SETTINGS).sign([text(1)])
        write_signatures(files, "short", short, np.arange(1), np.zeros(1))
        with pytest.raises(DataError, match="not the one in which edges were found"):
            resolve(files, ["short"], ["e"], THRESHOLD, "other")
        with pytest.raises(DataError, match="20 bands, none at 20"):
            candidate_edges(files, ["s"], 20, "other")
        with pytest.raises(DataError, match="gone is not there"):
            candidate_edges(files, ["s", "gone"], 0, "other")
        with pytest.raises(DataError, match="differ in length"):
            write_signatures(files, "x", short, np.arange(2), np.zeros(1))
        assert "other" not in files.names()
