"""A dry run: a few timed steps of a plan, and an estimate of its memory and time."""

import time

import msgspec
from msgspec import structs

from textvae.evaluate.subject import count_unknown
from textvae.model.prior_gaussian import GaussianPriorConfig
from textvae.run.data import describe
from textvae.run.experiment import choose_training, read_experiment
from textvae.run.plan import Plan, no_report
from textvae.storage.checkpoint import EXPERIMENT
from textvae.train.loop import train

TIMED_STEPS = 5
TIMING = 0.02
"""The fraction of a given time that is spent on timing steps, twice."""


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of `train --dry-run`: the size of the data and the model, memory and time."""

    read: list[str] = []
    """The rows that were read, before they were tokenized."""
    source: str
    rows: list[str]
    """Rows kept and dropped, and why, a line per split."""
    vocabulary_size: int
    num_parameters: int
    memory_bytes: int
    """Weights, gradients, optimizer moments and the largest activations, estimated."""
    max_steps: int
    seconds_per_step: float
    seconds: float
    """Steps times seconds per step, validations included."""
    choices: list[str]
    unknown: dict[str, float] = {}
    """The fraction of unknown tokens of each split."""

    def lines(self) -> list[str]:
        """The figures as lines to print."""
        return [
            f"data: {self.source}",
            *(f"  {row}" for row in self.rows),
            f"vocabulary: {self.vocabulary_size:,}; unknown: "
            + ", ".join(f"{100 * part:.1f} % of {name}" for name, part in self.unknown.items()),
            f"parameters: {self.num_parameters:,}",
            f"memory: about {self.memory_bytes / 2**20:,.0f} MiB",
            f"steps: {self.max_steps:,} at {1000 * self.seconds_per_step:,.0f} ms: "
            f"about {self.seconds / 60:,.1f} minutes",
        ]


def dry_run(plan: Plan, timed_steps: int = TIMED_STEPS) -> DryRun:
    """Time a few steps of the plan on its device; writes nothing."""
    config, facts = plan.config, plan.data.facts
    model = plan.build_model()
    if model.prior.fit_sentences:  # a density is fitted once, at the end
        model.prior = GaussianPriorConfig().build(config.model.latent_dim)
        model.to(model.device)
    steps = config.train.max_steps or 1
    short = structs.replace(
        config.train,
        max_steps=timed_steps,
        validate_every=timed_steps,
        save_every=None,
        log_every=timed_steps,
        calibrate=False,
    )
    few = plan.data.arrays["valid"].head(1)
    train(
        model, plan.data.arrays["train"], few, short, seed=config.seed, run=None, report=no_report
    )
    start = time.perf_counter()
    train(
        model, plan.data.arrays["train"], few, short, seed=config.seed, run=None, report=no_report
    )
    seconds = (time.perf_counter() - start) / timed_steps
    parameters = sum(p.numel() for p in model.parameters())
    longest = int(plan.data.arrays["train"].lengths.max())
    per_validation = facts.valid.num_targets / max(1, facts.train.num_targets)
    epochs = config.train.batch_size * steps / facts.train.num_sentences
    validations = steps / (config.train.validate_every or steps)
    return DryRun(
        source=facts.source,
        rows=describe(facts),
        vocabulary_size=facts.vocabulary_size,
        num_parameters=parameters,
        memory_bytes=4 * 4 * parameters + model.activation_bytes(config.train.batch_size, longest),
        max_steps=steps,
        seconds_per_step=seconds,
        # a validation is a forward pass, about a third of a step over the same tokens
        seconds=seconds * steps * (1 + validations * per_validation / max(epochs, 1e-9) / 3),
        choices=plan.choices,
        unknown={
            name: count_unknown(array) / array.num_targets
            for name, array in plan.data.arrays.items()
        },
    )


def fit_minutes(plan: Plan, minutes: float) -> Plan:
    """The plan with as many steps as fit the time on this machine, validations included.

    A run that has begun keeps its number of steps.

    Raises:
        ConfigError: the experiment.json of the run cannot be read.
    """
    begun = plan.run / EXPERIMENT
    if begun.is_file():
        steps = read_experiment(begun).train.max_steps or 1
    else:
        first = dry_run(plan).seconds_per_step
        timed = dry_run(plan, min(max(TIMED_STEPS, int(TIMING * 60.0 * minutes / first)), 500))
        steps = max(1, int(60.0 * minutes * timed.max_steps / max(timed.seconds, 1e-9)))
    open_again = {choice.partition("=")[0].removeprefix("train.") for choice in plan.choices}
    fields = dict.fromkeys(open_again & set(plan.config.train.__struct_fields__))
    train_config = structs.replace(plan.config.train, **fields | {"max_steps": steps})
    config, choices = choose_training(
        structs.replace(plan.config, train=train_config),
        lengths=plan.data.arrays["train"].lookup(),
        begun=begun,
    )
    others = [choice for choice in plan.choices if not choice.startswith("train.")]
    choices = [*others, f"train.max_steps={steps}", *choices]
    return plan._replace(config=config, choices=choices)
