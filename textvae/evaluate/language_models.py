"""The evaluators that fit language models: forward and reverse perplexity of samples.

Forward: a language model fitted to the corpus reads samples of the model; low where each looks like
a sentence of the corpus, though they may all be one. Reverse: one fitted to samples reads sentences
of the corpus; low where the samples cover it (Zhao et al. 2018). They are the decoder alone
(`model.encoder.kind = "none"`), over the model's own tokens, fitted by the trainer.
"""

import signal
from collections.abc import Iterator
from typing import Annotated

import torch
from msgspec import Meta

from textvae.config import Config
from textvae.data.batching import TokenArray
from textvae.evaluate.bounds import clamped_exp
from textvae.evaluate.measurements import NO_TRAINING_SET, Figure
from textvae.evaluate.subject import Subject
from textvae.generate.strategies import Strategy, Temperature
from textvae.metrics.likelihood import reconstruction_at
from textvae.model.encoder import NoEncoderConfig
from textvae.model.vae import VAE, DecoderConfig, ModelConfig
from textvae.randomness import key, permutation
from textvae.train.config import TrainConfig
from textvae.train.objective import NoFreeBits, ObjectiveConfig
from textvae.train.optimizer import AdamWConfig

VALIDATIONS = 10
HELD_OUT_FRACTION = 0.05
"""The fraction of the samples that selects the parameters of the language model."""
FITTED = "a language model"


class LanguageModelFit(Config):
    """How a language model is fitted."""

    decoder: DecoderConfig = ModelConfig().decoder
    """Its sizes and its dropout."""
    max_steps: Annotated[int, Meta(ge=1)] = 3000
    """Updates; of ten validations the best is taken."""
    batch_size: Annotated[int, Meta(ge=1)] = 64
    learning_rate: Annotated[float, Meta(gt=0.0)] = 2e-3
    """It rises over 2 % of the steps and falls as a cosine to a fiftieth."""


class ForwardPerplexityEvaluator(Config, tag_field="kind", tag="forward_perplexity"):
    """The perplexity of samples under a language model fitted to the corpus."""

    num_samples: Annotated[int, Meta(ge=1)] = 10_000
    """Sentences drawn from the prior."""
    strategy: Strategy = Temperature()
    """How words are chosen."""
    fit: LanguageModelFit = LanguageModelFit()

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figure, and to compare the same language model on the sentences of the corpus."""
        names = ("forward_perplexity", "forward_perplexity_of_data")
        if subject.training is None or subject.validation is None:
            for name in names:
                yield Figure(name, None, "per token", NO_TRAINING_SET)
            return
        drawn = subject.samples(self.num_samples, self.strategy)
        samples = TokenArray.from_lists(drawn, subject.data.start)
        training = subject.training.array
        model = _fitted(subject, training, subject.validation.array, self.fit, "the corpus")
        fitted = f"{FITTED} fitted to {training.num_sentences:,} training sentences"
        fitted += f" in {self.fit.max_steps:,} steps"
        read = ((samples, f"{len(drawn):,} samples"), (subject.data, "the sentences, to compare"))
        for name, (array, what) in zip(names, read, strict=True):
            settings = f"of {what} ({array.num_targets:,} tokens) under {fitted}"
            yield Figure(name, _perplexity(model, array), "per token", settings)


class ReversePerplexityEvaluator(Config, tag_field="kind", tag="reverse_perplexity"):
    """The perplexity of the sentences under a language model fitted to samples."""

    num_samples: Annotated[int, Meta(ge=40)] = 10_000
    """Sentences drawn from the prior; it falls as they grow."""
    strategy: Strategy = Temperature()
    """How words are chosen."""
    fit: LanguageModelFit = LanguageModelFit()

    def run(self, subject: Subject) -> Iterator[Figure]:
        """The figure, and to compare one fitted to as many sentences of the training set."""
        drawn = subject.samples(self.num_samples, self.strategy)
        yield self._figure(
            subject,
            TokenArray.from_lists(drawn, subject.data.start),
            "reverse_perplexity",
            "samples",
        )
        name = "reverse_perplexity_of_data"
        if subject.training is None:
            yield Figure(name, None, "per token", NO_TRAINING_SET)
            return
        training = subject.training.array
        order = permutation(key(subject.seed, "as many"), training.num_sentences)
        sample = training.select(order[: self.num_samples])
        yield self._figure(subject, sample, name, "training sentences, to compare")

    def _figure(self, subject: Subject, array: TokenArray, name: str, what: str) -> Figure:
        """Fit to all but a twentieth, select by that, and read the sentences."""
        size = array.num_sentences
        order = permutation(key(subject.seed, "held out"), size)
        num_held_out = max(1, round(HELD_OUT_FRACTION * size))
        model = _fitted(
            subject,
            array.select(order[num_held_out:]),
            array.select(order[:num_held_out]),
            self.fit,
            what.partition(",")[0],
        )
        data = subject.data
        settings = (
            f"of {data.num_sentences:,} sentences ({data.num_targets:,} tokens) "
            f"under {FITTED} fitted to {size - num_held_out:,} and selected by {num_held_out:,} "
            f"{what} in {self.fit.max_steps:,} steps"
        )
        return Figure(name, _perplexity(model, data), "per token", settings)


def _fitted(
    subject: Subject, corpus: TokenArray, valid: TokenArray, fit: LanguageModelFit, what: str
) -> VAE:
    """A language model over the subject's tokens, with the parameters of its best validation."""
    from textvae.train.loop import train  # noqa: PLC0415 -- a configuration names these evaluators

    config = TrainConfig(
        batch_size=fit.batch_size,
        max_steps=fit.max_steps,
        validate_every=max(1, fit.max_steps // VALIDATIONS),
        log_every=fit.max_steps,
        precision="float32",
        device=str(subject.model.device),
        optimizer=AdamWConfig(learning_rate=fit.learning_rate),
        objective=ObjectiveConfig(free_bits=NoFreeBits()),
    )
    shape = ModelConfig(
        latent_dim=0,
        max_length=subject.max_length,
        encoder=NoEncoderConfig(),
        decoder=fit.decoder,
    )
    model = shape.build(subject.tokenizer.vocabulary_size, seed=subject.seed)
    model = model.to(subject.model.device)
    subject.report(
        f"fitting {FITTED} to {what}: {corpus.num_sentences:,} sentences, {fit.max_steps:,} steps"
    )
    result = train(
        model, corpus, valid, config, seed=subject.seed, run=None, report=lambda line: None
    )
    if result.signal is not None:
        # The loop ends cleanly at a signal; half a fit is no figure, so it is heard again.
        signal.raise_signal(result.signal)
    return model


def _perplexity(model: VAE, array: TokenArray) -> float:
    """The perplexity per token of sentences under a language model."""
    nothing = torch.empty(array.num_sentences, 0, device=model.device)
    nats = float(reconstruction_at(model, array.to(model.device), nothing).sum())
    return clamped_exp(nats / array.num_targets)
