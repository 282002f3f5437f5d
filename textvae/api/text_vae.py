"""TextVAE: text in, text out. What users of the package call."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from textvae import distributed
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, ConfigError, TrainingError
from textvae.evaluate.summary import Evaluation
from textvae.generate.interpolation import PathKind, interpolation
from textvae.generate.latents import sample_latents
from textvae.generate.options import AnyStrategy, check_strategy
from textvae.generate.strategies import Greedy, Temperature
from textvae.generate.writing import write
from textvae.metrics.likelihood import ROWS, encode_corpus
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE, ModelConfig
from textvae.run.conditions import (
    check_max_length,
    decoder_conditions,
    held_label,
    own_labels,
    sample_conditions,
)
from textvae.run.data import DataOptions
from textvae.run.experiment import ExperimentConfig, check_device
from textvae.run.held_out import Origin, given, held_out, tokenize_given
from textvae.run.measure import measure
from textvae.run.model_directory import Results, load_model, publish, require_latent
from textvae.run.training import execute, follow, plan_run


class TextVAE:
    """A trained sentence VAE: a model, its tokenizer, and the verbs of everyday use.

    Sentences are plain strings. Results depend on the seed and on a sentence's place among its
    like, never on how many are handled at once.
    """

    def __init__(
        self,
        model: VAE,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        results: Results | None = None,
        path: Path | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        self.model, self.tokenizer, self.config = model.eval(), tokenizer, config
        self.results, self.path = results, path
        self.labels = tuple(labels)

    @classmethod
    def train(
        cls,
        data: str | Path | None = None,
        *,
        config: ExperimentConfig | None = None,
        output: str | Path | None = None,
        valid: str | Path | None = None,
        test: str | Path | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        labels: str | Path | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> "TextVAE":
        """Train on a corpus, or go on with a run that stopped.

        Args:
            data: a file, a directory of splits or `hf:name`; None is the embedded corpus.
            config: what to train; None is the defaults (for the embedded corpus, its recipe is
                `load_config(recipe="embedded")`).
            output: the run directory; None is `runs/` and the name of the data.
            valid: sentences that select the parameters; carved out of `data` if it has none.
            test: sentences for the report; likewise.
            text_column: of a table.
            label_column: of a table.
            labels: a file of labels in step with `data`.
            report: takes lines of progress.

        Raises:
            TextVAEError: data, config or directory that cannot be used; a diverged run.
        """
        options = DataOptions(
            None if data is None else str(data),
            valid=None if valid is None else str(valid),
            test=None if test is None else str(test),
            text_column=text_column,
            label_column=label_column,
            labels=None if labels is None else str(labels),
        )
        with distributed.joined():
            if distributed.is_first():
                where = None if output is None else Path(output)
                outcome = execute(
                    plan_run(options, config or ExperimentConfig(), where), report=report
                )
            else:
                outcome = follow()
        if outcome.result is not None and outcome.result.signal is not None:
            raise TrainingError(
                f"{outcome.path}: stopped by signal {outcome.result.signal} at step "
                f"{outcome.result.steps}; the same call goes on from there"
            )
        return cls.from_pretrained(outcome.path)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str = "auto", verify: bool = True
    ) -> "TextVAE":
        """Load a model directory, or the model of a run.

        Args:
            path: the directory.
            device: `auto` is CUDA where there is one.
            verify: compare every file with its checksum first.

        Raises:
            CheckpointError: no model there, or a damaged one.
            ConfigError: no such device.
        """
        where, found = check_device(device), load_model(Path(path), verify=verify)
        return cls(
            found.model.to(where),
            found.tokenizer,
            found.config,
            results=found.results,
            path=Path(path),
            labels=found.labels,
        )

    def save_pretrained(self, path: str | Path) -> None:
        """Write a model directory that `from_pretrained` reads.

        Raises:
            CheckpointError: the directory is in use, or cannot be written.
        """
        where = Path(path)
        if where.exists() and (not where.is_dir() or any(where.iterdir())):
            raise CheckpointError(f"{where}: is in use; save to a directory that is new or empty")
        publish(where, self.model, self.config, self.tokenizer, self.results, self.labels)

    def sample(
        self,
        num_samples: int = 1,
        *,
        seed: int = 0,
        strategy: AnyStrategy = Temperature(),  # noqa: B008 -- a frozen struct
        max_length: int | None = None,
        near: str | None = None,
        scale: float | None = None,
        label: str | None = None,
    ) -> list[str]:
        """Sentences from the prior, or near one; sentence i is a function of (seed, i).

        Args:
            num_samples: how many.
            seed: of the latents and of the words.
            strategy: how words are chosen.
            max_length: the most tokens; None is the model's limit.
            near: a sentence: latents are the mean of its posterior plus noise.
            scale: of the noise, in standard deviations of that posterior, 0 to 1000; None is 1.
            label: of all of them; None draws it from p(y), or is that of the sentence `near`,
                where the model has labels.

        Raises:
            ConfigError: a number out of bounds, a scale without a sentence.
            DataError: a sentence that `encode` refuses, or an unknown label.
            CheckpointError: a label for a model without labels.
        """
        _at_least(0, num_samples=num_samples)
        posterior = None if near is None else self.encode([near])
        latents = sample_latents(
            self.model.prior,
            num_samples,
            seed=seed,
            posterior=posterior,
            scale=scale,
        )
        drawn = sample_conditions(self, latents, seed=seed, near=near, label=label)
        return self._write(drawn.conditions, strategy, seed, max_length)

    def encode(self, sentences: Sequence[str]) -> DiagonalGaussian:
        """The posteriors of sentences, mean and log-variance `[N, Z]`.

        Raises:
            DataError: no sentence, a blank one, or one longer than the model's limit.
            CheckpointError: the model is a language model, which has no posterior.
        """
        require_latent(self.model, self.path)
        array, _ = tokenize_given(self.origin, given(sentences), sentences)
        return encode_corpus(self.model, array.to(self.model.device))

    def decode(
        self,
        latents: Tensor,
        *,
        strategy: AnyStrategy = Greedy(),  # noqa: B008 -- a frozen struct
        seed: int = 0,
        max_length: int | None = None,
        label: str | Sequence[str] | None = None,
    ) -> list[str]:
        """A sentence for each latent `[N, Z]`.

        Args:
            latents: float32.
            strategy: how words are chosen.
            seed: of the words, where the strategy draws.
            max_length: the most tokens; None is the model's limit.
            label: one for all or one for each, which M2 needs.

        Raises:
            DataError: latents of another dimension, an unknown label, or none for M2.
            ConfigError: a number out of bounds.
            CheckpointError: a label for a model without labels.
        """
        found = decoder_conditions(self, latents, label)
        return self._write(found, strategy, seed, max_length)

    def _write(
        self, found: Tensor, strategy: AnyStrategy, seed: int, max_length: int | None
    ) -> list[str]:
        longest = check_max_length(self, max_length)
        checked = check_strategy(strategy)
        written = write(self.model, found, checked, seed=seed, max_length=longest)
        return [self.tokenizer.decode(ids) for ids in written]

    def reconstruct(
        self,
        sentences: Sequence[str],
        *,
        strategy: AnyStrategy = Greedy(),  # noqa: B008 -- a frozen struct
        seed: int = 0,
        max_length: int | None = None,
        label: str | None = None,
    ) -> list[str]:
        """What the decoder writes at the posterior mean of each sentence.

        With `label` it is written under that label; else, where the model has labels, its own.

        Raises:
            DataError, CheckpointError: as `encode` and `decode`.
        """
        mean = self.encode(sentences).mean
        found = label or own_labels(self, sentences)
        return self.decode(mean, strategy=strategy, seed=seed, max_length=max_length, label=found)

    def interpolate(
        self,
        first: str,
        second: str,
        *,
        steps: int = 7,
        path: PathKind = "straight",
        strategy: AnyStrategy = Greedy(),  # noqa: B008 -- a frozen struct
        seed: int = 0,
        max_length: int | None = None,
        label: str | None = None,
    ) -> list[str]:
        """Sentences along the path between the posterior means of two sentences.

        Args:
            first: where the path begins; the first result is its reconstruction.
            second: where it ends.
            steps: how many sentences, both ends included.
            path: `straight`, `spherical`, or `data`: where the density of a prior that is a
                mixture is high.
            strategy: how words are chosen.
            seed: of the words, where the strategy draws.
            max_length: the most tokens; None is the model's limit.
            label: held along the path; None is that of `first`, where the decoder needs one.

        Raises:
            DataError, CheckpointError: as `encode` and `decode`.
            ConfigError: fewer than two steps, or a prior that is no mixture for `data`.
        """
        mean = self.encode([first, second]).mean
        prior = self.model.prior
        points = interpolation(mean[0], mean[1], steps=steps, path=path, prior=prior)
        held = label or held_label(self, first)
        return self.decode(points, strategy=strategy, seed=seed, max_length=max_length, label=held)

    def evaluate(
        self,
        data: str | Path | Sequence[str] | None = None,
        *,
        num_samples: int = 500,
        seed: int = 0,
        rows: int = ROWS,
        dtype: torch.dtype = torch.float32,
        text_column: str | None = None,
    ) -> Evaluation:
        """The likelihood of sentences and how the latent is used, every figure with its settings.

        Args:
            data: a file, a directory (its test split), `hf:name`, or a list of sentences; None is
                the test split that the run was made with.
            num_samples: K of the importance-weighted bound; a language model needs but one.
            seed: of the samples.
            rows: latents decoded at once, which bounds the memory; no effect on the result.
            dtype: of the matrix products.
            text_column: of a table.

        Raises:
            DataError: sentences that cannot be read, or one longer than the model's limit.
            ConfigError: no samples.
        """
        _at_least(1, num_samples=num_samples)
        found = held_out(self.origin, data, text_column=text_column)
        return measure(
            self.model,
            self.tokenizer,
            found.array,
            found.facts,
            embedded_texts=found.texts if found.embedded else None,
            num_samples=num_samples,
            seed=seed,
            rows=rows,
            dtype=dtype,
        )

    @property
    def origin(self) -> Origin:
        """Where its data are, and how they are cut into tokens."""
        return Origin(self.tokenizer, self.config.max_length, self.path, self.results)


def _at_least(least: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")
