"""`python -m textvae` is `textvae`, so that `torchrun -m textvae train` works too."""

from textvae.cli.main import main

main()
