"""Beam search: the likeliest sentences for a latent, for many latents in parallel.

A beam of K places follows K hypotheses. At each position the likeliest continuations of all of them
fill the places that are free; one that ends keeps its place (Bahdanau et al. 2015, whose beams
shrink in this way), so that K sentences are found at most and a beam of 1 is greedy decoding. The
search of a latent stops when none of its open hypotheses can come among the best any more.

Letters: S latents searched side by side, K places, L words at most, and those of the contracts.
"""

from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.errors import ConfigError
from textvae.generate.constraints import FREE, Constraint, forced_tokens
from textvae.generate.decoding import CUDA_POSITIONS, ROWS, WORDS
from textvae.generate.rules import Rule, Written, check_rules, refuse_no_sentence, steer
from textvae.generate.utf8 import TextMask
from textvae.model.interfaces import END, DecoderState, Writer
from textvae.model.vae import VAE

FIRST_WORDS = 32
"""Words that a beam has room for at first; it doubles whenever they are written."""


class GNMTPenalty(Config, tag_field="kind", tag="gnmt"):
    """Log-likelihood / ((5 + tokens) / 6)^alpha (Wu et al. 2016, equation 14); 0 is none."""

    alpha: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0

    def divisor(self, tokens: int) -> float:
        """The divisor for a sentence of that many tokens, `</s>` counted."""
        return float(((5.0 + tokens) / 6.0) ** self.alpha)


class TokenMean(Config, tag_field="kind", tag="token_mean"):
    """Log-likelihood / tokens, `</s>` counted: nats per token."""

    def divisor(self, tokens: int) -> float:
        """The number of tokens."""
        return float(tokens)


LengthPenalty = GNMTPenalty | TokenMean


class Beam(Config, tag_field="kind", tag="beam"):
    """Beam search for the sentences with the highest score; nothing is drawn."""

    size: Annotated[int, Meta(ge=1, le=1024)] = 5
    """Hypotheses followed for each latent."""
    length_penalty: LengthPenalty = GNMTPenalty()
    """The divisor of log-likelihoods, which never falls with the length."""
    rules: tuple[Rule, ...] = ()
    """Rules that forbid words or lower their scores."""


class Hypothesis(NamedTuple):
    """A sentence from a beam search."""

    words: list[int]
    """Ids without `</s>`."""
    log_likelihood: float
    """log p(x|z) of the words and `</s>`, nats, whether or not it was cut."""
    score: float
    """The order of the hypotheses: the log-likelihood, less the cost of a `RepetitionPenalty`, over
    the length penalty."""
    finished: bool
    """False if it was cut at `max_length` words, where a word was likelier than `</s>`."""


class _Open(NamedTuple):
    """The beams of S latents, all with the same number of words."""

    rows: Tensor
    """int64 `[S]`: which of the latents."""
    totals: Tensor
    """float64 `[S, K]`: the log-likelihoods less what the rules cost, nats; -infinity where a
    place holds no open hypothesis."""
    log_likelihoods: Tensor
    """float64 `[S, K]`, nats; anything where there is no hypothesis."""
    words: Tensor
    """int64 `[S, K, L]`, of which the first few are written."""
    tokens: Tensor
    """int64 `[S, K]`: the last of them, or `<s>`."""
    text_states: Tensor
    """int64 `[S, K]`: of a `TextMask`."""
    state: DecoderState
    """`S * K` rows."""

    def select(self, latents: Tensor) -> "_Open":
        """The beams of these latents, int64 indices."""
        places = torch.arange(self.tokens.shape[1], device=latents.device)
        state = self.state.select((latents[:, None] * places.shape[0] + places).flatten())
        parts = (part[latents] for part in self[:6])
        rows, totals, log_likelihoods, words, tokens, text_states = parts
        return _Open(rows, totals, log_likelihoods, words, tokens, text_states, state)


class _Step(NamedTuple):
    """The continuations in the free places, likeliest first; all `[S, K]`."""

    totals: Tensor
    """float64, as in `_Open`, and so are the log-likelihoods."""
    log_likelihoods: Tensor
    parents: Tensor
    """int64: the place each comes from."""
    tokens: Tensor
    """int64: the word each adds."""


