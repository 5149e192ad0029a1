"""The exceptions that reach a user, each with one clear sentence.

Every message names the file, clip or parameter, what was expected and what to do. The command line and the
stages print only the message and exit with `ErvError.exit_code`; a traceback means a bug in `erv`.
"""


class ErvError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = 1


class SettingsError(ErvError):
    """`params.yaml` or the environment is wrong; the message lists every fault found."""

    exit_code = 2


class DataError(ErvError):
    """A source, manifest, clip or shard violates its contract."""


class StorageError(ErvError):
    """An object store can't be reached, refuses the key or lacks an object."""


class StackError(ErvError):
    """The local stack, or a server that stands in for it, is not usable."""


class TrainingError(ErvError):
    """Training can't continue: a non-finite loss, an unusable checkpoint, no trainable clip."""


class EvaluationError(ErvError):
    """Predictions or judgements are missing or don't belong together."""


class RegistryError(ErvError):
    """A bundle, model version or alias is missing or inconsistent."""
