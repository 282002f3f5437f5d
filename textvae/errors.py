"""The errors of the package: one sentence each, with where, what was found, and what to do.

Each class also derives from the builtin that people would catch without knowing this package.
The command line prints them as one line and leaves with their exit code; anything else is a bug in
textvae.
"""

from typing import ClassVar


class TextVAEError(Exception):
    """An error that the user can correct, not a bug."""

    exit_code: ClassVar[int] = 2
    """The exit code of the command line; the codes do not change (docs/develop/reliability.md)."""


class ConfigError(TextVAEError, ValueError):
    """A configuration file, an override or an option that cannot be used as it is."""


class DataError(TextVAEError, ValueError):
    """A corpus, a sentence or a label that cannot be read or used."""


class CheckpointError(TextVAEError, RuntimeError):
    """A run or model directory that is missing, damaged, of another kind or already in use."""


class StorageError(CheckpointError):
    """A result could not be written: the disk is full, read-only or gone; an old file stays."""

    exit_code = 74


class TrainingError(TextVAEError, RuntimeError):
    """A training run that cannot continue, such as one whose loss is no longer finite."""

    exit_code = 4


class MemoryLimitError(TextVAEError, MemoryError):
    """Work that needs more memory than there is, found before it began or when memory ran out."""

    exit_code = 71


class RankError(TextVAEError, RuntimeError):
    """Another process of the same run has ended, and this one cannot continue without it."""

    exit_code = 75


_MEMORY_MESSAGES = ("not enough memory", "can't allocate memory", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell lack of memory from other errors: torch has a type for CUDA, only messages for a CPU."""
    # By its name: torch is not imported to find out.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_MESSAGES)