class _Ended(NamedTuple):
    """The beams at a position, and which of their hypotheses end there."""

    beams: _Open
    ended: Tensor
    """int64 `[S, K]`: 0 open, 1 finished, 2 cut; or bool."""
    length: int
    """Words written."""
    divisor: float
    """Divisor of the scores."""


class _Pool(NamedTuple):
    """The finished sentences of N latents, in the order in which they ended."""

    counts: Tensor
    """int64 `[N]`."""
    log_likelihoods: Tensor
    """float64 `[N, K]`, nats; -infinity where there is none yet. So are the scores."""
    scores: Tensor
    words: Tensor
    """int64 `[N, K, L]`, L as in `_Open`."""
    lengths: Tensor
    """int64 `[N, K]`, and so is whether they finished, in bool."""
    finished: Tensor

    def add(self, block: list[_Ended]) -> None:
        """Add the hypotheses that ended at some positions of the same beams, in their order."""
        ended = torch.stack([part.ended for part in block], 1)  # [S, P, K]
        which, position, place = ended.nonzero(as_tuple=True)
        row, indices = block[0].beams.rows[which], (which, position, place)
        ranks = (ended > 0).flatten(1).cumsum(1).view(ended.shape) - 1
        slot = self.counts[row] + ranks[indices]
        beams = [part.beams for part in block]
        scores = torch.stack([part.beams.totals / part.divisor for part in block], 1)
        likelihoods = torch.stack([b.log_likelihoods for b in beams], 1)
        self.log_likelihoods[row, slot] = likelihoods[indices]
        self.scores[row, slot] = scores[indices]
        width = beams[-1].words.shape[2]  # earlier ones may have less room
        words = [
            b.words if b.words.shape[2] == width else F.pad(b.words, (0, width - b.words.shape[2]))
            for b in beams
        ]
        self.words[row, slot, :width] = torch.stack(words, 1)[indices]
        self.lengths[row, slot] = block[0].length + position
        self.finished[row, slot] = ended[indices] == 1
        self.counts[block[0].beams.rows] += (ended > 0).flatten(1).sum(1)


