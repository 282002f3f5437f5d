"""The gradient of a batch that is cut into parts: among processes, and where memory is short.

What sentences of a batch have to do with each other is small: posteriors, their KL and its floor,
batch normalisation, a model of their latents. So that is worked out for the whole batch, and by
every process, and only what a sentence costs by itself is cut. In three phases (Gao et al. 2021,
"Scaling deep contrastive learning batch size under memory limited setup", cache gradients in the
same way):

1. read the sentences of each part; the moments of all of them are then put together;
2. decode each part from its latents, backwards too: the gradients of the latents are put together,
   and become gradients of the moments;
3. backwards through the encoder, part by part.

Of M2 log q(y|x) comes with the moments, and a gradient of the weight of each label with that of its
latent. Labelled sentences besides the batch are cut in the same way, in a phase of their own.

Between the phases processes exchange `[B, 2Z]` and `[B, Z]` numbers, of M2 `[B, 2Z + L]` and
`[R, Z + 1]`, and after them the sum of their gradients. Nothing is averaged, so the result is that
of the batch in one piece but for rounding, for any number of processes and any size of the parts,
the last ones smaller or empty.
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
from textvae.model.inferred import ElboTerms, Inferred
from textvae.model.labelling import Labelled, Labelling
from textvae.model.vae import VAE
from textvae.randomness import Noise, key, normals
from textvae.train.denoise import DenoiseConfig, NoisySentences
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
    denoise: DenoiseConfig = DenoiseConfig()

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

    def encoder_sentences(self, model: VAE, batch: Batch) -> NoisySentences:
        """What the encoder reads: the sentences, noisy where `train.objective.denoise` asks."""
        return self.denoise(
            batch.targets,
            batch.lengths,
            batch.indices,
            vocabulary_size=model.decoder.output_bias.shape[0],
            seed=self.seed,
            step=self.step,
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
            ConfigError: not even one sentence fits into memory.
        """
        count = batch.lengths.shape[0]
        if labelling is not None and labelling.labelled is not None:
            count = max(count, labelling.labelled.lengths.shape[0])
        if distributed.size() > 1 or count > (self.micro_batch_size or count):
            return self._in_parts(model, batch, aim, draws, labelling)
        kept = [buffer.clone() for buffer in model.buffers()]  # statistics that see each batch once
        try:
            return _whole(model, batch, aim, draws, labelling)
        except (RuntimeError, MemoryError) as error:
            self._halve(count, error)
        for buffer, value in zip(model.buffers(), kept, strict=True):
            buffer.copy_(value)
        _take_gradients(model)
        return self._in_parts(model, batch, aim, draws, labelling)

    def _in_parts(
        self, model: VAE, batch: Batch, aim: Aim, draws: Draws, labelling: Labelling | None
    ) -> tuple[ElboTerms, Loss]:
        own = _share(batch.lengths.shape[0])
        first = self._retried(own, lambda rows: _read(model, batch, rows, draws))
        graph = first.graph
        leaf = distributed.all_reduce_sum(first.readings).requires_grad_()
        normals = draws.normals(batch, model.prior.latent_dim)
        inferred = model.infer(leaf, normals, labelling=labelling, noise=draws.noise(batch))
        begin, told = (leaf.new_zeros((), requires_grad=True) for _ in range(2))
        loss = aim(inferred.terms(CrossEntropy(begin, begin.detach()), told))
        price, label_price = torch.autograd.grad(
            loss.value, (begin, told), retain_graph=True, materialize_grads=True
        )

        def decode(rows: list[slice]) -> Tensor:
            nonlocal graph
            if len(rows) > 1:
                graph = None  # it does not fit beside the rest, or is not there
            return _decode(model, batch, rows, draws, inferred, price)

        total, *pulls = _unpacked(distributed.all_reduce_sum(self._retried(own, decode)), inferred)
        decoded = _take_gradients(model)
        cross_entropy = self._of_labels(model, labelling, label_price, draws)
        classified = _take_gradients(model)
        value = loss.value
        for passed, pull in zip(inferred.passed_on, pulls, strict=True):
            value = value + (passed * pull).sum()
        head = (value,), (leaf, *model.parameters())
        d_readings, *among = torch.autograd.grad(*head, allow_unused=True)
        assert d_readings is not None

        def encode(rows: list[slice]) -> None:
            nonlocal graph
            held, graph = graph, None  # it can be used once
            if held is not None:
                held.backward(d_readings[own])  # type: ignore[no-untyped-call]
            else:
                _encode(model, batch, rows, draws, d_readings)

        self._retried(own, encode)
        # Every process has worked out what the whole batch does between encoder and decoder.
        _add_gradients(model, decoded, classified, among if distributed.rank() == 0 else [])
        _sum_gradients(model)
        with torch.no_grad():
            terms = inferred.detached().terms(CrossEntropy(total, total), cross_entropy)
            return terms, aim(terms)

    def _of_labels(
        self, model: VAE, labelling: Labelling | None, price: Tensor, draws: Draws
    ) -> Tensor:
        """The cross-entropy of the labelled sentences besides the batch, backwards too."""
        labelled = None if labelling is None else labelling.labelled
        if labelled is None:
            return torch.zeros_like(price)
        own = _share(labelled.lengths.shape[0])
        found = self._retried(own, lambda rows: _classify(model, labelled, rows, draws, price))
        return distributed.all_reduce_sum(found)

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


