"""Active in every process whose PYTHONPATH holds this folder: nothing leaves the machine.

1. A name look-up or a connection that is not loopback fails at once and is appended as one line,
   ``host<TAB>program``, to the file of ``TAMIS_GUARD_LOG``. So does a call over gRPC, which
   resolves names in C, where no hook of Python sees it.
2. ``get_project_number`` of google-cloud-aiplatform answers a fixed number.
3. Where ``STANDIN_WORKDIR`` is set, ``/app`` of ZenML's entrypoint is that folder.
4. Another ``sitecustomize`` further on ``sys.path`` still runs.

It imports nothing heavy: modules are changed when a program imports them.
"""

import importlib.machinery
import os
import sys

PROJECT_NUMBER = "123456789012"
LOCAL = frozenset({"", "localhost", "0.0.0.0", "::", "::1"})
LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
CALLS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


def local(host):
    """Whether ``host``, as sockets take it, needs no network."""
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str):
        return True
    host = host.partition("%")[0].lower().removeprefix("::ffff:")
    return host in LOCAL or (host.startswith("127.") and host.replace(".", "").isdigit())


def refuse(host, failure):
    """Append one line to the log and raise ``failure``."""
    if path := os.environ.get("TAMIS_GUARD_LOG"):
        parts = (host, " ".join(sys.orig_argv[1:4]))
        line = "\t".join(" ".join(str(part)[:300].split()) for part in parts) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
    raise failure


def check_address(address):
    """Refuse an address of a socket whose host is not loopback; paths and netlink pass."""
    if isinstance(address, tuple) and address and not local(address[0]):
        refuse(address[0], OSError(101, f"the test guard refuses a connection to {address[0]!r}"))


def hook(event, arguments):
    """Audit hook: it also sees what calls the C module of sockets by itself."""
    if event in LOOKUPS:
        if not local(arguments[0]):
            failure = sys.modules["_socket"].gaierror
            refuse(arguments[0], failure(-2, f"the test guard refuses to look up {arguments[0]!r}"))
    elif event in CALLS:
        check_address(arguments[1])
    elif event == "socket.getnameinfo":
        check_address(arguments[0])


def guard_sockets(module):
    """Check before C does: a connect to a name looks it up before the audit event."""
    for name in ("connect", "connect_ex", "sendto"):

        def guarded(self, *arguments, original=getattr(module.socket, name)):
            check_address(arguments[-1] if arguments else None)
            return original(self, *arguments)

        setattr(module.socket, name, guarded)


def guard_grpc(module):
    """Let channels be made, as they are at import and never used, and refuse their calls."""

    def host(target):
        rest = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition("/")[2]
        name = rest.rpartition(":")[0] or rest
        return None if target.startswith("unix") else name.strip("[]")

    class Refused(
        module.UnaryUnaryClientInterceptor,
        module.UnaryStreamClientInterceptor,
        module.StreamUnaryClientInterceptor,
        module.StreamStreamClientInterceptor,
    ):
        def __init__(self, name):
            self._name = name

        def _refuse(self, *arguments):
            refuse(self._name, OSError(101, f"the test guard refuses a call to {self._name!r}"))

        intercept_unary_unary = intercept_unary_stream = _refuse
        intercept_stream_unary = intercept_stream_stream = _refuse

    for name in ("secure_channel", "insecure_channel"):

        def channel(target, *arguments, original=getattr(module, name), **options):
            made = original(target, *arguments, **options)
            name = host(target)
            return made if local(name) else module.intercept_channel(made, Refused(name))

        setattr(module, name, channel)


def answer_project_number(module):
    """Spare a wait of 40 seconds for a gRPC call that cannot succeed."""
    module.get_project_number = lambda project_id, credentials=None: PROJECT_NUMBER


def ask_no_boundary(module):
    """Ask no server of Google's where credentials may be used, as a thread does otherwise."""
    known = getattr(module, "CredentialsWithRegionalAccessBoundary", None)
    if known is not None:
        known._is_regional_access_boundary_lookup_required = lambda self: False


CHANGES = {
    "google.auth.credentials": ask_no_boundary,
    "socket": guard_sockets,
    "grpc": guard_grpc,
    "google.cloud.aiplatform.utils.resource_manager_utils": answer_project_number,
}


class Changing:
    """Finder that calls a function on some modules as soon as they have run."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """The usual spec, with the change after the module's own code."""
        change = CHANGES.get(name)
        if change is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                change(module)

            spec.loader.exec_module = exec_module
        return spec


def move_app(folder):
    """Make ``/app``, and nothing below it, mean ``folder``."""
    makedirs, chdir = os.makedirs, os.chdir
    os.makedirs = lambda name, *args, **kw: makedirs(
        folder if name == "/app" else name, *args, **kw
    )
    os.chdir = lambda path: chdir(folder if path == "/app" else path)


def run_next():
    """Run the ``sitecustomize`` that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    path = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec

        spec.loader.exec_module(module_from_spec(spec))


sys.addaudithook(hook)
sys.meta_path.insert(0, Changing)
for loaded in CHANGES.keys() & sys.modules.keys():
    CHANGES[loaded](sys.modules[loaded])
if os.environ.get("STANDIN_WORKDIR"):
    move_app(os.environ["STANDIN_WORKDIR"])
run_next()
