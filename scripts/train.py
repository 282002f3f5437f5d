"""The same as `textvae train`."""

from textvae.cli.main import main

main("train")
