"""The two trainers that textvae is measured against, as their users write them.

A, the trainer as the field writes it: torch's nn.GRU in float32, the latent concatenated to every
word, random padded batches from a DataLoader, logits of the whole vocabulary for every cell, Adam
with its defaults, torch.multinomial word by word, one sentence at a time in importance weighting.

B, a careful one: the same model, batches of one exact length, bfloat16 autocast where the machine
has the instructions, fused Adam.

They must not be weakened: what makes them faster and would occur to their users belongs in here.
Their randomness is torch's own, which the linter bans elsewhere. `copy_weights` gives them
exactly the weights of a textvae model, with which they compute exactly its loss
(tests/scripts/test_opponents.py). Shapes are those of textvae/model/interfaces.py.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from textvae.data.batching import Batch
from textvae.model.decoder import GRUDecoder
from textvae.model.encoder import GRUEncoder
from textvae.model.interfaces import END
from textvae.model.recurrent import GRULayer
from textvae.model.vae import VAE, target_mask

CLIP_NORM = 5.0
SAMPLE_CHUNK = 100
"""Samples of the latent decoded at once in importance weighting."""


class PaddedBatch(NamedTuple):
    """A batch of the opponents' collate function; V is `<s>` and V + 1 is the padding."""

    inputs: Tensor
    """int64 `[B, T]`: `<s>` and the words; beyond the length `</s>` and padding."""
    targets: Tensor
    """int64 `[B, T]`: the words and `</s>`, then padding."""
    lengths: Tensor
    """int64 `[B]`: targets of each sentence, `</s>` counted."""


class Loss(NamedTuple):
    """Both halves of minus the ELBO, nats, summed over the batch."""

    cross_entropy: Tensor
    kl: Tensor


class Opponent(nn.Module):
    """The model of both: what users of torch write for Bowman et al. 2016 with GRUs."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.start, self.padding = vocabulary, vocabulary + 1
        rows = vocabulary + 2
        self.encoder_embedding = nn.Embedding(rows, embedding, padding_idx=self.padding)
        self.encoder = nn.GRU(embedding, hidden, batch_first=True)
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.initial = nn.Linear(latent, hidden)
        self.decoder_embedding = nn.Embedding(rows, embedding, padding_idx=self.padding)
        self.decoder = nn.GRU(embedding + latent, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def encode(self, targets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `[B, Z]`, from the state after the last true token."""
        states, _ = self.encoder(self.encoder_embedding(targets))
        last = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        state = states.gather(1, last)[:, 0]
        return self.mean(state).float(), self.log_variance(state).float()

    def decode(self, inputs: Tensor, latents: Tensor) -> Tensor:
        """Logits `[B, T, V]` under teacher forcing, for latents `[B, Z]`."""
        repeated = latents[:, None].expand(-1, inputs.shape[1], -1)
        words = torch.cat([self.decoder_embedding(inputs), repeated], dim=2)
        states, _ = self.decoder(words, self.initial_state(latents))
        logits: Tensor = self.output(states)
        return logits

    def initial_state(self, latents: Tensor) -> Tensor:
        """`[B, Z]` -> `[1, B, H]`, as nn.GRU takes it."""
        return torch.tanh(self.initial(latents))[None]

    def forward(self, batch: PaddedBatch, noise: Tensor | None = None) -> Loss:
        """The loss of a batch; `noise` `[B, Z]` replaces the draw."""
        mean, log_variance = self.encode(batch.targets, batch.lengths)
        noise = torch.randn_like(mean) if noise is None else noise
        logits = self.decode(batch.inputs, mean + torch.exp(0.5 * log_variance) * noise)
        cross_entropy = F.cross_entropy(
            logits.flatten(0, 1),
            batch.targets.flatten(),
            ignore_index=self.padding,
            reduction="sum",
        )
        kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return Loss(cross_entropy, kl)


def naive_optimizer(model: Opponent, learning_rate: float) -> torch.optim.Optimizer:
    """A's: Adam with its defaults."""
    return torch.optim.Adam(model.parameters(), lr=learning_rate)


