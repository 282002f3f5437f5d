"""The gradient of a batch that is cut into parts: among processes, and where memory is short.

What sentences of a batch have to do with each other is small: posteriors, their KL and its floor,
batch normalisation. So that is worked out for the whole batch, and by every process, and only what
a sentence costs by itself is cut. In three phases (Gao et al. 2021, "Scaling deep contrastive
learning batch size under memory limited setup", cache gradients in the same way):

1. read the sentences of each part; the moments of all of them are then put together;
2. decode each part from its latents, backwards too: the gradients of the latents are put together,
   and become gradients of the moments;
3. backwards through the encoder, part by part.

Between the phases processes exchange `[B, 2Z]` and `[B, Z]` numbers, and after them the sum of
their gradients. Nothing is averaged, so the result is that of the batch in one piece but for
rounding, for any number of processes and any size of the parts, the last ones smaller or empty.
Within a phase a process is by itself: one that runs out of memory halves its parts and begins the
phase again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from textvae import distributed
from textvae.data.batching import Batch
from textvae.errors import ConfigError
from textvae.kernels.linear_cross_entropy import CrossEntropy
from textvae.model.labelling import Labelling
from textvae.model.vae import VAE, ElboTerms
from textvae.randomness import Noise, key, normals
from textvae.train.objective import Loss, drop_words

Aim = Callable[[ElboTerms], Loss]
"""The loss of a batch from its terms; linear in the reconstruction."""
T = TypeVar("T")
Gradients = list[Tensor | None]


class Draws(NamedTuple):
    """What is drawn for a batch, and the dtype of the matrix products."""

    seed: int
    step: int
    word_dropout: float
    dtype: torch.dtype

    def noise(self, batch: Batch) -> Noise:
        """Dropout masks."""
        return Noise(self.seed, self.step, batch.indices)

    def normals(self, batch: Batch, lanes: int) -> Tensor:
        """Of the reparameterisation."""
        return normals(key(self.seed, "posterior", self.step), batch.indices, lanes=lanes)

    def decoder_inputs(self, batch: Batch) -> Tensor:
        """Words, some of them dropped."""
        return drop_words(
            batch.inputs, batch.indices, self.word_dropout, seed=self.seed, step=self.step
        )


class Parts:
    """How the batches of a run are cut; remembers how much fitted into memory."""

    def __init__(
        self, micro_batch_size: int | None = None, report: Callable[[str], None] | None = None
    ) -> None:
        """Cut into so many sentences at most.

        Args:
            micro_batch_size: None is all that a process has.
            report: is told where memory was short.
        """
        self.micro_batch_size, self._report = micro_batch_size, report

    def backward(
        self,
        model: VAE,
        batch: Batch,
        aim: Aim,
        draws: Draws,
        labelling: Labelling | None = None,
    ) -> tuple[ElboTerms, Loss]:
        """Add the gradient of a batch, which every process gives, to the parameters' (None before).

        Returns:
            The terms of the whole batch, but for the rows of the reconstruction, and its loss.

        Raises:
            ConfigError: not even one sentence fits into memory, or a model with labels is to be
                trained in parts.
        """
        count = batch.lengths.shape[0]
        if labelling is not None:
            if distributed.size() > 1 or count > (self.micro_batch_size or count):
                raise ConfigError(
                    "model.labels.kind: a model with labels trains in one process and in whole "
                    "batches; leave out torchrun and train.micro_batch_size"
                )
            return _whole(model, batch, aim, draws, labelling)
        if distributed.size() > 1 or count > (self.micro_batch_size or count):
            return self._in_parts(model, batch, aim, draws)
        kept = [buffer.clone() for buffer in model.buffers()]  # statistics that see each batch once
        try:
            return _whole(model, batch, aim, draws)
        except (RuntimeError, MemoryError) as error:
            self._halve(count, error)
        for buffer, value in zip(model.buffers(), kept, strict=True):
            buffer.copy_(value)
        _take_gradients(model)
        return self._in_parts(model, batch, aim, draws)

    def _in_parts(self, model: VAE, batch: Batch, aim: Aim, draws: Draws) -> tuple[ElboTerms, Loss]:
        own = _share(batch.lengths.shape[0])
        first = self._retried(own, lambda rows: _read(model, batch, own, rows, draws))
        graph = first.graph
        leaf = distributed.add(first.moments).requires_grad_()
        posterior = model.encoder.posterior(leaf, training=True)
        latents = posterior.sample(draws.normals(batch, model.prior.latent_dim))
        kl = model.prior.kl(posterior)
        begin = leaf.new_zeros((), requires_grad=True)
        terms = ElboTerms(CrossEntropy(begin, begin.detach()), kl, posterior)
        loss = aim(terms)
        (price,) = torch.autograd.grad(loss.value, begin, retain_graph=True)

        def decode(rows: list[slice]) -> Tensor:
            nonlocal graph
            if len(rows) > 1:
                graph = None  # it does not fit beside the rest, or is not there
            return _decode(model, batch, rows, draws, latents.detach(), price)

        answered = distributed.add(self._retried(own, decode))
        total, pull = answered[0], answered[1:].view_as(latents)
        decoded = _take_gradients(model)
        head = (loss.value + (latents * pull).sum(),), (leaf, *model.parameters())
        d_moments, *among = torch.autograd.grad(*head, allow_unused=True)
        assert d_moments is not None

        def encode(rows: list[slice]) -> None:
            nonlocal graph
            held, graph = graph, None  # it can be used once
            if held is not None:
                held.backward(d_moments[own])  # type: ignore[no-untyped-call]
            else:
                _encode(model, batch, rows, draws, d_moments)

        self._retried(own, encode)
        # Every process has worked out what the whole batch does between encoder and decoder.
        _add_gradients(model, decoded, among if distributed.rank() == 0 else [])
        _sum_gradients(model)
        with torch.no_grad():
            terms = terms._replace(reconstruction=CrossEntropy(total, total), kl=kl.detach())
            return terms, aim(terms)

    def _retried(self, own: slice, phase: Callable[[list[slice]], T]) -> T:
        """One phase of this process, with its sentences cut smaller each time memory is short."""
        count = own.stop - own.start
        while True:
            most = max(1, min(self.micro_batch_size or count, count))
            rows = [slice(i, min(i + most, own.stop)) for i in range(own.start, own.stop, most)]
            try:
                return phase(rows)
            except (RuntimeError, MemoryError) as error:
                self._halve(most, error)

    def _halve(self, count: int, error: Exception) -> None:
        """Make the parts smaller, or raise what is no lack of memory."""
        if not out_of_memory(error):
            raise error
        if count <= 1:
            raise ConfigError(
                f"out of memory with one sentence at a time ({str(error)[:80]}); give the model a "
                "smaller hidden_dim or a smaller vocabulary, or the corpus a smaller max_length"
            ) from error
        self.micro_batch_size = -(-count // 2)
        if self._report is not None:
            self._report(
                f"out of memory: from here on {self.micro_batch_size:,} sentences at a time; the "
                "batch and its result stay the same"
            )


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: torch has a type for CUDA alone, and words for a CPU."""
    words = ("not enough memory", "can't allocate memory", "std::bad_alloc")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


