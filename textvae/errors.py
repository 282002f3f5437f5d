"""The errors a caller can expect: one sentence each, saying where, what was found, and what to do.

Each class also derives from the builtin that people would catch without knowing this package.
The command line prints them as one line and leaves with their exit code; anything else is a bug in
textvae.
"""

from typing import ClassVar


class TextVAEError(Exception):
    """What a user, not the program, has to put right."""

    exit_code: ClassVar[int] = 2
    """Of the command line; the codes do not change (docs/develop/reliability.md)."""


class ConfigError(TextVAEError, ValueError):
    """A configuration file, an override or an option that cannot be used as it is."""


class DataError(TextVAEError, ValueError):
    """A corpus, a sentence or a label that cannot be read or used."""


class CheckpointError(TextVAEError, RuntimeError):
    """A run or model directory that is missing, damaged, of another kind or already in use."""


class StorageError(CheckpointError):
    """The disk is full, read-only or gone, and a result could not be written; the last is kept."""

    exit_code = 74


class TrainingError(TextVAEError, RuntimeError):
    """A training run that cannot go on, such as one whose loss is no longer finite."""

    exit_code = 4


class RankError(TextVAEError, RuntimeError):
    """Another process of the same run has ended, and this one cannot go on without it."""

    exit_code = 75
