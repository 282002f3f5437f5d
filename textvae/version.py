"""The version of the installed package, kept apart because asking for it takes 20 ms."""

from importlib import metadata


def installed_version() -> str:
    """Such as "0.1.0"; "0+unknown" for a checkout that is not installed."""
    try:
        return metadata.version("textvae")
    except metadata.PackageNotFoundError:
        return "0+unknown"
