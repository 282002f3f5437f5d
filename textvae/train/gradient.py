"""The gradient of a batch: forward, loss, backward.

`backward` does that for a batch in one piece. A batch that several processes share, or that is cut
into micro-batches to save memory, goes through three phases (as Gao et al. 2021, "Scaling deep
contrastive learning batch size under memory limited setup", cache gradients). Its sentences depend
on each other only between encoder and decoder: batch normalisation, the KL and its free bits. Every
process computes that for the whole batch.

1. Encode the pieces; all-reduce the readings (moments of the posteriors; of M2 also log q(y|x)).
2. Decode the pieces, forward and backward; all-reduce the gradients of the latents (of M2 also of
   the weights of labels), which give the gradients of the readings. Classify labelled sentences.
3. Backward through the encoder, piece by piece; all-reduce the gradients of the parameters.

Sums cross processes, never means, so the result equals that of the batch in one piece up to
rounding, for any number of processes and any size of the pieces.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textvae import distributed
from textvae.data.batching import Batch
from textvae.kernels.linear_cross_entropy import CrossEntropy
from textvae.model.inferred import ElboTerms, Inferred
from textvae.model.labelling import Labelled, Labelling
from textvae.model.vae import VAE
from textvae.randomness import Noise, keyed, normals
from textvae.train.config import StepSettings
from textvae.train.denoise import NoisySentences
from textvae.train.objective import Loss, drop_words, objective
from textvae.train.rate import RateState
from textvae.train.schedules import Clock


def backward(
    model: VAE,
    batch: Batch,
    settings: StepSettings,
    clock: Clock,
    rate: RateState,
    labelling: Labelling | None = None,
) -> tuple[ElboTerms, Loss]:
    """Compute the loss of a batch and set the gradients of the parameters, which have none before.

    Returns the terms of the whole batch and its loss, detached. Of a batch in pieces the
    reconstruction has its total only, without a row for each target.
    """
    if distributed.size() > 1 or _needs_micro_batches(batch, labelling, settings.micro_batch_size):
        return _backward_in_pieces(model, batch, settings, clock, rate, labelling)
    terms = model(
        batch.inputs,
        batch.targets,
        batch.lengths,
        _posterior_normals(model, batch, settings, clock),
        decoder_inputs=_decoder_inputs(batch, settings, clock),
        encoder_sentences=_encoder_sentences(model, batch, settings, clock),
        noise=Noise(settings.seed, clock.step, batch.indices),
        dtype=settings.dtype,
        labelling=labelling,
    )
    loss = objective(settings.objective, terms, clock, rate)
    loss.value.backward()  # type: ignore[no-untyped-call]
    return terms, loss._replace(value=loss.value.detach())


def _posterior_normals(model: VAE, batch: Batch, settings: StepSettings, clock: Clock) -> Tensor:
    """The standard normals `[B, Z]` of the reparameterisation."""
    stream = keyed(clock.step, settings.seed, "posterior")
    return normals(*stream, batch.indices, lanes=model.prior.latent_dim)


def _decoder_inputs(batch: Batch, settings: StepSettings, clock: Clock) -> Tensor:
    """The words `[B, T]` that the decoder reads, after word dropout."""
    rate = settings.objective.word_dropout(*clock.stage)
    return drop_words(batch.inputs, batch.indices, rate, seed=settings.seed, step=clock.step)


def _encoder_sentences(
    model: VAE, batch: Batch, settings: StepSettings, clock: Clock
) -> NoisySentences:
    """The sentences that the encoder reads, with the noise of `train.objective.denoise`."""
    return settings.objective.denoise(
        batch.targets,
        batch.lengths,
        batch.indices,
        vocabulary_size=model.decoder.output_bias.shape[0],
        seed=settings.seed,
        step=clock.step,
    )


# -- several processes and micro-batches -----------------------------------------------------------


def _needs_micro_batches(
    batch: Batch, labelling: Labelling | None, micro_batch_size: int | None
) -> bool:
    if micro_batch_size is None:
        return False
    size = batch.lengths.shape[0]
    if labelling is not None and labelling.labelled is not None:
        size = max(size, labelling.labelled.lengths.shape[0])
    return size > micro_batch_size


def _backward_in_pieces(
    model: VAE,
    batch: Batch,
    settings: StepSettings,
    clock: Clock,
    rate: RateState,
    labelling: Labelling | None,
) -> tuple[ElboTerms, Loss]:
    """Do what `backward` does in the three phases above."""
    phases = _Phases(model, batch, settings, clock)
    rank_rows = _rows_of_this_rank(batch.lengths.shape[0])
    pieces = _cut(rank_rows, settings.micro_batch_size)

    encoded = phases.encode(pieces)
    readings = distributed.all_reduce_sum(encoded.readings).requires_grad_()
    inferred = model.infer(
        readings,
        _posterior_normals(model, batch, settings, clock),
        labelling=labelling,
        noise=Noise(settings.seed, clock.step, batch.indices),
    )
    # The loss is linear in the two sums that later phases compute, so zeros can stand for them.
    reconstruction, cross_entropy = (readings.new_zeros((), requires_grad=True) for _ in range(2))
    terms = inferred.terms(CrossEntropy(reconstruction, reconstruction.detach()), cross_entropy)
    loss = objective(settings.objective, terms, clock, rate)
    d_loss_d_reconstruction, d_loss_d_cross_entropy = torch.autograd.grad(
        loss.value, (reconstruction, cross_entropy), retain_graph=True, materialize_grads=True
    )

    decoded = phases.decode(pieces, inferred, d_loss_d_reconstruction)
    reconstruction, *d_latents = _unpack(distributed.all_reduce_sum(decoded), inferred)
    d_decoder = _take_gradients(model)
    cross_entropy = torch.zeros_like(d_loss_d_cross_entropy)
    if labelling is not None and labelling.labelled is not None:
        classified = phases.classify(labelling.labelled, d_loss_d_cross_entropy)
        cross_entropy = distributed.all_reduce_sum(classified)
    d_classifier = _take_gradients(model)

    surrogate = loss.value  # its gradient is that of the loss, through the latents too
    for latents, d_latent in zip(inferred.passed_on, d_latents, strict=True):
        surrogate = surrogate + (latents * d_latent).sum()
    d_readings, *d_between = torch.autograd.grad(
        surrogate, (readings, *model.parameters()), allow_unused=True
    )
    assert d_readings is not None
    if encoded.graph is not None:
        encoded.graph.backward(d_readings[rank_rows])  # type: ignore[no-untyped-call]
    else:
        phases.encode_backward(pieces, d_readings)

    _add_gradients(model, d_decoder)
    _add_gradients(model, d_classifier)
    if distributed.rank() == 0:  # every process has computed the same of the whole batch
        _add_gradients(model, d_between)
    _sum_gradients(model)
    with torch.no_grad():
        terms = inferred.detached().terms(
            CrossEntropy(reconstruction, reconstruction), cross_entropy
        )
        return terms, objective(settings.objective, terms, clock, rate)


def _rows_of_this_rank(count: int) -> slice:
    """The rows of a batch that this process computes; ranks differ by at most one row."""
    size, rank = distributed.size(), distributed.rank()
    return slice(count * rank // size, count * (rank + 1) // size)


def _cut(rows: slice, size: int | None) -> list[slice]:
    """Cut rows into pieces of at most `size`; no rows are no piece."""
    size = size or max(1, rows.stop - rows.start)
    return [slice(i, min(i + size, rows.stop)) for i in range(rows.start, rows.stop, size)]


class _Encoded(NamedTuple):
    readings: Tensor
    """`[B, reading_dim]` of `VAE.read`, zero in the rows of other processes."""
    graph: Tensor | None
    """The rows of this process with their graph, where it encoded them in one piece."""


class _Phases(NamedTuple):
    """The phases of one batch; each runs the pieces of this process."""

    model: VAE
    batch: Batch
    settings: StepSettings
    clock: Clock

    def encode(self, pieces: Sequence[slice]) -> _Encoded:
        """Phase 1. The graph is kept where there is one piece."""
        graph = None
        size = self.batch.lengths.shape[0], self.model.reading_dim
        readings = next(self.model.parameters()).new_zeros(size)
        with torch.set_grad_enabled(len(pieces) == 1):
            for rows in pieces:
                piece = self._read(rows)
                readings[rows] = piece.detach()
                graph = piece if piece.requires_grad else None
        return _Encoded(readings, graph)

    def decode(
        self, pieces: Sequence[slice], inferred: Inferred, d_loss_d_reconstruction: Tensor
    ) -> Tensor:
        """Phase 2: the reconstruction and the gradients of the latents, in one vector."""
        total = torch.zeros_like(d_loss_d_reconstruction)
        d_latents = [torch.zeros_like(latents) for latents in inferred.passed_on]
        for rows in pieces:
            piece, piece_inferred = self.batch.rows(rows), inferred.part(rows)
            reconstruction = self.model.reconstruct_inferred(
                _decoder_inputs(piece, self.settings, self.clock),
                piece.targets,
                piece.lengths,
                piece_inferred,
                noise=self._noise(piece),
                dtype=self.settings.dtype,
            ).total
            (reconstruction * d_loss_d_reconstruction).backward()  # type: ignore[no-untyped-call]
            total += reconstruction.detach()
            latent_rows = inferred.rows_of(rows)
            for d_latent, latents in zip(d_latents, piece_inferred.passed_on, strict=True):
                if latents.grad is not None:
                    d_latent[latent_rows] = latents.grad
        return torch.cat([total[None], *(d_latent.flatten() for d_latent in d_latents)])

    def classify(self, labelled: Labelled, d_loss_d_cross_entropy: Tensor) -> Tensor:
        """The part of this process in the cross-entropy of labelled sentences, and its gradient."""
        total, count = torch.zeros_like(d_loss_d_cross_entropy), labelled.lengths.shape[0]
        for rows in _cut(_rows_of_this_rank(count), self.settings.micro_batch_size):
            fraction = (rows.stop - rows.start) / count
            mean = self.model.label_cross_entropy(labelled.part(rows), dtype=self.settings.dtype)
            cross_entropy = fraction * mean
            (cross_entropy * d_loss_d_cross_entropy).backward()
            total += cross_entropy.detach()
        return total

    def encode_backward(self, pieces: Iterable[slice], d_readings: Tensor) -> None:
        """Phase 3, where phase 1 kept no graph: encode again, and go backward."""
        for rows in pieces:
            readings = self._read(rows)
            if readings.requires_grad:
                readings.backward(d_readings[rows])  # type: ignore[no-untyped-call]

    def _read(self, rows: slice) -> Tensor:
        piece = self.batch.rows(rows)
        sentences = _encoder_sentences(self.model, piece, self.settings, self.clock)
        return self.model.read(*sentences, noise=self._noise(piece), dtype=self.settings.dtype)

    def _noise(self, piece: Batch) -> Noise:
        return Noise(self.settings.seed, self.clock.step, piece.indices)


def _unpack(packed: Tensor, inferred: Inferred) -> list[Tensor]:
    """Split the vector of `_Phases.decode`: the reconstruction, then each gradient."""
    sizes = [1, *(latents.numel() for latents in inferred.passed_on)]
    total, *d_latents = torch.split(packed, sizes)
    pairs = zip(d_latents, inferred.passed_on, strict=True)
    return [total[0], *(d_latent.view_as(latents) for d_latent, latents in pairs)]


def _take_gradients(model: nn.Module) -> list[Tensor | None]:
    """Return the gradients of the parameters, and leave the parameters without."""
    gradients = []
    for parameter in model.parameters():
        gradients.append(parameter.grad)
        parameter.grad = None
    return gradients


def _add_gradients(model: nn.Module, gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _sum_gradients(model: nn.Module) -> None:
    """Sum gradients over the processes, in one message; one that no process has stays None."""
    if distributed.size() == 1:
        return
    parameters = list(model.parameters())
    present = parameters[0].new_tensor([float(p.grad is not None) for p in parameters])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = distributed.all_reduce_sum(torch.cat([present, *(g.flatten() for g in gradients)]))
    sizes = [len(parameters), *(p.numel() for p in parameters)]
    flags, *sums = flat.split(sizes)  # type: ignore[no-untyped-call]
    for parameter, gradient, flag in zip(parameters, sums, flags.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if flag else None
