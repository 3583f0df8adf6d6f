import base64
import http.server
import sys
import threading
from types import SimpleNamespace

import pytest
import requests

from deployment.vertex import check as checks
from deployment.vertex import google, remote
from deployment.vertex.check import Findings, check
from deployment.vertex.settings import VertexStack
from tamis.config import validate
from tamis.errors import StackError
from tests.deployment.vertex.test_settings import GOOD

TOKEN = "ya29.token"
DIGEST = "sha256:" + "0" * 64


class Server(http.server.ThreadingHTTPServer):
    """Answers each path with the status it was told, 404 otherwise, or not at all."""

    def __init__(self):
        self.answers, self.asked, self.silent = {}, [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append((self.command, self.path, dict(self.headers)))
        status = server.answers.get(self.path, 404)
        if status is None:
            server.silent.wait(30)
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *given):
        pass


@pytest.fixture
def server():
    found = Server()
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.silent.set()
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def closed(server):
    """A port of this machine that nobody listens on any more."""
    other = Server()
    other.server_close()
    return other.host


class Login:
    token = None

    def refresh(self, request):
        self.token = TOKEN


@pytest.fixture
def look(monkeypatch):
    """Look an image up: what was good, what was wrong."""
    monkeypatch.setattr(google, "credentials", Login)

    def looked(image):
        found = Findings()
        found.look(f"image {image}", lambda: checks._image(image))
        return found

    return looked


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("p/r/steps:0.1.0-cpu", "/v2/p/r/steps/manifests/0.1.0-cpu"),
        (f"p/r/steps@{DIGEST}", f"/v2/p/r/steps/manifests/{DIGEST}"),
        ("steps:1", "/v2/steps/manifests/1"),
    ],
)
def test_an_image_is_looked_up_as_a_container_engine_would(server, look, reference, path):
    server.answers[path] = 200
    image = f"{server.host}/{reference}"
    assert look(image) == Findings(good=[f"image {image}"])
    ((method, asked, headers),) = server.asked
    assert (method, asked) == ("HEAD", path)
    kind, _, login = headers["Authorization"].partition(" ")
    assert (kind, base64.b64decode(login)) == ("Basic", f"oauth2accesstoken:{TOKEN}".encode())
    assert "application/vnd.oci.image.index.v1+json" in headers["Accept"].split(", ")


def test_an_image_that_is_not_there_says_how_to_make_it(server, look):
    image = f"{server.host}/p/r/steps:2"
    (told,) = look(image).wrong
    assert told.startswith(f"image: {image} is not in the registry; `gcloud builds submit")


@pytest.mark.parametrize("status", [401, 403])
def test_an_image_that_may_not_be_read(server, look, status):
    server.answers["/v2/p/r/steps/manifests/2"] = status
    image = f"{server.host}/p/r/steps:2"
    (told,) = look(image).wrong
    assert told == (
        f"image: {image} may not be read; grant roles/artifactregistry.reader on the registry"
    )


def test_a_registry_that_is_ill_is_told_in_one_line(server, look):
    server.answers["/v2/p/r/steps/manifests/2"] = 500
    found = look(f"{server.host}/p/r/steps:2")
    (told,) = found.wrong
    assert not found.good and "500" in told and "\n" not in told
    assert told.startswith(f"image {server.host}/p/r/steps:2: HTTPError: ")


@pytest.mark.parametrize("status", [302, 307])
def test_a_host_that_sends_elsewhere_is_no_registry(server, look, status):
    server.answers["/v2/p/r/steps/manifests/2"] = status
    found = look(f"{server.host}/p/r/steps:2")
    (told,) = found.wrong
    assert not found.good and str(status) in told and "\n" not in told


def test_a_registry_that_is_not_there_or_says_nothing(server, closed, look, monkeypatch):
    (told,) = look(f"{closed}/p/r/steps:2").wrong
    assert told.startswith(f"image {closed}/p/r/steps:2: ConnectionError: ") and len(told) < 400
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    server.answers["/v2/p/r/steps/manifests/2"] = None
    (told,) = look(f"{server.host}/p/r/steps:2").wrong
    assert "Timeout" in told and "\n" not in told


def test_no_token_is_sent_in_the_clear_to_another_machine(look, monkeypatch):
    asked = []

    def head(url, **more):
        asked.append(url)
        return SimpleNamespace(status_code=200, raise_for_status=lambda: None)

    monkeypatch.setattr(requests, "head", head)
    look("us-docker.pkg.dev/p/r/steps:1")
    look("localhost.example.org/p/r/steps:1")
    look("localhost:5000/p/r/steps:1")
    assert asked == [
        "https://us-docker.pkg.dev/v2/p/r/steps/manifests/1",
        "https://localhost.example.org/v2/p/r/steps/manifests/1",
        "http://localhost:5000/v2/p/r/steps/manifests/1",
    ]