class _Readings(NamedTuple):
    readings: Tensor
    """Of `VAE.read`, zero for the sentences of others."""
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
        encoder_sentences=draws.encoder_sentences(model, batch),
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


def _read(model: VAE, batch: Batch, rows: list[slice], draws: Draws) -> _Readings:
    """Phase 1; the graph is kept where there is one part."""
    graph = None
    readings = next(model.parameters()).new_zeros(batch.lengths.shape[0], model.reading_dim)
    with torch.set_grad_enabled(len(rows) == 1):
        for some in rows:
            found = _read_part(model, batch.rows(some), draws)
            readings[some] = found.detach()
            graph = found if found.requires_grad else None
    return _Readings(readings, graph)


def _read_part(model: VAE, part: Batch, draws: Draws) -> Tensor:
    sentences = draws.encoder_sentences(model, part)
    return model.read(*sentences, noise=draws.noise(part), dtype=draws.dtype)


def _decode(
    model: VAE, batch: Batch, rows: list[slice], draws: Draws, inferred: Inferred, price: Tensor
) -> Tensor:
    """Phase 2: the reconstruction of these rows and the gradients of what is passed on, in one."""
    _take_gradients(model)
    total = torch.zeros_like(price)
    pulls = [torch.zeros_like(passed) for passed in inferred.passed_on]
    for some in rows:
        part, own = batch.rows(some), inferred.rows_of(some)
        here = inferred.part(some)
        found = model.reconstruct_inferred(
            draws.decoder_inputs(part),
            part.targets,
            part.lengths,
            here,
            noise=draws.noise(part),
            dtype=draws.dtype,
        ).total
        (found * price).backward()  # type: ignore[no-untyped-call]
        total += found.detach()
        for pull, passed in zip(pulls, here.passed_on, strict=True):
            if passed.grad is not None:
                pull[own] = passed.grad
    return torch.cat([total[None], *(pull.flatten() for pull in pulls)])


def _unpacked(answered: Tensor, inferred: Inferred) -> list[Tensor]:
    """What `_decode` put into a row: the reconstruction, and gradients."""
    sizes = [1, *(passed.numel() for passed in inferred.passed_on)]
    total, *pulls = torch.split(answered, sizes)
    shaped = zip(pulls, inferred.passed_on, strict=True)
    return [total[0], *(pull.view_as(passed) for pull, passed in shaped)]


def _classify(
    model: VAE, labelled: Labelled, rows: list[slice], draws: Draws, price: Tensor
) -> Tensor:
    """The share of these labelled sentences in the cross-entropy of all, backwards too."""
    _take_gradients(model)
    total = torch.zeros_like(price)
    for some in rows:
        share = (some.stop - some.start) / labelled.lengths.shape[0]
        found = share * model.label_cross_entropy(labelled.part(some), dtype=draws.dtype)
        (found * price).backward()
        total += found.detach()
    return total


def _encode(
    model: VAE, batch: Batch, rows: Iterable[slice], draws: Draws, d_readings: Tensor
) -> None:
    """Phase 3, where the graph of phase 1 was not kept: read once more, and go backwards."""
    _take_gradients(model)
    for some in rows:
        found = _read_part(model, batch.rows(some), draws)
        if found.requires_grad:
            found.backward(d_readings[some])  # type: ignore[no-untyped-call]


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
    flat = distributed.all_reduce_sum(torch.cat([there, *(part.flatten() for part in parts)]))
    sizes = [len(parameters), *(p.numel() for p in parameters)]
    flags, *summed = flat.split(sizes)  # type: ignore[no-untyped-call]
    for parameter, gradient, flag in zip(parameters, summed, flags.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if flag else None
