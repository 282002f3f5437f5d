"""From latents to lines of stdout: what sample, interpolate and reconstruct have in common."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from textvae import distributed
from textvae.cli.options import Decoding
from textvae.cli.terminal import emit, emit_json

if TYPE_CHECKING:
    from torch import Tensor

    from textvae.api.text_vae import TextVAE
    from textvae.generate.options import AnyStrategy

Said = dict[str, object]
"""`text`, and, of a beam search, `rank` (from 1), `log_likelihood` (nats) and `score`."""


def say(
    vae: "TextVAE",
    conditions: "Tensor",
    strategy: "AnyStrategy",
    decoding: Decoding,
    *,
    first_index: int = 0,
) -> Iterator[list[Said]]:
    """What is written for each condition `[N, C]`: one sentence, or the n best of a beam."""
    from textvae.api.n_best import n_best_at  # noqa: PLC0415 -- imports torch, 1.5 s
    from textvae.generate.beam import Beam  # noqa: PLC0415 -- as above
    from textvae.generate.decoding import decode  # noqa: PLC0415 -- as above

    longest = decoding["max_length"] or vae.config.max_length
    if isinstance(strategy, Beam):
        best = decoding["n_best"] or 1
        for found in n_best_at(vae, conditions, best, beam=strategy, max_length=longest):
            yield [{"rank": rank, **one._asdict()} for rank, one in enumerate(found, start=1)]
        return
    seed = decoding["seed"]
    written = decode(
        vae.model, conditions, strategy, seed=seed, max_length=longest, first_index=first_index
    )
    for ids in written.sentences:
        yield [{"text": vae.tokenizer.decode(ids)}]


def of_all(said: list[list[Said]]) -> Iterator[list[Said]]:
    """What all processes have written, in the order of their ranks."""
    if distributed.size() == 1:
        yield from said
        return
    import msgspec  # noqa: PLC0415 -- 20 ms

    mine = msgspec.json.encode(said).decode()
    for source in range(distributed.size()):
        yield from msgspec.json.decode(distributed.broadcast(mine, source=source))


def show(
    said: Sequence[Said], facts: dict[str, object], *, as_json: bool, name: str = "text"
) -> None:
    """One line for each sentence; as JSON, after the facts, with `name` for its `text`."""
    for one in said:
        if as_json:
            emit_json({**facts, **{name if key == "text" else key: one[key] for key in one}})
        else:
            emit(str(one["text"]))
