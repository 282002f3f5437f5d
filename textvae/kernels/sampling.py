"""Drawing words from logits: each fast path beside the plain one it is tested against.

A word is drawn by inverting the cumulative distribution at one uniform number. On a CPU, for 256
rows of 10,000 words, `torch.multinomial` takes 61 ms (it draws a number for every word), a sum over
all words 4.3 ms, and the two levels below 0.8 ms; sorting for the nucleus takes 184 ms, the nucleus
by rejection 9.9 ms (docs/develop/log.md). On CUDA what counts is the number of launches, and that
the host never waits for a result: there the words are sorted. Letters: B rows, V words.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from textvae.randomness import Draws

BLOCK = 128
"""Words summed together before the cumulative sum: near the root of the usual vocabularies."""
ROUNDS = 6
"""Rejections after which the few rows left are drawn by the plain path."""


def draw_reference(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw from unnormalised probabilities `[B, V]` at uniforms `[B]` in [0, 1): int64 `[B]`.

    The index returned always has a positive probability: the target lies strictly below the
    total, and the first cumulative sum beyond it has just risen.
    """
    cumulative = probabilities.double().cumsum(1)
    return _invert(probabilities, cumulative, uniforms.double() * cumulative[:, -1])


def draw(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """`draw_reference` in two levels: first the block of words, then the word in it.

    The same word but for rounding where two words meet. Block masses are summed in the dtype of
    the probabilities, everything cumulative in float64.
    """
    if probabilities.is_cuda:
        return _draw_on_cuda(probabilities, uniforms)
    words = probabilities.shape[1]
    whole = words - words % BLOCK
    if whole < 2 * BLOCK:
        return draw_reference(probabilities, uniforms)
    masses = probabilities[:, :whole].view(-1, whole // BLOCK, BLOCK).sum(2)
    if whole < words:
        masses = torch.cat([masses, probabilities[:, whole:].sum(1, keepdim=True)], dim=1)
    cumulative = masses.double().cumsum(1)
    target = uniforms.double() * cumulative[:, -1]
    block = _invert(masses, cumulative, target)[:, None]
    positions = block * BLOCK + torch.arange(BLOCK, device=block.device)
    inside = probabilities.gather(1, positions.clamp(max=words - 1))
    inside = inside.masked_fill_(positions >= words, 0.0)
    rest = target - (cumulative.gather(1, block) - masses.gather(1, block))[:, 0]
    return block[:, 0] * BLOCK + _invert(inside, inside.double().cumsum(1), rest)


def nucleus_reference(probabilities: Tensor, share: float, uniforms: Tensor) -> Tensor:
    """Draw from the smallest set of words with mass of at least `share` (Holtzman et al. 2020).

    A word belongs to it if the mass of the words before it, likeliest first, is below the share;
    of equally likely words the first in the vocabulary comes first. Probabilities `[B, V]`,
    uniforms `[B]` -> int64 `[B]`.
    """
    order = probabilities.argsort(dim=1, descending=True, stable=True)
    return _draw_first(probabilities, order, share, uniforms)


def nucleus(probabilities: Tensor, share: float, draws: Draws) -> Tensor:
    """`nucleus_reference` by rejection: draw from everything, keep what lies in the nucleus.

    Exact, for what is kept of draws from p is drawn from p given the nucleus; 1 / share rounds on
    average. One pass decides whether a word lies in it: its rank need not be known, only the mass
    of the words before it.
    """
    if share >= 1.0:
        return draw(probabilities, draws.uniforms())
    if probabilities.is_cuda:
        ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
        return _draw_first_on_cuda(ordered, order, share, draws.uniforms())

    def accepts(rows: Tensor, drawn: Tensor) -> Tensor:
        drawn_mass = rows.gather(1, drawn[:, None])
        # Sums of floats: comparisons to bool, and sums of bools, are three times slower.
        above = torch.gt(rows, drawn_mass, out=torch.empty_like(rows)).sum(1)
        before = (rows - drawn_mass).relu_().sum(1) + above * drawn_mass[:, 0]
        at_least = torch.ge(rows, drawn_mass, out=torch.empty_like(rows)).sum(1)
        _add_earlier_ties(before, at_least > above + 1.0, rows, rows, drawn)
        return before < share * rows.sum(1)

    return _reject(probabilities, draws, accepts, lambda p, u: nucleus_reference(p, share, u))


def top_k_reference(probabilities: Tensor, size: int, uniforms: Tensor) -> Tensor:
    """Draw from the `size` likeliest words (Fan et al. 2018); ties at the edge all stay.

    Probabilities `[B, V]`, uniforms `[B]` -> int64 `[B]`.
    """
    if size >= probabilities.shape[1]:
        return draw(probabilities, uniforms)
    edge = probabilities.topk(size, dim=1).values[:, -1:]
    return draw(probabilities.masked_fill(probabilities < edge, 0.0), uniforms)


def top_k(probabilities: Tensor, size: int, draws: Draws) -> Tensor:
    """`top_k_reference` by rejection: a word stays if fewer than `size` words are likelier."""
    if probabilities.is_cuda:
        return top_k_reference(probabilities, size, draws.uniforms())

    def accepts(rows: Tensor, drawn: Tensor) -> Tensor:
        drawn_mass = rows.gather(1, drawn[:, None])
        return torch.gt(rows, drawn_mass, out=torch.empty_like(rows)).sum(1) < size

    return _reject(probabilities, draws, accepts, lambda p, u: top_k_reference(p, size, u))


def typical_reference(probabilities: Tensor, share: float, uniforms: Tensor) -> Tensor:
    """Draw from the smallest set of most typical words with mass of at least `share`.

    The most typical word is the one whose information is nearest to the entropy (Meister et al.
    2023). A word belongs to the set if the mass of the words before it is below the share; of
    equally typical words the first in the vocabulary comes first. Probabilities `[B, V]` that add
    to 1, uniforms `[B]` -> int64 `[B]`.
    """
    order = _atypicality(probabilities).argsort(dim=1, stable=True)
    return _draw_first(probabilities, order, share, uniforms)


def typical(probabilities: Tensor, share: float, draws: Draws) -> Tensor:
    """`typical_reference` by rejection, exact for the reason that `nucleus` is."""
    if share >= 1.0:
        return draw(probabilities, draws.uniforms())
    if probabilities.is_cuda:
        order = _atypicality(probabilities).argsort(dim=1, stable=True)
        ordered = probabilities.gather(1, order)
        return _draw_first_on_cuda(ordered, order, share, draws.uniforms())

    def accepts(rows: Tensor, drawn: Tensor) -> Tensor:
        distance = _atypicality(rows)
        drawn_distance = distance.gather(1, drawn[:, None])
        compared = torch.lt(distance, drawn_distance, out=torch.empty_like(rows))  # see nucleus
        before = (compared * rows).sum(1)
        equal = torch.eq(distance, drawn_distance, out=compared).sum(1)
        _add_earlier_ties(before, equal > 1.0, rows, distance, drawn)
        return before < share * rows.sum(1)

    return _reject(probabilities, draws, accepts, lambda p, u: typical_reference(p, share, u))


def _draw_first(probabilities: Tensor, order: Tensor, share: float, uniforms: Tensor) -> Tensor:
    """Draw from the first words of an order `[B, V]` whose mass is at least `share`: `[B]`."""
    ordered = probabilities.gather(1, order)
    # In float32 ten thousand words add up to more than 1, and the last would fall out at 1.
    cumulative = ordered.double().cumsum(1)
    inside = cumulative - ordered < share * cumulative[:, -1:]
    nucleus_mass = torch.zeros_like(probabilities).scatter_(1, order, ordered * inside)
    return draw(nucleus_mass, uniforms)


def _draw_on_cuda(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """`draw_reference` without a wait.

    A target below the total needs no correction: the first sum beyond it has just risen. The limit
    is for probabilities that are not numbers.
    """
    cumulative = probabilities.double().cumsum(1)
    target = uniforms.double() * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    return drawn.clamp_(max=probabilities.shape[1] - 1)


def _draw_first_on_cuda(ordered: Tensor, order: Tensor, share: float, uniforms: Tensor) -> Tensor:
    """`_draw_first` of probabilities that have been ordered `[B, V]`, without a wait."""
    cumulative = ordered.double().cumsum(1)
    first_beyond = torch.searchsorted(cumulative, share * cumulative[:, -1:])
    mass = cumulative.gather(1, first_beyond.clamp_(max=ordered.shape[1] - 1))
    place = torch.searchsorted(cumulative, uniforms.double()[:, None] * mass, right=True)
    return order.gather(1, place.clamp_(max=ordered.shape[1] - 1))[:, 0]


def _add_earlier_ties(
    before: Tensor, tied: Tensor, probabilities: Tensor, ranks: Tensor, drawn: Tensor
) -> None:
    """Add to `before` `[B]` the mass of earlier words with the rank of the one drawn.

    In rows where bool `tied` `[B]` says that there may be any; ranks and probabilities `[B, V]`.
    """
    rows = tied.nonzero()[:, 0]
    if rows.numel():
        drawn_rank = ranks[rows].gather(1, drawn[rows, None])
        earlier = torch.arange(ranks.shape[1], device=ranks.device) < drawn[rows, None]
        before[rows] += (probabilities[rows] * ((ranks[rows] == drawn_rank) & earlier)).sum(1)


def _atypicality(probabilities: Tensor) -> Tensor:
    """How far the information of each word is from the entropy, nats: `[B, V]` -> `[B, V]`.

    A word without probability is far from it, and never drawn.
    """
    logarithms = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log_()
    entropy = -(probabilities * logarithms).sum(1, keepdim=True)
    return logarithms.add_(entropy).abs_()


def _reject(
    probabilities: Tensor,
    draws: Draws,
    accepts: Callable[[Tensor, Tensor], Tensor],
    plain: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Draw `[B]` words until each is accepted; a row's rounds depend on nothing but its own draws.

    After ROUNDS of them `plain` draws: rows left over for a reason that does not depend on what
    they will draw leave the distribution as it is.
    """
    drawn = draw(probabilities, draws.uniforms())
    left = (~accepts(probabilities, drawn)).nonzero()[:, 0]
    for number in range(1, ROUNDS):
        if not left.numel():
            return drawn
        rows = probabilities[left]
        again = draw(rows, draws.select(left).uniforms(number))
        drawn[left] = again
        left = left[~accepts(rows, again)]
    if left.numel():
        drawn[left] = plain(probabilities[left], draws.select(left).uniforms(ROUNDS))
    return drawn


def _invert(probabilities: Tensor, cumulative: Tensor, target: Tensor) -> Tensor:
    """The first index whose cumulative probability `[B, V]` exceeds the target `[B]`: `[B]`.

    Rounding may put the target at the total; the last possible word is drawn then.
    """
    drawn = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    beyond = (drawn >= probabilities.shape[1]).nonzero()[:, 0]
    if beyond.numel():
        backwards = (probabilities[beyond] > 0).flip(1).to(torch.uint8)
        drawn[beyond] = probabilities.shape[1] - 1 - backwards.argmax(1)
    return drawn
