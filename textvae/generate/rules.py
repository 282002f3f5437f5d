"""Rules that change logits by what has been written: frozen structs, for every strategy.

A rule reads nothing but the words of its own sentence, so that a sentence stays a function of its
latent and of its draws. The order of rules makes no difference. Letters: L words at most.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, NoReturn, Protocol

import torch
from msgspec import Meta
from torch import Tensor

from textvae.config import Config
from textvae.errors import ConfigError
from textvae.model.interfaces import END, UNKNOWN


class Written(NamedTuple):
    """The words of B sentences so far."""

    words: Tensor
    """int64 `[B, L]`, `</s>` beyond the lengths."""
    lengths: Tensor
    """int64 `[B]`."""


class MinLength(Config, tag_field="kind", tag="min_length"):
    """No `</s>` before so many words."""

    tokens: Annotated[int, Meta(ge=0)] = 1

    def __call__(self, logits: Tensor, written: Written) -> None:
        """Change logits `[B, V]` in place."""
        logits[:, END].masked_fill_(written.lengths < self.tokens, -torch.inf)


class RepetitionPenalty(Config, tag_field="kind", tag="repetition_penalty"):
    """Logits of the words already written over `factor` (Keskar et al. 2019); 1 changes nothing.

    A negative logit is multiplied instead: divided, as in the paper, it would be rewarded.
    """

    factor: Annotated[float, Meta(ge=1.0, le=1000.0)] = 1.2

    def __call__(self, logits: Tensor, written: Written) -> None:
        """Change logits `[B, V]` in place."""
        # Beyond the lengths lies `</s>`, which no sentence has written: it keeps its logit.
        before = logits.gather(1, written.words)
        penalized = torch.where(before > 0, before / self.factor, before * self.factor)
        logits.scatter_(1, written.words, torch.where(written.words == END, before, penalized))


class NoRepeatedNgrams(Config, tag_field="kind", tag="no_repeated_ngrams"):
    """No `size` words in a row that the sentence has already (Paulus et al. 2018)."""

    size: Annotated[int, Meta(ge=1)] = 3

    def __call__(self, logits: Tensor, written: Written) -> None:
        """Change logits `[B, V]` in place."""
        words, lengths = written
        if words.shape[1] < self.size:
            return
        windows = words.unfold(1, self.size, 1)  # [B, L - size + 1, size]
        device = words.device
        # The last size - 1 words, which the next one would complete.
        last = lengths[:, None] + torch.arange(1 - self.size, 0, device=device)
        context = words.gather(1, last.clamp(min=0))
        begins = torch.arange(windows.shape[1], device=device)
        there = begins + self.size <= lengths[:, None]
        there &= (windows[:, :, :-1] == context[:, None]).all(2)
        # As above: a window that does not match says something of `</s>`, and changes nothing.
        blocked = torch.where(there, windows[:, :, -1], END)
        values = torch.where(there, -torch.inf, logits[:, END, None])
        logits.scatter_(1, blocked, values)


class BannedTokens(Config, tag_field="kind", tag="banned_tokens"):
    """Tokens that are never written; the others share their probability in proportion."""

    tokens: tuple[Annotated[int, Meta(ge=1)], ...] = (UNKNOWN,)

    def __call__(self, logits: Tensor, written: Written) -> None:
        """Change logits `[B, V]` in place."""
        for token in self.tokens:  # by number: a list would be copied to a device first
            logits[:, token] = -torch.inf


Rule = MinLength | RepetitionPenalty | NoRepeatedNgrams | BannedTokens


class AnyRule(Protocol):
    """A rule, or a restriction that depends on the vocabulary: `generate.constraints`."""

    def __call__(self, logits: Tensor, written: Written) -> None:
        """Change logits `[B, V]` in place."""


def steer(logits: Tensor, rules: Sequence[AnyRule], written: Written) -> Tensor:
    """Apply the rules to logits `[B, V]`: new logits, or the same tensor without rules.

    A row of which nothing is left holds -infinity only: see `refuse_nothing`.
    """
    if not rules:
        return logits
    logits = logits.clone()
    for rule in rules:
        rule(logits, written)
    return logits


def refuse_no_sentence() -> NoReturn:
    """Raise the ConfigError of a sentence that can neither go on nor end."""
    raise ConfigError(
        "the rules leave a sentence no word to go on with and do not let it end; "
        "block longer n-grams, lower the minimum length or ban fewer words"
    )


def refuse_nothing(logits: Tensor) -> None:
    """Refuse logits `[B, V]` of which a row leaves no word: a ConfigError."""
    if bool(logits.amax(1).isneginf().any()):
        refuse_no_sentence()


def check_rules(rules: Sequence[Rule], max_length: int) -> None:
    """Refuse rules that no sentence of `max_length` tokens can meet: a ConfigError."""
    for rule in rules:
        if isinstance(rule, MinLength) and rule.tokens > max_length:
            raise ConfigError(
                f"a sentence of at least {rule.tokens} and at most {max_length} tokens: there is "
                "none; lower the minimum length or raise the maximum"
            )
