"""The errors a caller can expect: one sentence each, saying where, what was found, and what to do.

Each class also derives from the builtin that people would catch without knowing this package.
The command line prints them as one line and exits with code 2; anything else is a bug in textvae.
"""


class TextVAEError(Exception):
    """What a user, not the program, has to put right."""


class ConfigError(TextVAEError, ValueError):
    """A configuration file, an override or an option that cannot be used as it is."""


class DataError(TextVAEError, ValueError):
    """A corpus, a sentence or a label that cannot be read or used."""


class CheckpointError(TextVAEError, RuntimeError):
    """A run or model directory that is missing, damaged, of another kind or already in use."""


class TrainingError(TextVAEError, RuntimeError):
    """A training run that cannot go on, such as one whose loss is no longer finite."""
