"""The same as `textvae sample`."""

from textvae.cli.main import main

main("sample")
