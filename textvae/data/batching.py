"""Tokenized sentences as one flat array, and batches of them as functions of (seed, epoch).

One int32 array of tokens with int64 offsets holds a corpus; a batch is a vectorised gather from
it, on whatever device it lives. There are no worker processes: this feeds ten times more
sentences per second than a DataLoader over lists (docs/develop/log.md).
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple, overload

import torch
from msgspec import Meta
from torch import Tensor

from textvae import distributed
from textvae.config import Config
from textvae.errors import DataError
from textvae.randomness import key, permutation, shuffled
from textvae.storage.files import replacing, saying_why

LARGE = 2_000_000
"""Sentences above which the order of an epoch is not held in memory."""
WINDOW = 16
"""Pools whose batches are shuffled together in a large corpus."""
DEVICE_BYTES = 8 * 2**30
"""Tokens above which a corpus stays in the memory of the host, where pages come and go."""
_TOGETHER = 2**20  # numbers written and hashed at once


class Batch(NamedTuple):
    """Sentences padded to the longest; shapes in `model.interfaces`."""

    inputs: Tensor
    """int64 `[B, T]`: `<s>` and the words."""
    targets: Tensor
    """int64 `[B, T]`: the words and `</s>`; cells beyond the length hold 0."""
    lengths: Tensor
    """int64 `[B]`: targets of each sentence, `</s>` counted where it has one."""
    indices: Tensor
    """int64 `[B]`: the number of each sentence in the corpus."""
    labels: Tensor | None = None
    """int64 `[B]`, -1 where none is known; None for a corpus without labels."""

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        if self.inputs.device == device:
            return self
        labels = None if self.labels is None else _sent(self.labels, device)
        inputs, targets, lengths, indices = (_sent(tensor, device) for tensor in self[:4])
        return Batch(inputs, targets, lengths, indices, labels)

    def rows(self, part: slice) -> "Batch":
        """A slice of the sentences, as wide as the longest of them."""
        lengths = self.lengths[part]
        width = int(lengths.max())
        labels = None if self.labels is None else self.labels[part]
        inputs, targets = self.inputs[part, :width], self.targets[part, :width]
        return Batch(inputs, targets, lengths, self.indices[part], labels)


class TokenArray(NamedTuple):
    """A tokenized corpus."""

    tokens: Tensor
    """int32, all sentences one after the other, without `<s>` and `</s>`."""
    offsets: Tensor
    """int64 `[N + 1]`, on the CPU: sentence i is `tokens[offsets[i]:offsets[i + 1]]`. So the width
    of a batch is known without waiting for the device of the tokens."""
    start: int
    """The id of `<s>`, which is V."""
    labels: Tensor | None = None
    """int64 `[N]`: the label of each sentence, -1 where none is known; None where none has one."""
    cut: Tensor | None = None
    """bool `[N]`, on the CPU: True for the beginning of a longer sentence, which has no `</s>`;
    None where all are whole. A cut sentence has one token at least."""

    @classmethod
    def from_lists(
        cls, sentences: Sequence[Sequence[int]], start: int, *, cut: Sequence[bool] = ()
    ) -> "TokenArray":
        """Flatten lists of ids, each in `[0, start)`; `cut` as in the array."""
        flat, lengths = array("i"), array("q")
        for ids in sentences:
            flat.extend(ids)
            lengths.append(len(ids))
        return cls.from_flat(flat, lengths, start, cut=cut)

    @classmethod
    def from_flat(
        cls,
        tokens: "array[int]",
        lengths: "array[int]",
        start: int,
        *,
        cut: Sequence[bool | int] = (),
    ) -> "TokenArray":
        """A corpus from its ids (`array("i")`) and the length of each sentence ("q")."""
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        if len(lengths):
            torch.cumsum(torch.frombuffer(lengths, dtype=torch.int64), 0, out=offsets[1:])
        flat = torch.empty(0, dtype=torch.int32)
        if len(tokens):
            flat = torch.frombuffer(tokens, dtype=torch.int32)
        whole = None if not any(cut) else torch.tensor(cut, dtype=torch.bool)
        return cls(flat, offsets, start, cut=whole)

    @property
    def num_sentences(self) -> int:
        """The number of sentences."""
        return self.offsets.shape[0] - 1

    @property
    def lengths(self) -> Tensor:
        """int64 `[N]`, on the CPU: targets of each sentence, `</s>` counted where it has one."""
        return self.offsets.diff() + self._ends(slice(None))

    def _ends(self, indices: "Tensor | slice") -> "Tensor | int":
        """1 for each sentence that has a `</s>`, 0 for each that is cut."""
        return 1 if self.cut is None else 1 - self.cut[indices].long()

    @property
    def num_targets(self) -> int:
        """Targets of the whole corpus: the words, and a `</s>` for each sentence not cut."""
        num_cut = 0 if self.cut is None else int(self.cut.sum())
        return int(self.offsets[-1]) + self.num_sentences - num_cut

    def lookup(self) -> "Tensor | Lengths":
        """Lengths to index by int64 tensors: of a large corpus, they are not all in memory."""
        return self.lengths if self.num_sentences <= LARGE else Lengths(self.offsets, self.cut)

    def near(self, device: torch.device) -> "TokenArray":
        """The same corpus on a device, unless it is too large for one: batches are then moved."""
        return self.to(device) if self.tokens.nbytes <= DEVICE_BYTES else self

    def to(self, device: torch.device) -> "TokenArray":
        """The same corpus on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        return TokenArray(self.tokens.to(device), self.offsets, self.start, labels, self.cut)

    def head(self, size: int) -> "TokenArray":
        """The first sentences, without a copy."""
        offsets = self.offsets[: size + 1]
        labels = None if self.labels is None else self.labels[:size]
        cut = None if self.cut is None else self.cut[:size]
        return TokenArray(self.tokens[: int(offsets[-1])], offsets, self.start, labels, cut)

    def select(self, indices: Tensor) -> "TokenArray":
        """The sentences at int64 `[n]` indices, copied."""
        indices = indices.to(self.offsets.device)
        lengths = self.offsets[indices + 1] - self.offsets[indices]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        first = torch.repeat_interleave(self.offsets[indices] - offsets[:-1], lengths)
        cells = first + torch.arange(int(offsets[-1]), device=first.device)
        labels = None if self.labels is None else self.labels[indices.to(self.labels.device)]
        cut = None if self.cut is None else self.cut[indices]
        tokens = self.tokens[cells.to(self.tokens.device)]
        return TokenArray(tokens, offsets, self.start, labels, cut)

    def batch(self, indices: Tensor) -> Batch:
        """Gather sentences, int64 `[B]`, into a padded batch."""
        tokens, offsets = self.tokens, self.offsets
        indices = indices.to(offsets.device)
        first = offsets.index_select(0, indices)
        words = offsets.index_select(0, indices + 1).sub_(first)
        # One array, of which inputs and targets are views: each row begins with the cell before its
        # sentence, which makes room for `<s>`, and ends as the longest does; beyond it is 0.
        width = int(words.max()) + 2
        lengths = words + self._ends(indices)
        if tokens.device != offsets.device:
            moved = torch.stack([first, words, indices, lengths])
            first, words, indices, lengths = _sent(moved, tokens.device)
        positions = torch.arange(-1, width - 1, device=tokens.device)
        cells = (first[:, None] + positions).clamp_(0, max(tokens.numel() - 1, 0))
        ids = tokens.index_select(0, cells.view(-1)) if tokens.numel() else cells
        both = ids.view(-1, width).long().masked_fill_(positions >= words[:, None], 0)
        both[:, 0] = self.start
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        return Batch(both[:, :-1], both[:, 1:], lengths, indices, labels)

    def batches_by_length(self, size: int) -> Iterator[Batch]:
        """Every sentence exactly once, sorted by length; for evaluation."""
        for indices in self.lengths.argsort(stable=True).split(size):  # type: ignore[no-untyped-call]
            yield self.batch(indices)

    def shared_batches(self, size: int) -> Iterator[Batch]:
        """The batches of `batches_by_length` for this process, for sums over all processes."""
        batches = self.lengths.argsort(stable=True).split(size)  # type: ignore[no-untyped-call]
        for indices in batches[distributed.rank() :: distributed.size()]:
            yield self.batch(indices)

    def save(self, path: Path) -> None:
        """Write `path.tokens`, `path.offsets` and, where there are some, `path.labels` and `.cut`.

        They are raw arrays in the machine's byte order.

        Raises:
            StorageError: they cannot be written; older ones are whole. (Written through a memory
                map, a full disk would end the process with SIGBUS.)
        """
        for suffix in (".labels", ".cut"):  # of an earlier corpus
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        for suffix, tensor in self._saved().items():
            file = path.with_name(path.name + suffix)
            with replacing(file) as out, saying_why(file):
                for part in tensor.cpu().split(_TOGETHER):  # type: ignore[no-untyped-call]
                    out.write(memoryview(part.numpy()))

    def _saved(self) -> dict[str, Tensor]:
        """The tensors that `save` writes, by the suffix of their file."""
        saved = {".tokens": self.tokens, ".offsets": self.offsets}
        further = {".labels": self.labels, ".cut": self.cut}
        return saved | {name: tensor for name, tensor in further.items() if tensor is not None}

    def checksum(self) -> str:
        """The sha256 of the files that `save` writes."""
        digest = hashlib.sha256()
        for tensor in self._saved().values():
            for part in tensor.cpu().split(_TOGETHER):  # type: ignore[no-untyped-call]
                digest.update(part.numpy())
        return digest.hexdigest()

    @classmethod
    def open(cls, path: Path, start: int) -> "TokenArray":
        """Map the files of `save` into memory, without reading the tokens.

        Raises:
            DataError: a file is missing, or they do not belong together.
        """
        tokens = _mapped(path.with_name(path.name + ".tokens"), torch.int32)
        offsets = _mapped(path.with_name(path.name + ".offsets"), torch.int64)
        fits = offsets.numel() > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == tokens.numel()
        parts = offsets.split(_TOGETHER)  # type: ignore[no-untyped-call]
        falls = any(bool((part.diff() < 0).any()) for part in parts)
        if not fits or falls or any(b[0] < a[-1] for a, b in pairwise(parts)):
            raise DataError(f"{path}: its tokens and offsets do not belong together; train again")
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= start):
            raise DataError(f"{path}: holds tokens beyond its vocabulary; train again")
        file, labels = path.with_name(path.name + ".labels"), None
        if file.exists():
            labels = _mapped(file, torch.int64)
            if labels.numel() != offsets.numel() - 1 or bool((labels < -1).any()):
                raise DataError(f"{file}: its labels do not belong to the tokens; train again")
        file, cut = path.with_name(path.name + ".cut"), None
        if file.exists():
            cut = _mapped(file, torch.uint8)
            words = offsets.diff()
            if cut.numel() != len(words) or bool((cut > 1).any()) or bool((words < cut).any()):
                raise DataError(f"{file}: its marks do not belong to the tokens; train again")
            cut = cut.bool() if bool(cut.any()) else None
        return cls(tokens, offsets, start, labels, cut)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on a device, made without waiting for it where that is possible."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _mapped(file: Path, dtype: torch.dtype) -> Tensor:
    if file.is_symlink() or not file.is_file():
        raise DataError(f"{file}: the tokens of this run are missing; train it again")
    size = file.stat().st_size // dtype.itemsize
    return torch.from_file(str(file), size=size, dtype=dtype) if size else torch.empty(0).to(dtype)


