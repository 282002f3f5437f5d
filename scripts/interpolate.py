"""The same as `textvae interpolate`."""

from textvae.cli.main import main

main("interpolate")
