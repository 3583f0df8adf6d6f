"""Every error that Tamis raises on purpose, and the exit code it ends with.

TamisError                    1  something failed
├── DataError                 1  the documents cannot be used as they are
├── ModelError                1  a model directory is damaged or not ours
├── EngineError               1  a worker or a shard failed for good
└── UsageError                2  the user asked for what cannot be
    ├── ConfigError           2  a task or stack file is wrong
    ├── ResumeRefused         2  an output was begun under another configuration
    ├── OutputBusy            2  another run is writing to an output
    └── StackError            2  a stack is unknown or not configured
"""


class TamisError(Exception):
    """Base of all errors raised on purpose; its text is one sentence for the user."""

    exit_code = 1


class DataError(TamisError):
    """The documents cannot be used as they are."""


class ModelError(TamisError):
    """A model directory is damaged, incomplete or of another format."""


class EngineError(TamisError):
    """A worker or a shard failed for good."""


class UsageError(TamisError):
    """The user asked for something that cannot be done as asked."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file is wrong.

    Args:
        file: The file, as the user named it.
        key: Dotted path of the key, or an empty string for the whole file.
        given: What was found there.
        allowed: What would have been accepted.
    """

    def __init__(self, file: str, key: str, given: object, allowed: str) -> None:
        self.file, self.key, self.given, self.allowed = file, key, given, allowed
        where = f"{file}: {key}" if key else file
        super().__init__(f"{where}: given {given!r}; allowed: {allowed}")


class ResumeRefused(UsageError):
    """The output was begun under another configuration, model or input."""


class OutputBusy(UsageError):
    """Another run is writing to the output."""


class StackError(UsageError):
    """The stack is unknown, incomplete or not configured."""
