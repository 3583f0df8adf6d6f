import fsspec
import pytest

from tamis.corpus.split import split
from tamis.tuning.journal import Journal
from tamis.tuning.search import search_of
from tests.comparison.examples import documents
from tests.tuning.examples import counted, search, tuned_task


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    task, data = tuned_task(), documents()
    sides = split(data, task.target, task.split, task.seed)
    return search_of(task, data, sides, tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def remote(tmp_path):
    folder = f"memory://{tmp_path.name}/tuning"
    yield folder
    memory = fsspec.filesystem("memory")
    if memory.exists(folder):
        memory.rm(folder, recursive=True)


def test_a_local_folder_holds_the_file_itself(made, tmp_path):
    journal = Journal(made, str(tmp_path / "shared"), tmp_path / "scratch")
    assert journal.file == tmp_path / "shared" / f"{made.key()}.journal"
    journal.fetch()
    assert journal.file.parent.is_dir() and not journal.file.exists()
    journal.file.write_bytes(b"{}\n")
    journal.keep()
    journal.fetch()
    assert journal.file.read_bytes() == b"{}\n"
    assert not (tmp_path / "scratch").exists()


def test_a_remote_folder_gets_a_copy(made, tmp_path, remote):
    here, there = (Journal(made, remote, tmp_path / name) for name in ("here", "there"))
    here.fetch()  # there is none yet
    assert here.file == tmp_path / "here" / f"{made.key()}.journal"
    assert not here.file.exists()
    here.file.write_bytes(b"1\n2\n")
    here.keep()
    there.fetch()
    assert there.file.read_bytes() == b"1\n2\n"


@pytest.mark.parametrize(("mine", "taken"), [(b"1\n", b"1\n2\n"), (b"1\n2\n3\n", b"1\n2\n3\n")])
def test_the_longer_one_is_taken_up(made, tmp_path, remote, mine, taken):
    here, there = (Journal(made, remote, tmp_path / name) for name in ("here", "there"))
    for journal, content in ((here, b"1\n2\n"), (there, mine)):
        journal.file.parent.mkdir()
        journal.file.write_bytes(content)
    here.keep()
    there.fetch()
    assert there.file.read_bytes() == taken


def test_another_machine_goes_on_with_a_search(made, tmp_path, remote, monkeypatch):
    asked = counted(monkeypatch)

    def on(machine, trials):
        journal = Journal(made, remote, tmp_path / machine)
        journal.fetch()
        return search(tmp_path / machine, trials, after=journal.keep, journal=journal.file)

    first = on("one", 3)
    second = on("two", 5)
    assert second.trials[:3] == first.trials and second.own == first.own
    assert len(asked) == 2 * (1 + 5)
    assert on("one", 5) == second and len(asked) == 2 * (1 + 5)
