"""Training from data to a model directory, in one process or in all that `torchrun` started."""

from collections.abc import Callable

from textvae import distributed
from textvae.run.data import Report
from textvae.run.plan import Plan
from textvae.run.training import RunOutcome, execute, follow


def train_run(make_plan: Callable[[], Plan], *, report: Report) -> RunOutcome:
    """Train a run, or continue it. `TextVAE.train` and `textvae train` both call this.

    Args:
        make_plan: reads the data and settles the settings; called by the first process alone.
        report: takes lines of progress, in the first process.

    Raises:
        TextVAEError: data, config or directory that cannot be used; a diverged run.
    """
    with distributed.joined():
        return execute(make_plan(), report=report) if distributed.is_first() else follow()
