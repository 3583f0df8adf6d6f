"""The rules that keep the house in order, held by reading the source."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
CODE = ("cli", "deployment", "materializers", "pipelines", "steps", "tamis")
FILES = [file for folder in CODE for file in sorted((PROJECT / folder).rglob("*.py"))]
FORBIDDEN_IN_ENGINE = {"zenml", "mlflow", "google", "kfp", "steps", "pipelines", "deployment",
                       "materializers", "cli"}  # fmt: skip
PICKLERS = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}


def name_of(file):
    return file.relative_to(PROJECT).as_posix()


def imports(tree):
    """Top-level names of everything that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def test_there_is_something_to_look_at():
    assert len(FILES) > 50


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_who_may_import_whom(file):
    found = set(imports(parsed(file)))
    if name_of(file).startswith("tamis/"):
        assert not found & FORBIDDEN_IN_ENGINE
    if name_of(file).startswith(("steps/", "pipelines/", "materializers/")):
        assert "cli" not in found
    if name_of(file) != "deployment/registry.py":
        assert "mlflow" not in found


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_is_pickled(file):
    tree = parsed(file)
    assert not set(imports(tree)) & PICKLERS
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"torch.load", "torch.save"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_file_is_long(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def functions(file, decorator):
    for node in parsed(file).body:
        if isinstance(node, ast.FunctionDef):
            for given in node.decorator_list:
                called = given.func if isinstance(given, ast.Call) else given
                if ast.unparse(called) == decorator:
                    yield node, given


STEPS = [
    (file, node, given)
    for file in sorted((PROJECT / "steps").glob("*.py"))
    for node, given in functions(file, "step")
]
STEP_NAMES = [node.name for _, node, _ in STEPS]


def test_the_steps_were_found():
    assert {"ingest", "train", "evaluate", "gate", "register", "sift"} <= set(STEP_NAMES)


@pytest.mark.parametrize(("file", "node", "given"), STEPS, ids=STEP_NAMES)
def test_a_step_is_thin(file, node, given):
    body = node.body[1:] if ast.get_docstring(node) else node.body
    assert body[-1].end_lineno - body[0].lineno + 1 <= 10
    assert not any(isinstance(n, ast.For | ast.While | ast.Try) for n in ast.walk(node))


@pytest.mark.parametrize(("file", "node", "given"), STEPS, ids=STEP_NAMES)
def test_a_step_says_what_its_cache_depends_on(file, node, given):
    assert isinstance(given, ast.Call), "a bare @step caches without its helpers"
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in given.keywords}
    assert "cache_policy" in keywords or keywords.get("enable_cache") == "False"
    assert "output_materializers" in keywords


PIPELINES = [
    (file, node)
    for file in sorted((PROJECT / "pipelines").glob("*.py"))
    for node, _ in functions(file, "pipeline")
]


@pytest.mark.parametrize(("file", "node"), PIPELINES, ids=[n.name for _, n in PIPELINES])
def test_a_pipeline_only_wires(file, node):
    branching = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.BinOp, ast.Lambda)
    assert not any(isinstance(child, branching) for child in ast.walk(node))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_happens_at_import(file):
    """No client, no folder, no environment variable at module level."""
    for node in parsed(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If):
            continue
        text = ast.unparse(node)
        assert "Client()" not in text
        assert ".mkdir(" not in text
        assert "os.environ" not in text
        assert "os.getenv" not in text