def careful_optimizer(model: Opponent, learning_rate: float) -> torch.optim.Optimizer:
    """B's: the fused Adam."""
    return torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)


def train_step(
    model: Opponent, optimizer: torch.optim.Optimizer, batch: PaddedBatch, *, autocast: bool
) -> Tensor:
    """Forward, backward, clipping, update; returns the loss summed over the batch, nats."""
    with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=autocast):
        loss: Loss = model(batch)
    total = loss.cross_entropy + loss.kl
    optimizer.zero_grad()
    (total / batch.lengths.shape[0]).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return total.detach()


def seed_everything(seed: int) -> None:
    """Seed torch's global generators, as users do."""
    torch.manual_seed(seed)


def prepared(sentences: Sequence[Sequence[int]], model: Opponent) -> list[Tensor]:
    """A tensor a sentence, `<s>` and `</s>` put on, made once before training."""
    return [torch.tensor([model.start, *ids, END]) for ids in sentences]


def collate(sentences: Sequence[Tensor], padding: int) -> PaddedBatch:
    """Pad sentences with `<s>` and `</s>` to the longest."""
    padded = pad_sequence(list(sentences), batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(sentence) - 1 for sentence in sentences])
    return PaddedBatch(padded[:, :-1], padded[:, 1:], lengths)


def random_batches(
    sentences: list[Tensor], batch_size: int, padding: int
) -> DataLoader[PaddedBatch]:
    """A's batches: any sentences together."""
    return DataLoader(
        sentences,  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=True,
        collate_fn=lambda rows: collate(rows, padding),
    )


class EqualLengths(Sampler[list[int]]):
    """B's batches: sentences of one exact length; what is left over makes smaller batches."""

    def __init__(self, lengths: Sequence[int], batch_size: int) -> None:
        self.batch_size = batch_size
        self.groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            self.groups.setdefault(length, []).append(index)

    def __len__(self) -> int:
        return sum(math.ceil(len(group) / self.batch_size) for group in self.groups.values())

    def __iter__(self) -> Iterator[list[int]]:
        batches = []
        for group in self.groups.values():
            shuffled = [group[i] for i in torch.randperm(len(group)).tolist()]
            for first in range(0, len(group), self.batch_size):
                batches.append(shuffled[first : first + self.batch_size])
        for i in torch.randperm(len(batches)).tolist():
            yield batches[i]


def equal_length_batches(
    sentences: list[Tensor], batch_size: int, padding: int
) -> DataLoader[PaddedBatch]:
    """B's batches."""
    return DataLoader(
        sentences,  # type: ignore[arg-type]
        batch_sampler=EqualLengths([len(sentence) for sentence in sentences], batch_size),
        collate_fn=lambda rows: collate(rows, padding),
    )