@pytest.mark.parametrize("status", [200, 204, 302, 401, 404])
def test_a_server_that_answers_is_there(server, status):
    server.answers["/health"] = status
    remote.require_answer("zenml_server", f"http://{server.host}/health")
    assert [path for _, path, _ in server.asked] == ["/health"]


def test_a_server_that_does_not_answer_or_is_ill(server, closed, monkeypatch):
    server.answers |= {"/health": 503, "/slow": None}
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    for url, told in (
        (f"http://{closed}/health", "does not answer (ConnectionError)"),
        (f"http://{server.host}/health", "answers 503 Service Unavailable"),
        (f"http://{server.host}/slow", "does not answer (ReadTimeout)"),
    ):
        with pytest.raises(StackError) as caught:
            remote.require_answer("zenml_server", url)
        assert str(caught.value) == f"zenml_server: {url} {told}"


def raiser(error):
    def check():
        raise error

    return check


def test_a_finding_is_one_line_and_the_next_is_looked_at_all_the_same():
    found = Findings(wrong=["before"])
    assert found.look("the file", lambda: None)
    assert not found.look("the bucket", raiser(StackError("bucket: not there; make it")))
    assert not found.look("the job", raiser(ValueError("  first\nsecond")))
    assert not found.look("the job", raiser(RuntimeError()))
    assert not found.look("the job", raiser(OSError("e" * 9_000)))
    assert found.look("the image", lambda: False)
    assert found.good == ["the file", "the image"]
    assert found.wrong[:4] == [
        "before",
        "bucket: not there; make it",
        "the job: ValueError: first",
        "the job: RuntimeError: ",
    ]
    assert found.wrong[4].startswith("the job: OSError: eee") and len(found.wrong[4]) < 400
    with pytest.raises(KeyboardInterrupt):
        found.look("the job", raiser(KeyboardInterrupt()))


STACK = validate(VertexStack, GOOD, "mine.yaml")
ALL = [
    "Google Cloud credentials",
    "ZenML server https://zenml.example.org",
    "MLflow server https://mlflow.example.org",
    "ZenML secret tamis_mlflow",
    "stack mine in ZenML",
    "MLflow accepts the secret",
    "bucket gs://my-tamis",
    "Vertex AI in my-project-1, us-central1",
    f"image {GOOD['image']}",
    f"image {GOOD['gpu_image']}",
]
PARTS = {
    "login": (google, "credentials"),
    "zenml": (remote, "connect"),
    "mlflow": (remote, "require_answer"),
    "secret": (remote, "require_secret"),
    "registered": (checks, "_registered"),
    "tracking": (checks, "_mlflow"),
    "bucket": (checks, "_bucket"),
    "vertex": (checks, "_vertex"),
    "image": (checks, "_image"),
}


@pytest.fixture
def checked(monkeypatch):
    """Check a stack of which some parts are wrong."""

    def done(*wrong, stack=STACK):
        for part, (module, name) in PARTS.items():
            answer = raiser(StackError(f"{part} is wrong")) if part in wrong else lambda: None
            monkeypatch.setattr(module, name, lambda *given, answer=answer: answer())
        found = Findings()
        check("mine", stack, found)
        return found

    return done


def test_everything_that_a_run_needs_is_looked_at(checked):
    assert checked() == Findings(good=ALL)


@pytest.mark.parametrize(
    ("wrong", "left"),
    [
        ("login", ALL[1:6]),
        ("zenml", [ALL[0], ALL[2], *ALL[6:]]),
        ("mlflow", [*ALL[:2], *ALL[3:5], *ALL[6:]]),
        ("secret", [*ALL[:3], *ALL[6:]]),
        ("registered", [*ALL[:4], *ALL[6:]]),
        ("bucket", [*ALL[:6], *ALL[7:]]),
        ("image", ALL[:8]),
    ],
)
def test_after_a_problem_the_rest_is_looked_at_that_does_not_hang_on_it(checked, wrong, left):
    found = checked(wrong)
    assert found.good == left
    assert set(found.wrong) == {f"{wrong} is wrong"}


def test_the_image_that_serves_is_looked_up_too(checked):
    served = GOOD | {"serving": {"image": "us-docker.pkg.dev/p/r/serving:1"}}
    found = checked(stack=validate(VertexStack, served, "mine.yaml"))
    assert set(found.good) == {*ALL, "image us-docker.pkg.dev/p/r/serving:1"}