class _Moments(NamedTuple):
    moments: Tensor
    """`[B, 2Z]`, zero for the sentences of others."""
    graph: Tensor | None
    """Those of this process, to go backwards from, where it read them in one part."""


def _whole(
    model: VAE, batch: Batch, aim: Aim, draws: Draws, labelling: Labelling | None = None
) -> tuple[ElboTerms, Loss]:
    """The batch in one piece, by one process."""
    terms = model(
        batch.inputs,
        batch.targets,
        batch.lengths,
        draws.normals(batch, model.prior.latent_dim),
        decoder_inputs=draws.decoder_inputs(batch),
        noise=draws.noise(batch),
        dtype=draws.dtype,
        labelling=labelling,
    )
    loss = aim(terms)
    loss.value.backward()  # type: ignore[no-untyped-call]
    return terms, loss._replace(value=loss.value.detach())


def _share(count: int) -> slice:
    """The sentences of this process: as many as the others have, but for one."""
    size, rank = distributed.size(), distributed.rank()
    return slice(count * rank // size, count * (rank + 1) // size)


def _read(model: VAE, batch: Batch, own: slice, rows: list[slice], draws: Draws) -> _Moments:
    """Phase 1; the graph is kept where there is one part."""
    width, graph = 2 * model.prior.latent_dim, None
    moments = next(model.parameters()).new_zeros(batch.lengths.shape[0], width)
    with torch.set_grad_enabled(len(rows) == 1):
        for some in rows:
            part = batch.rows(some)
            found = model.encoder.moments(
                part.targets, part.lengths, noise=draws.noise(part), dtype=draws.dtype
            )
            moments[some] = found.detach()
            graph = found if found.requires_grad else None
    return _Moments(moments, graph)


def _decode(
    model: VAE, batch: Batch, rows: list[slice], draws: Draws, latents: Tensor, price: Tensor
) -> Tensor:
    """Phase 2: the reconstruction of these rows, and the gradients of all latents, in one row."""
    _take_gradients(model)
    total, pull = latents.new_zeros(()), torch.zeros_like(latents)
    for some in rows:
        part = batch.rows(some)
        here = latents[some].requires_grad_()
        found = model.reconstruct(
            draws.decoder_inputs(part),
            part.targets,
            part.lengths,
            here,
            noise=draws.noise(part),
            dtype=draws.dtype,
        ).total
        (found * price).backward()  # type: ignore[no-untyped-call]
        total += found.detach()
        if here.grad is not None:
            pull[some] = here.grad
    return torch.cat([total[None], pull.flatten()])


def _encode(
    model: VAE, batch: Batch, rows: Iterable[slice], draws: Draws, d_moments: Tensor
) -> None:
    """Phase 3, where the graph of phase 1 was not kept: read once more, and go backwards."""
    _take_gradients(model)
    for some in rows:
        part = batch.rows(some)
        found = model.encoder.moments(
            part.targets, part.lengths, noise=draws.noise(part), dtype=draws.dtype
        )
        if found.requires_grad:
            found.backward(d_moments[some])  # type: ignore[no-untyped-call]


def _take_gradients(model: nn.Module) -> Gradients:
    """The gradients so far, which the parameters lose."""
    taken: Gradients = []
    for parameter in model.parameters():
        taken.append(parameter.grad)
        parameter.grad = None
    return taken


def _add_gradients(model: nn.Module, *others: Sequence[Tensor | None]) -> None:
    for other in others:
        for parameter, gradient in zip(model.parameters(), other, strict=False):
            if gradient is not None:
                added = gradient if parameter.grad is None else parameter.grad + gradient
                parameter.grad = added


def _sum_gradients(model: nn.Module) -> None:
    """Over the processes; a parameter that has no gradient anywhere still has none.

    In one message: the gradients, and whether they are there.
    """
    if distributed.size() == 1:
        return
    parameters = list(model.parameters())
    there = parameters[0].new_tensor([float(p.grad is not None) for p in parameters])
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = distributed.add(torch.cat([there, *(part.flatten() for part in parts)]))
    sizes = [len(parameters), *(p.numel() for p in parameters)]
    flags, *summed = flat.split(sizes)  # type: ignore[no-untyped-call]
    for parameter, gradient, flag in zip(parameters, summed, flags.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if flag else None