class Lengths(NamedTuple):
    """The lengths of a large corpus, computed when they are indexed."""

    offsets: Tensor
    """int64 `[N + 1]`."""
    cut: Tensor | None = None
    """bool `[N]`, of sentences without `</s>`."""

    @property
    def shape(self) -> tuple[int]:
        """N, as a tensor has it."""
        return (self.offsets.shape[0] - 1,)

    def of(self, indices: Tensor) -> Tensor:
        """int64 lengths, `</s>` counted where there is one, at int64 indices."""
        words = self.offsets[indices + 1] - self.offsets[indices]
        return words + 1 if self.cut is None else words + 1 - self.cut[indices].long()


class PooledBatches(Config, tag_field="kind", tag="pooled"):
    """Batches of similar lengths: every batch is full, and a random one at any moment.

    A random order is cut into pools; each pool is sorted by length and cut into batches, and the
    batches are shuffled.
    """

    pool: Annotated[int, Meta(ge=1, le=2**20)] = 50
    """Batches sorted by length together. With 50, 96 % of the cells of the Penn Treebank's batches
    of 32 hold a token, against 45 % in random batches."""

    def count(self, lengths: "Tensor | Lengths", batch_size: int) -> int:
        """Batches of an epoch; the last may be smaller, and none is left out."""
        return -(-lengths.shape[0] // batch_size)

    def order(
        self, lengths: "Tensor | Lengths", batch_size: int, *, seed: int, epoch: int
    ) -> Sequence[Tensor]:
        """The batches of one epoch, each int64 `[B]`, on the CPU.

        A function of its arguments alone, so a resumed run needs no state but its step. Of a large
        corpus they are made window by window.
        """
        if isinstance(lengths, Lengths):
            return Windows(lengths, batch_size, self.pool, seed, epoch)
        order = permutation(key(seed, "sentences", epoch), lengths.shape[0])
        batches = []
        for pool in order.split(batch_size * self.pool):  # type: ignore[no-untyped-call]
            batches.extend(pool[lengths[pool].argsort(stable=True)].split(batch_size))
        return _shuffled(batches, seed, epoch)


class EqualLengthBatches(Config, tag_field="kind", tag="equal_length"):
    """Batches of sentences of one length, the protocol of the literature (He et al. 2019).

    No cell is padding, but a length's last batch is as small as what is left of it: more and
    smaller batches than `pooled` makes.
    """

    def count(self, lengths: "Tensor | Lengths", batch_size: int) -> int:
        """Batches of an epoch; none is left out."""
        lengths = _whole(lengths)
        return int((-(-lengths.bincount() // batch_size)).sum())

    def order(
        self, lengths: "Tensor | Lengths", batch_size: int, *, seed: int, epoch: int
    ) -> Sequence[Tensor]:
        """The batches of one epoch, each int64 of at most B, on the CPU; see `PooledBatches`.

        Memory grows with the corpus, some 40 bytes per sentence.
        """
        lengths = _whole(lengths)
        order = permutation(key(seed, "sentences", epoch), lengths.shape[0])
        by_length = order[lengths[order].argsort(stable=True)]
        batches: list[Tensor] = []
        for group in by_length.split(lengths.bincount().tolist()):  # type: ignore[no-untyped-call]
            batches.extend(group.split(batch_size) if len(group) else ())
        return _shuffled(batches, seed, epoch)


BatchesConfig = PooledBatches | EqualLengthBatches


class Windows(Sequence[Tensor]):
    """The batches of an epoch of a large corpus: a window of pools at a time is in memory.

    The sentences of a window are drawn from the whole corpus, by a permutation that is computed
    and not held. Batches are shuffled within their window.
    """

    def __init__(self, lengths: Lengths, batch_size: int, pool: int, seed: int, epoch: int) -> None:
        self._lengths, self._batch_size, self._pool = lengths, batch_size, pool
        self._seed, self._epoch = seed, epoch
        self._number, self._batches = -1, list[Tensor]()

    def __len__(self) -> int:
        return -(-self._lengths.shape[0] // self._batch_size)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, place = divmod(index, WINDOW * self._pool)
        if number != self._number:
            self._number, self._batches = number, self._window(number)
        return self._batches[place]

    def _window(self, number: int) -> list[Tensor]:
        size, sentences = self._lengths.shape[0], WINDOW * self._pool * self._batch_size
        places = torch.arange(number * sentences, min((number + 1) * sentences, size))
        order = shuffled(key(self._seed, "sentences", self._epoch), size, places)
        batches: list[Tensor] = []
        for pool in order.split(self._batch_size * self._pool):  # type: ignore[no-untyped-call]
            by_length = pool[self._lengths.of(pool).argsort(stable=True)]
            batches.extend(by_length.split(self._batch_size))
        return _shuffled(batches, self._seed, self._epoch, number)


def _whole(lengths: Tensor | Lengths) -> Tensor:
    return lengths.offsets.diff() + 1 if isinstance(lengths, Lengths) else lengths


def _shuffled(batches: list[Tensor], seed: int, *place: int) -> list[Tensor]:
    order = permutation(key(seed, "batches", *place), len(batches))
    return [batches[i] for i in order.tolist()]