def test_one_image_for_all_is_looked_up_once(checked):
    one = STACK.model_copy(update={"gpu_image": None})
    assert checked(stack=one).good == ALL[:9]


class Bucket:
    """A bucket that may be missing, or closed."""

    def __init__(self, there=True, refusal=None):
        self.there, self.refusal, self.left, self.written = there, refusal, set(), []

    def exists(self, path):
        return self.there

    def pipe_file(self, path, data):
        if self.refusal:
            self.refusal()
        self.left.add(path)
        self.written.append(path)

    def rm_file(self, path):
        self.left.remove(path)


@pytest.fixture
def bucket_problem(monkeypatch):
    """What is wrong with a bucket."""

    def told(bucket):
        monkeypatch.setattr("fsspec.filesystem", lambda protocol: bucket)
        found = Findings()
        found.look("the bucket", lambda: checks._bucket(STACK))
        return found.wrong

    return told


def test_a_bucket_is_written_to_and_nothing_is_left(bucket_problem):
    bucket = Bucket()
    assert bucket_problem(bucket) == []
    (probe,) = bucket.written
    assert probe.startswith("gs://my-tamis/tamis-check-") and not bucket.left


def test_a_bucket_that_is_not_there_says_how_to_make_it(bucket_problem):
    (told,) = bucket_problem(Bucket(there=False))
    assert told.startswith("bucket: gs://my-tamis does not exist or may not be seen; ")
    assert "`gcloud storage buckets create gs://my-tamis --location=us-central1`" in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Forbidden", "(403 no access); enable the API, and grant roles/storage.objectAdmin"),
        ("Unauthorized", "the credentials are refused; `gcloud auth application-default"),
        ("Unauthenticated", "the credentials are refused; `gcloud auth application-default"),
        ("RefreshError", "the credentials are refused; `gcloud auth application-default"),
        ("ServiceUnavailable", "my-project-1: 503 no access"),
    ],
)
def test_what_google_refuses_says_what_to_do(bucket_problem, name, told):
    from google.api_core import exceptions
    from google.auth.exceptions import RefreshError

    error = getattr(exceptions, name, RefreshError)("no access\nand more")
    (line,) = bucket_problem(Bucket(refusal=raiser(error)))
    assert line.startswith("bucket: ") and told in line and "and more" not in line


def test_a_network_that_fails_is_told_in_one_line(bucket_problem):
    (line,) = bucket_problem(Bucket(refusal=raiser(OSError("no route to host\nerrno 113"))))
    assert line == "bucket: my-project-1: no route to host"


def test_a_closed_bucket_says_which_role_opens_it(bucket_problem):
    from gcsfs.retry import validate_response

    body = b'{"error": {"message": "me@x does not have storage.objects.create access"}}'
    refusal = Bucket(refusal=lambda: validate_response(403, body, "https://storage/b"))
    (line,) = bucket_problem(refusal)
    assert "grant roles/storage.objectAdmin on the bucket" in line


@pytest.mark.parametrize(
    ("auth", "values", "told"),
    [
        ("basic", {"username": "me", "password": "x"}, None),
        ("token", {"token": "x"}, None),
        ("basic", {"username": "me"}, "mlflow has no password; `zenml secret create mlflow "
                                      "--username=... --password=...`"),
        ("token", {"username": "me"}, "mlflow has no token; `zenml secret create mlflow "
                                      "--token=...`"),
        ("basic", None, "ZenML has no 'mlflow'; `zenml secret create mlflow"),
    ],
)  # fmt: skip
def test_the_secret_of_the_mlflow_server(monkeypatch, auth, values, told):
    secrets = {} if values is None else {"mlflow": SimpleNamespace(values=values)}
    client = SimpleNamespace(get_secret=secrets.__getitem__)
    monkeypatch.setitem(sys.modules, "zenml", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "zenml.client", SimpleNamespace(Client=lambda: client))
    stack = SimpleNamespace(mlflow=SimpleNamespace(secret="mlflow", auth=auth))
    if told is None:
        remote.require_secret(stack)
        return
    with pytest.raises(StackError) as caught:
        remote.require_secret(stack)
    assert str(caught.value).startswith("mlflow.secret: ") and told in str(caught.value)
    assert " me" not in str(caught.value)


def test_no_credentials_on_this_machine(monkeypatch, tmp_path):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(StackError) as caught:
        google.credentials()
    assert str(caught.value).startswith("Google Cloud: no credentials on this machine; `gcloud")
