"""The same as `textvae evaluate`."""

from textvae.cli.main import main

main("evaluate")
