import pytest

from deployment import stacks
from deployment.session import Session
from deployment.stacks import PROJECT, LocalStack, load_stack
from tamis.errors import ConfigError, StackError


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("TAMIS_HOME", "ZENML_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A project of its own with one stack file."""
    found = tmp_path / "configs" / "stacks"
    found.mkdir(parents=True)
    (found / "local.yaml").write_text("kind: local\nhome: data\n")
    monkeypatch.setattr(stacks, "STACKS", found)
    monkeypatch.setattr(stacks, "PROJECT", tmp_path)
    return found


def test_the_local_stack_lives_in_the_project():
    stack = load_stack("local")
    assert stack.folder == PROJECT / ".tamis"
    assert stack.zenml_config == stack.folder / "zenml"
    assert stack.tracking_uri == f"sqlite:///{stack.folder / 'mlflow.db'}"


@pytest.mark.parametrize("name", ["nope", "", "Local", "local.yaml"])
def test_an_unknown_stack_is_refused_with_those_there_are(name):
    with pytest.raises(StackError) as caught:
        load_stack(name)
    assert type(caught.value) is StackError
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"--stack: given {name!r}; allowed: ")
    assert {"local", "vertex"} <= set(str(caught.value).split("allowed: ")[1].split(", "))


def test_a_stack_whose_file_still_has_placeholders_says_which(monkeypatch):
    with pytest.raises(ConfigError) as caught:
        load_stack("vertex")
    assert caught.value.key == "project"
    assert caught.value.given == "<project id>"
    assert "\n" not in str(caught.value)


def test_stack_files_may_lie_elsewhere(monkeypatch, tmp_path, folder):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "mine.yaml").write_text("kind: local\nhome: there\n")
    monkeypatch.setenv("TAMIS_STACKS", str(other))
    assert load_stack("mine").folder == tmp_path / "there"
    with pytest.raises(StackError, match="allowed: mine"):
        load_stack("local")


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("kind: local\nhom: x\n", "hom", "did you mean 'home'?"),
        ("home: x\n", "kind", "'local' or 'vertex'; this key is required"),
        ("kind: cloud\n", "kind", "'local'"),
        ("kind: [local]\n", "kind", "'local'"),
        ("kind: local\nhome: 3\n", "home", "text"),
        ("- kind\n", "", "a mapping"),
        ("kind: [\n", "line 2", "valid YAML"),
    ],
)
def test_a_wrong_stack_file_is_refused(folder, text, key, allowed):
    (folder / "local.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_stack("local")
    assert type(caught.value) is ConfigError
    assert caught.value.file.endswith("local.yaml")
    assert caught.value.key == key
    assert allowed in caught.value.allowed


def test_a_path_is_no_name_of_a_stack(tmp_path):
    (tmp_path / "mine.yaml").write_text("kind: local\n")
    with pytest.raises(StackError):
        load_stack(str(tmp_path / "mine"))


def test_tamis_home_wins_over_the_file(monkeypatch, tmp_path, folder):
    stack = load_stack("local")
    assert stack.folder == tmp_path / "data"
    monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "elsewhere"))
    assert stack.folder == tmp_path / "elsewhere"
    assert stack.zenml_config == tmp_path / "elsewhere" / "zenml"
    assert str(tmp_path / "elsewhere" / "mlflow.db") in stack.tracking_uri
    monkeypatch.setenv("TAMIS_HOME", "beside")
    assert stack.folder == tmp_path / "beside"
    assert not list(tmp_path.glob("elsewhere*"))


def test_zenml_config_path_is_respected(monkeypatch, tmp_path):
    stack = LocalStack(kind="local", home=str(tmp_path / "home"))
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zen"))
    assert stack.zenml_config == tmp_path / "zen"
    assert stack.folder == tmp_path / "home"
    monkeypatch.setenv("ZENML_CONFIG_PATH", "")
    assert stack.zenml_config == tmp_path / "home" / "zenml"


def test_a_session_keeps_its_files_in_the_stacks_home(tmp_path):
    session = Session("local", LocalStack(kind="local", home=str(tmp_path)))
    assert session.home == tmp_path
    assert session.ledger == str(tmp_path / "ledger")