def beam_search(
    model: VAE,
    latents: Tensor,
    beam: Beam,
    *,
    num_best: int = 1,
    max_length: int,
    constraint: Constraint = FREE,
    dtype: torch.dtype = torch.float32,
    mask: TextMask | None = None,
) -> list[list[Hypothesis]]:
    """The best sentences for each latent `[N, Z]`, the best first.

    A sentence of `max_length` words is scored with the `</s>` that has to follow. The result
    for a latent does not depend on the others, nor the best on `num_best`.

    Args:
        model: whose decoder writes.
        latents: `[N, Z]`, moved to the model's device.
        beam: its width and scores.
        num_best: hypotheses per latent; fewer are returned only if no more sentences exist.
        max_length: the most words of a sentence.
        constraint: words that are not written, and words to begin with.
        dtype: of the matrix products.
        mask: of a byte-level tokenizer, on the model's device. Log-likelihoods stay the model's.

    Raises:
        ConfigError: more hypotheses than the beam has places, or rules that cannot be met.
    """
    check_rules(beam.rules, max_length)
    if not 1 <= num_best <= beam.size:
        raise ConfigError(
            f"{num_best} hypotheses of a beam of {beam.size}: ask for 1 to {beam.size}"
        )
    vocabulary_size, block_size = model.decoder.output_bias.shape[0], max(1, ROWS // beam.size)
    tabulate = latents.shape[0] * beam.size * WORDS > vocabulary_size
    writer = model.decoder.writer(dtype=dtype, tabulate=tabulate)
    hypotheses: list[list[Hypothesis]] = []
    if not latents.shape[0]:
        return hypotheses
    with torch.inference_mode():
        for block in latents.split(block_size):  # type: ignore[no-untyped-call]
            points, start = block.to(model.device), vocabulary_size
            pool = _search(writer, points, beam, num_best, max_length, start, constraint, mask)
            hypotheses += _best(pool, num_best)
    return hypotheses


def _search(
    writer: Writer[Any],
    latents: Tensor,
    beam: Beam,
    num_best: int,
    max_length: int,
    start: int,
    constraint: Constraint,
    mask: TextMask | None,
) -> _Pool:
    """Search for latents `[S, Z]` until each has its best."""
    pool = _empty_pool(latents, beam.size)
    active = _begin(writer, latents, beam.size, start)
    # On CUDA the host looks at several positions together: what a beam finds after it could have
    # stopped comes behind the best, and only takes places in the pool.
    together = 2 * CUDA_POSITIONS if latents.is_cuda else 1  # it waits twice
    block: list[_Ended] = []
    places = torch.arange(beam.size, device=latents.device)
    room = beam.size - pool.counts[active.rows, None]
    first = torch.arange(latents.shape[0], device=latents.device)[:, None] * beam.size
    rules = (*beam.rules, *constraint.rules)
    forced = forced_tokens(writer, latents, constraint, None, seed=0, max_length=max_length)
    plain = mask is None and not rules and forced is None
    for position in range(max_length + 1):
        if position == active.words.shape[2]:  # room for twice as many words
            active = active._replace(words=F.pad(active.words, (0, position)))
            pool = pool._replace(words=F.pad(pool.words, (0, position)))
        logits, state = writer.step(active.tokens.flatten(), active.state)
        steered = logits
        if mask is not None:
            words_left = max_length - 1 - position
            steered = mask.apply(logits, active.text_states.flatten(), words_left)
        if rules:
            history = active.words[:, :, :position].flatten(0, 1)
            lengths = torch.full_like(active.tokens, position).flatten()
            steered = steer(steered, rules, Written(history, lengths))
        if forced is not None and position < forced.shape[1]:
            steered = _only(steered, logits, forced[active.rows, position], beam.size)
        divisor = beam.length_penalty.divisor(position + 1)
        if position == max_length:
            last, ended = _close(active, logits, steered)
            pool.add([*block, _Ended(last, ended, position, divisor)])
            break
        step = _extend(active, logits, steered, places < room, plain=plain)
        active = _follow(active._replace(state=state), step, first, position, mask)
        going = step.totals.masked_fill(step.tokens == END, -torch.inf)
        ended = going != step.totals  # not where a place holds no hypothesis
        block.append(_Ended(active, ended, position, divisor))
        active = active._replace(totals=going)
        if len(block) < together:
            room = room - ended.sum(1, keepdim=True)
            continue
        pool.add(block)
        block = []
        # Totals only fall and divisors only grow: no open hypothesis can end above this.
        bound = going.amax(1) / beam.length_penalty.divisor(max_length + 1)
        worst = pool.scores[active.rows].topk(num_best, dim=1).values[:, -1]
        promising = (bound > worst).nonzero()[:, 0]
        if not promising.numel():
            break
        if promising.shape[0] < bound.shape[0]:
            active = active.select(promising)
        room = beam.size - pool.counts[active.rows, None]
    return pool


def _only(steered: Tensor, logits: Tensor, tokens: Tensor, size: int) -> Tensor:
    """Steered logits `[S * K, V]` with nothing but the tokens `[S]` that a sentence begins with.

    These keep the logits of the model; -1 leaves a row as it is.
    """
    tokens = tokens.repeat_interleave(size)[:, None]
    columns = tokens.clamp(min=0)
    forced = logits.gather(1, columns)
    alone = torch.full_like(logits, -torch.inf).scatter_(1, columns, forced)
    return torch.where(tokens >= 0, alone, steered)


def _begin(writer: Writer[Any], latents: Tensor, size: int, start: int) -> _Open:
    """Beams before their first word: one hypothesis each, the other places empty."""
    count, device = latents.shape[0], latents.device
    totals = torch.full((count, size), -torch.inf, dtype=torch.float64, device=device)
    totals[:, 0] = 0.0
    words = torch.zeros(count, size, FIRST_WORDS, dtype=torch.int64, device=device)
    tokens = torch.full((count, size), start, dtype=torch.int64, device=device)
    state = writer.start(latents.repeat_interleave(size, dim=0))
    rows = torch.arange(count, device=device)
    text_states = torch.zeros_like(tokens)
    return _Open(rows, totals, torch.zeros_like(totals), words, tokens, text_states, state)


def _empty_pool(latents: Tensor, size: int) -> _Pool:
    count, device = latents.shape[0], latents.device
    nothing = torch.full((count, size), -torch.inf, dtype=torch.float64, device=device)
    counts = torch.zeros(count, size, dtype=torch.int64, device=device)
    words = torch.zeros(count, size, FIRST_WORDS, dtype=torch.int64, device=device)
    return _Pool(counts[:, 0].clone(), nothing, nothing.clone(), words, counts, counts.bool())


def _extend(
    active: _Open, logits: Tensor, steered: Tensor, is_free: Tensor, *, plain: bool
) -> _Step:
    """The likeliest continuations, as many as places are free.

    Args:
        active: the open hypotheses.
        logits: `[S * K, V]`, as the model gives them.
        steered: `[S * K, V]`, as the rules left them.
        is_free: bool `[S, K]`, as many places of each beam as are free.
        plain: nothing steers the search, so that the totals are the log-likelihoods.
    """
    beams, size = active.totals.shape
    # The best of each hypothesis by its logits themselves: added to a sum in float32, two words
    # that differ in the last bits would become equal, and a beam of 1 would not be greedy.
    best = steered.topk(min(size, logits.shape[1]), dim=1)
    normalizer = logits.logsumexp(1, keepdim=True)
    best_log_probs = best.values.double() - normalizer
    total = (active.totals.view(-1, 1) + best_log_probs).view(beams, -1)
    ordered, order = total.sort(dim=1, descending=True, stable=True)
    order = order[:, :size]
    totals = torch.where(is_free, ordered[:, :size], -torch.inf)
    tokens = best.indices.reshape(beams, -1).gather(1, order)
    parents = order // best.indices.shape[1]
    if plain:
        return _Step(totals, totals, parents, tokens)
    log_probs = logits.gather(1, best.indices).double() - normalizer
    log_likelihoods = (active.log_likelihoods.view(-1, 1) + log_probs).view(beams, -1)
    return _Step(totals, log_likelihoods.gather(1, order), parents, tokens)


def _follow(
    active: _Open, step: _Step, first: Tensor, position: int, mask: TextMask | None
) -> _Open:
    """The hypotheses after a step, their words and states moved to their new places.

    `first` are the rows of the first place of each beam, int64 `[at least S, 1]`.
    """
    beams, _, limit = active.words.shape
    words = active.words.gather(1, step.parents[:, :, None].expand(-1, -1, limit))
    words[:, :, position] = step.tokens
    state = active.state.select((first[:beams] + step.parents).flatten())
    text_states = active.text_states
    if mask is not None:
        text_states = mask.follow(text_states.gather(1, step.parents), step.tokens)
    return _Open(
        active.rows, step.totals, step.log_likelihoods, words, step.tokens, text_states, state
    )


def _close(active: _Open, logits: Tensor, steered: Tensor) -> tuple[_Open, Tensor]:
    """End every open hypothesis: 1 if `</s>` was likeliest, 2 if it is cut."""
    shape = active.tokens.shape
    normalizer = logits.logsumexp(1).double()
    score, log_prob = ((x[:, END].double() - normalizer).view(shape) for x in (steered, logits))
    totals, log_likelihoods = active.totals + score, active.log_likelihoods + log_prob
    last = active._replace(totals=totals, log_likelihoods=log_likelihoods)
    ended = torch.where(steered.argmax(1).view(shape) == END, 1, 2)
    return last, ended.masked_fill(~totals.isfinite(), 0)


def _best(pool: _Pool, num_best: int) -> list[list[Hypothesis]]:
    """The best of each pool; of equal scores the one that ended first."""
    if not bool(pool.counts.all()):
        refuse_no_sentence()
    order = pool.scores.argsort(dim=1, descending=True, stable=True)[:, :num_best]
    parts = (pool.log_likelihoods, pool.scores, pool.lengths, pool.finished)
    columns = [part.gather(1, order).tolist() for part in parts]
    words = pool.words.gather(1, order[:, :, None].expand(-1, -1, pool.words.shape[2])).tolist()
    return [
        [
            Hypothesis(ids[:length], log_likelihood, score, finished)
            for ids, log_likelihood, score, length, finished in zip(*beam, strict=True)
        ][: int(count)]
        for count, *beam in zip(pool.counts.tolist(), words, *columns, strict=True)
    ]