@torch.inference_mode()
def sample(
    model: Opponent, latents: Tensor, *, max_length: int, top_p: float | None = None
) -> list[list[int]]:
    """Write a sentence for each latent `[B, Z]`, `</s>` included where it was said."""
    hidden = model.initial_state(latents)
    tokens = torch.full((latents.shape[0],), model.start, device=latents.device)
    finished = torch.zeros_like(tokens, dtype=torch.bool)
    said = []
    for _ in range(max_length):
        word = torch.cat([model.decoder_embedding(tokens[:, None]), latents[:, None]], dim=2)
        states, hidden = model.decoder(word, hidden)
        logits = model.output(states[:, 0])
        if top_p is not None:
            logits = nucleus(logits, top_p)
        tokens = torch.multinomial(F.softmax(logits, dim=-1), 1)[:, 0]
        said.append(tokens)
        finished |= tokens == END
        if finished.all():
            break
    rows: list[list[int]] = torch.stack(said, dim=1).tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Logits `[B, V]` with all beyond the nucleus at minus infinity: the usual code, by sorting."""
    ordered, order = torch.sort(logits, descending=True, dim=-1)
    cumulative = torch.cumsum(F.softmax(ordered, dim=-1), dim=-1)
    remove = cumulative > top_p
    remove[:, 1:] = remove[:, :-1].clone()
    remove[:, 0] = False
    return logits.masked_fill(remove.scatter(1, order, remove), -torch.inf)


@torch.inference_mode()
def log_likelihoods(model: Opponent, ids: Tensor, latents: Tensor) -> Tensor:
    """Log p(x|z) `[K]`, nats, of one sentence `[T + 1]` from `<s>` to `</s>`; latents `[K, Z]`."""
    repeated = ids[None].expand(latents.shape[0], -1)
    log_probabilities = F.log_softmax(model.decode(repeated[:, :-1], latents), dim=-1)
    return log_probabilities.gather(2, repeated[:, 1:, None])[..., 0].sum(1)


@torch.inference_mode()
def importance_weighted(model: Opponent, ids: Tensor, num_samples: int) -> float:
    """The importance-weighted estimate of log p(x), nats, of one sentence `[T + 1]`."""
    targets = ids[None, 1:]
    mean, log_variance = model.encode(targets, torch.tensor([targets.shape[1]]).to(ids.device))
    deviation = torch.exp(0.5 * log_variance)
    log_weights = []
    for first in range(0, num_samples, SAMPLE_CHUNK):
        size = (min(SAMPLE_CHUNK, num_samples - first), mean.shape[1])
        noise = torch.randn(size, device=mean.device)
        latents = mean + deviation * noise
        log_prior = -0.5 * latents.pow(2).sum(1)
        log_posterior = -0.5 * (noise.pow(2) + log_variance).sum(1)
        log_weights.append(log_likelihoods(model, ids, latents) + log_prior - log_posterior)
    return float(torch.logsumexp(torch.cat(log_weights), 0)) - math.log(num_samples)


def as_padded(batch: Batch, model: Opponent) -> PaddedBatch:
    """A batch of textvae with the opponents' padding, to compare losses on the same sentences."""
    beyond = ~target_mask(batch.lengths, batch.targets.shape[1])
    return PaddedBatch(
        batch.inputs, batch.targets.masked_fill(beyond, model.padding), batch.lengths
    )


@torch.no_grad()
def copy_weights(model: VAE, opponent: Opponent) -> None:
    """Give the opponent exactly the weights of a model with GRUs of one layer, nothing tied."""
    encoder, decoder = model.encoder, model.decoder
    assert isinstance(encoder, GRUEncoder)
    assert encoder.embedding is not None
    assert isinstance(decoder, GRUDecoder)
    assert decoder.initial_weight is not None
    assert decoder.initial_bias is not None
    opponent.encoder_embedding.weight[: opponent.start].copy_(encoder.embedding)
    opponent.decoder_embedding.weight[: opponent.padding].copy_(decoder.input_embedding)
    _copy_gru(encoder.forward_layers[0], opponent.encoder)
    _copy_gru(decoder.layers[0], opponent.decoder)
    means, log_variances = encoder.posterior_weight.chunk(2)
    mean_bias, log_variance_bias = encoder.posterior_bias.chunk(2)
    _copy_linear(means, mean_bias, opponent.mean)
    _copy_linear(log_variances, log_variance_bias, opponent.log_variance)
    _copy_linear(decoder.initial_weight, decoder.initial_bias, opponent.initial)
    _copy_linear(decoder.output_weight, decoder.output_bias, opponent.output)


def _copy_linear(weight: Tensor, bias: Tensor, linear: nn.Linear) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def _copy_gru(layer: nn.Module, gru: nn.GRU) -> None:
    """Textvae's condition weights are the columns of nn.GRU that read the concatenated latent."""
    assert isinstance(layer, GRULayer)
    weights = layer.weights()
    parts = [weights.input] if weights.condition is None else [weights.input, weights.condition]
    gru.get_parameter("weight_ih_l0").copy_(torch.cat(parts, dim=1))
    gru.get_parameter("weight_hh_l0").copy_(weights.recurrent)
    gru.get_parameter("bias_ih_l0").copy_(weights.bias)
    # Of r and u, the second bias only adds to the first.
    second = [torch.zeros(2 * gru.hidden_size).to(weights.bias), weights.recurrent_bias]
    gru.get_parameter("bias_hh_l0").copy_(torch.cat(second))
