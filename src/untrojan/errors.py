"""The one family of exceptions that this package raises on purpose.

Each carries the exit code that the command line ends with; a message is one line that says what was expected, what
came and what to do.
"""


class UntrojanError(Exception):
    """Something went wrong that the user can act on. Exit code 2."""

    exit_code = 2


class CheckpointError(UntrojanError):
    """A weights, trigger or guard file is missing, malformed, truncated or would need code to be executed."""


class DataError(UntrojanError):
    """Images or labels cannot be read, or do not suit the task."""


class OutputError(UntrojanError):
    """A result could not be written (no permission, disk full)."""


class InconclusiveError(UntrojanError):
    """The input allows no answer, so none is given."""


class GuardMismatchError(UntrojanError):
    """A guard was given another victim than the one it was made for."""


class MissingExtraError(UntrojanError):
    """An optional dependency is needed and absent."""


class UnsupportedError(UntrojanError):
    """A model or data of a kind that this version does not handle. Exit code 3."""

    exit_code = 3


class ShapeError(UnsupportedError):
    """An image tensor has another shape, dtype or range than the classifier takes."""


class UsageError(UntrojanError):
    """An option or argument makes no sense. Exit code 4."""

    exit_code = 4
