"""TextVAE: text in, text out, the class that users of the package call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from textvae.api.inputs import as_latents, as_sentences
from textvae.api.sampling import BLOCK, draw_samples
from textvae.api.token_log_probs import NUM_SAMPLES, TokenLogProbs, measure_token_log_probs
from textvae.api.train import experiment_config, history_of, train_run, watch
from textvae.data.batching import TokenArray
from textvae.data.columns import Columns
from textvae.data.memory import as_data
from textvae.data.rows import TooLong
from textvae.data.spelling import SpellingModel
from textvae.data.tokenizer import Tokenizer
from textvae.errors import CheckpointError, ConfigError, TrainingError
from textvae.evaluate.summary import Evaluation, evaluate
from textvae.generate.options import Decoding, StrategyName, resolve_decoding
from textvae.generate.paths import PathKind, path_through
from textvae.generate.writing import DecodingSettings, Sample, candidates
from textvae.metrics.likelihood import encode_corpus, likeliest_labels
from textvae.model.gaussian import DiagonalGaussian
from textvae.model.vae import VAE, ModelConfig
from textvae.run.conditions import decoder_conditions
from textvae.run.data import DataOptions
from textvae.run.experiment import ExperimentConfig, check_device
from textvae.run.held_out import Origin, given, held_out, subject_of, tokenize_given
from textvae.run.model_directory import Results, load_model, publish, require_latent
from textvae.run.plan import plan_run
from textvae.storage.files import require_memory
from textvae.train.metrics import Event

SENTENCE_BYTES = 64
"""Memory that a sentence in a list takes at least: a string of Python and its place."""


class TextVAE:
    """A trained sentence VAE: a model, its tokenizer, and the verbs of everyday use.

    Sentences are plain strings. Results depend on the seed and on a sentence's index, never on how
    many are processed at once. Functions that write sentences take the keywords of
    `textvae.Decoding`: `strategy="nucleus", top_p=0.9, seed=1`, or a struct such as
    `strategy=textvae.Nucleus(p=0.9)`; `max_length`, `min_length` and others go with every strategy.
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
        spelling: SpellingModel | None = None,
    ) -> None:
        self.model, self.tokenizer, self.config = model.eval(), tokenizer, config
        self.results, self.path = results, path
        self.labels, self.spelling = tuple(labels), spelling

    def __repr__(self) -> str:
        words = f"{self.tokenizer.vocabulary_size:,} {self.tokenizer.kind} tokens"
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        facts = [
            f"vocabulary={words}",
            f"latent_dim={self.latent_dim}",
            f"{parameters:,} parameters",
        ]
        facts.append(f"device={self.device}")
        if self.results is not None:
            facts.append(f"trained on {self.results.data.source}")
            if self.results.evaluation is not None:
                facts.append(f"perplexity={self.results.evaluation.perplexity:.2f}")
        return f"TextVAE({', '.join(facts)})"

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.device

    @property
    def latent_dim(self) -> int:
        """Z, the dimensions of a latent; 0 for a language model."""
        return self.config.latent_dim

    @property
    def history(self) -> list[Event]:
        """The figures of the run that made the model, in the order of their steps.

        Empty for a model whose directory holds no run.
        """
        return [] if self.path is None else history_of(self.path, self.results)

    def to(self, device: str | torch.device) -> "TextVAE":
        """Move the weights to a device, in place; returns the model itself.

        Raises:
            ConfigError: no such device.
        """
        self.model.to(check_device(str(device)))
        return self

    @classmethod
    def train(
        cls,
        data: object = None,
        *,
        config: ExperimentConfig | Mapping[str, object] | None = None,
        start_from: str | Path | None = None,
        output: str | Path | None = None,
        valid: object = None,
        test: object = None,
        text_column: str | None = None,
        label_column: str | None = None,
        labels: str | Path | None = None,
        progress: bool = True,
        report: Callable[[str], None] | None = None,
        callback: Callable[[Event], object] | None = None,
    ) -> "TextVAE":
        """Train on a corpus, or continue a run that stopped.

        Args:
            data: a file, a directory of splits or `hf:name`; a list of strings, a pair (texts,
                labels), a pandas Series or DataFrame, a `datasets.Dataset`, or a dict of these
                with `train`, `valid` and `test`; None is the embedded corpus.
            config: what to train, or only what differs from the defaults, as
                `{"train": {"max_steps": 900}}`; None is the defaults (for the embedded corpus,
                its recipe is `load_config(recipe="embedded")`).
            start_from: a run or model directory whose weights, tokenizer and settings a new run
                starts with.
            output: the run directory; None is `runs/` and the name of the data, or of texts in
                memory a name made of their checksum.
            valid: sentences that select the parameters; carved out of `data` if it has none.
            test: sentences for the report; likewise.
            text_column: of a table.
            label_column: of a table.
            labels: a file of labels in step with `data`.
            progress: show a bar in a terminal or a notebook, and lines on stderr elsewhere.
            report: takes the lines of progress instead.
            callback: called with each `Event`: its `phase`, `step` and `metrics`.

        Raises:
            TypeError: data that are no texts, or a config that is no config.
            TextVAEError: data, config or directory that cannot be used; a diverged run.
        """
        columns = Columns(text_column, label_column)
        options = DataOptions(
            as_data(data, columns),
            valid=as_data(valid, columns, "valid"),
            test=as_data(test, columns, "test"),
            text_column=text_column,
            label_column=label_column,
            labels=None if labels is None else str(labels),
        )
        where = None if output is None else Path(output)
        report, monitor = watch(progress, report, callback)
        outcome = train_run(
            lambda: plan_run(options, experiment_config(config, start_from), where, report),
            report=report,
            monitor=monitor,
        )
        if outcome.result is not None and outcome.result.signal is not None:
            raise TrainingError(
                f"{outcome.path}: stopped by signal {outcome.result.signal} at step "
                f"{outcome.result.steps}; the same call continues from there"
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
        where, loaded = check_device(device), load_model(Path(path), verify=verify)
        return cls(
            loaded.model.to(where),
            loaded.tokenizer,
            loaded.config,
            results=loaded.results,
            path=Path(path),
            labels=loaded.labels,
            spelling=loaded.spelling,
        )

    def save_pretrained(self, path: str | Path) -> None:
        """Write a model directory that `from_pretrained` reads.

        Raises:
            CheckpointError: the directory is in use, or cannot be written.
        """
        where = Path(path)
        if where.exists() and (not where.is_dir() or any(where.iterdir())):
            raise CheckpointError(f"{where}: is in use; save to a directory that is new or empty")
        parts = self.model, self.config, self.tokenizer, self.results, self.labels
        publish(where, *parts, self.spelling)

    def sample(
        self,
        num_samples: int = 1,
        *,
        near: str | None = None,
        scale: float | None = None,
        label: str | None = None,
        **decoding: Unpack[Decoding],
    ) -> list[str]:
        """Sentences from the prior, or near one; sentence i is a function of (seed, i).

        Args:
            num_samples: the number of sentences.
            near: a sentence: latents are the mean of its posterior plus noise.
            scale: of the noise, in standard deviations of that posterior, 0 to 1000; None is 1.
            label: of all of them; None draws it from p(y), or is that of the sentence `near`,
                where the model has labels.
            decoding: how words are chosen, by default at temperature 1; `textvae.Decoding`.

        Raises:
            ConfigError: a number out of bounds, a scale without a sentence.
            DataError: a sentence that `encode` refuses, or an unknown label.
            CheckpointError: a label for a model without labels.
            MemoryLimitError: a list of so many does not fit into memory.
        """
        settings = self.decoding_settings(decoding, default="temperature")
        require_memory(
            SENTENCE_BYTES * num_samples,
            f"num_samples {num_samples}",
            "ask for fewer, or iterate over sample_iter",
        )
        samples = self._samples(num_samples, settings, near, label, scale=scale, block=BLOCK)
        return [sample.text for sample in samples]

    def sample_iter(
        self,
        num_samples: int = 1,
        *,
        near: str | None = None,
        scale: float | None = None,
        label: str | None = None,
        with_log_probs: bool = False,
        **decoding: Unpack[Decoding],
    ) -> Iterator[Sample]:
        """The sentences of `sample` one by one, as they are written, with what is known of each.

        Memory does not grow with their number. A beam with `n_best` gives several sentences for
        each index. The processes of a `torchrun` share the work, and each gets all sentences.
        With `with_log_probs` each has its `log_prob`, which those of a beam have anyway.

        Raises:
            ConfigError, DataError, CheckpointError: as `sample`.
        """
        settings = self.decoding_settings(decoding, default="temperature", several=True)
        parts = num_samples, settings, near, label
        return self._samples(*parts, scale=scale, with_log_probs=with_log_probs)

    def _samples(
        self,
        num_samples: int,
        settings: DecodingSettings,
        near: str | None,
        label: str | None,
        **options: Any,
    ) -> Iterator[Sample]:
        posterior = None if near is None else self.encode([near])
        if near is not None:
            label = label or self.likeliest_label(near)
        parts = self.model, self.tokenizer, self.labels, num_samples, settings
        return draw_samples(*parts, posterior=posterior, label=label, **options)

    def encode(self, sentences: Sequence[str]) -> DiagonalGaussian:
        """The posteriors of sentences, mean and log-variance `[N, Z]`.

        Args:
            sentences: a list or another iterable of N strings.

        Raises:
            DataError: no sentence, a blank one, or one longer than the model's limit.
            CheckpointError: the model is a language model, which has no posterior.
            TypeError: what is not a string.
        """
        require_latent(self.model, self.path)
        sentences = as_sentences(sentences)
        array, _ = tokenize_given(self.origin, given(sentences), sentences)
        return encode_corpus(self.model, array.to(self.device))

    def log_prob(
        self, sentences: Sequence[str], *, num_samples: int = NUM_SAMPLES, seed: int = 0
    ) -> Tensor:
        """Log p of sentences by the importance-weighted bound, nats, float64 `[N]`.

        It is minus the nll of `textvae.score`: `</s>` counts, and where the model has a model of
        spelling, an unknown word costs its spelling. Args and errors: `token_log_probs`.
        """
        tokens = self.token_log_probs(sentences, num_samples=num_samples, seed=seed)
        sums = [one.latent + sum(one.increments) for one in tokens]
        return torch.tensor(sums, dtype=torch.float64)

    def token_log_probs(
        self, sentences: Sequence[str], *, num_samples: int = NUM_SAMPLES, seed: int = 0
    ) -> list[TokenLogProbs]:
        """Log p of each token of N sentences, by `num_samples` draws of the latent, in two ways.

        Raises:
            DataError, TypeError: as `encode`.
            ConfigError: no samples.
        """
        parts = self.model, self.spelling, self.origin, sentences
        return measure_token_log_probs(*parts, num_samples=num_samples, seed=seed)

    def decode(
        self,
        latents: object,
        *,
        label: str | Sequence[str] | None = None,
        **decoding: Unpack[Decoding],
    ) -> list[str]:
        """A sentence for each latent.

        Args:
            latents: `[N, Z]`: a tensor, an array, lists of numbers; or posteriors, whose means are
                taken.
            label: one for all or one for each, which M2 needs.
            decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

        Raises:
            DataError: latents of another dimension, an unknown label, or none for M2.
            ConfigError: a number out of bounds.
            CheckpointError: a label for a model without labels.
            TypeError: latents that are no numbers.
        """
        settings = self.decoding_settings(decoding)
        conditions = decoder_conditions(self.model, self.labels, as_latents(latents), label)
        written = candidates(self.model, self.tokenizer, conditions, settings)
        return [best[0].text for best in written]

    def reconstruct(
        self,
        sentences: Sequence[str],
        *,
        label: str | None = None,
        **decoding: Unpack[Decoding],
    ) -> list[str]:
        """The sentences that the decoder writes at the posterior means of sentences.

        With `label` they are written under that label; else, where the model has labels, each
        under its likeliest.

        Raises:
            DataError, CheckpointError, ConfigError, TypeError: as `encode` and `decode`.
        """
        settings = self.decoding_settings(decoding)
        mean = self.encode(sentences).mean
        conditions = decoder_conditions(
            self.model, self.labels, mean, label or self.likeliest_labels(sentences)
        )
        written = candidates(self.model, self.tokenizer, conditions, settings)
        return [best[0].text for best in written]

    def interpolate(
        self,
        *sentences: str,
        steps: int = 7,
        path: PathKind = "straight",
        label: str | None = None,
        **decoding: Unpack[Decoding],
    ) -> list[str]:
        """Sentences along a path through the posterior means of two sentences or more.

        `textvae.walk` also tells what each step costs and changes.

        Args:
            sentences: M of them; the results at their places are their reconstructions.
            steps: how many from one to the next, both included; (M - 1) (steps - 1) + 1 in all.
            path: `straight`, `spherical`, or `data`: where the density of a prior that is a
                mixture is high.
            label: held along the path; None is that of the first, where the decoder needs one.
            decoding: how words are chosen, by default greedily; see `textvae.Decoding`.

        Raises:
            DataError: as `encode` and `decode`; fewer than two sentences.
            ConfigError: fewer than two steps, or a prior that is no mixture for `data`.
        """
        settings = self.decoding_settings(decoding)
        mean = self.encode(sentences).mean
        points = path_through(mean, steps=steps, path=path, prior=self.model.prior)
        held = label or self.likeliest_label(sentences[0])
        conditions = decoder_conditions(self.model, self.labels, points, held)
        written = candidates(self.model, self.tokenizer, conditions, settings)
        return [best[0].text for best in written]

    def decoding_settings(
        self, options: Decoding, *, default: StrategyName = "greedy", several: bool = False
    ) -> DecodingSettings:
        """The settings of `generate.options.resolve_decoding` for this model."""
        tokenizer, limit = self.tokenizer, self.config.max_length
        return resolve_decoding(
            options, tokenizer=tokenizer, limit=limit, default=default, several=several
        )

    def likeliest_labels(self, sentences: Sequence[str]) -> list[str] | None:
        """The likeliest label of each sentence; None for a model without labels.

        Raises:
            DataError, TypeError: as `encode`.
        """
        if not self.labels:
            return None
        sentences = as_sentences(sentences)
        array, _ = tokenize_given(self.origin, given(sentences), sentences)
        return self.label_array(array)

    def label_array(self, array: TokenArray) -> list[str] | None:
        """`likeliest_labels` of tokenized sentences."""
        numbers = likeliest_labels(self.model, array.to(self.device)) if self.labels else None
        return None if numbers is None else [self.labels[number] for number in numbers.tolist()]

    def likeliest_label(self, sentence: str) -> str | None:
        """The likeliest label of one sentence, as `likeliest_labels`."""
        labels = self.likeliest_labels([sentence])
        return None if labels is None else labels[0]

    def evaluate(
        self,
        data: str | Path | Sequence[str] | None = None,
        *,
        num_samples: int = 500,
        seed: int = 0,
        rows: int | None = None,
        dtype: torch.dtype = torch.float32,
        text_column: str | None = None,
        too_long: TooLong = "drop",
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
            too_long: what becomes of sentences over the model's limit of tokens.

        Raises:
            DataError: sentences that cannot be read; one over the limit, to be refused.
            ConfigError: no samples.
        """
        _at_least(1, num_samples=num_samples)
        sentences = held_out(self.origin, data, text_column=text_column, too_long=too_long)
        subject = subject_of(self.model, self.origin, sentences, seed=seed, rows=rows, dtype=dtype)
        return evaluate(subject, num_samples=num_samples)

    @property
    def origin(self) -> Origin:
        """Where its data are, and how they are cut into tokens."""
        return Origin(self.tokenizer, self.config.max_length, self.path, self.results)


def _at_least(least: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")
