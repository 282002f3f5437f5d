"""A decoder of another kind is a class, its config, and one name: every verb works on it.

Run as a script, this file is the command of a user who has added that name.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config import Config
from textvae.model import decoder as kinds
from textvae.model.initialization import Initializer, SeededModule
from textvae.randomness import Noise


class ToyState(NamedTuple):
    """The last two words, `[B, 2]`, and the condition, `[B, C]`."""

    words: Tensor
    condition: Tensor

    def select(self, rows: Tensor) -> "ToyState":
        return ToyState(self.words[rows], self.condition[rows])

    def join(self, other: "ToyState") -> "ToyState":
        return ToyState(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


class ToyConfig(Config, tag_field="kind", tag="toy"):
    hidden_dim: int = 37

    def build(self, vocabulary_size: int, condition_dim: int) -> "ToyDecoder":
        return ToyDecoder(self.hidden_dim, vocabulary_size, condition_dim)


class ToyDecoder(SeededModule):
    """One hidden layer over the last three words and the condition; it writes by itself."""

    architecture, description = "MLP", "MLP over three words"

    def __init__(self, hidden_dim: int, vocabulary_size: int, condition_dim: int) -> None:
        super().__init__()
        self.word_vectors = nn.Parameter(torch.empty(vocabulary_size + 1, 11))
        self.hidden = nn.Linear(33 + condition_dim, hidden_dim)
        self.output_weight = nn.Parameter(torch.empty(vocabulary_size, hidden_dim))
        self.output_bias = nn.Parameter(torch.empty(vocabulary_size))

    def reset_parameters(self, initializer: Initializer) -> None:
        initializer.embedding("word_vectors")
        initializer.linear("output_weight")
        initializer.constant(0.0, "output_bias")

    def activation_bytes(self, batch: int, length: int) -> int:
        return 2 * 4 * batch * length * (33 + len(self.hidden.weight))

    def forward(
        self,
        inputs: Tensor,
        condition: Tensor,
        *,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        padded = F.pad(inputs, (2, 0), value=len(self.output_bias))
        return self._features(padded.unfold(1, 3, 1), condition[:, None])

    def expanded(self, inputs: Tensor, conditions: Tensor, *, dtype: torch.dtype) -> Tensor:
        return torch.stack([self(inputs, row).transpose(0, 1) for row in conditions], dim=1)

    def scale_logits(self, factor: float) -> float:
        self.output_weight.mul_(factor)
        self.output_bias.mul_(factor)
        return 1.0

    def writer(self, *, dtype: torch.dtype, tabulate: bool) -> "ToyDecoder":
        return self

    def start(self, condition: Tensor) -> ToyState:
        rows = torch.full((len(condition), 2), len(self.output_bias), device=condition.device)
        return ToyState(rows, condition)

    def step(self, tokens: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        window = torch.cat([state.words, tokens[:, None]], dim=1)
        features = self._features(window, state.condition)
        logits = F.linear(features, self.output_weight, self.output_bias)
        return logits, state._replace(words=window[:, 1:])

    def _features(self, windows: Tensor, condition: Tensor) -> Tensor:
        words = self.word_vectors[windows].flatten(-2)
        condition = condition.expand(*words.shape[:-1], -1)
        return self.hidden(torch.cat([words, condition], dim=-1)).tanh()  # type: ignore[no-any-return]


def use_every_verb(data: Path, place: Path, overrides: list[str]) -> None:
    """Train, load, sample, decode by beam, reconstruct, evaluate, report and info."""
    from click.testing import CliRunner  # noqa: PLC0415 -- of the script alone

    from textvae.api.text_vae import TextVAE  # noqa: PLC0415 -- after the name was added
    from textvae.cli.main import program  # noqa: PLC0415 -- as above
    from textvae.evaluate.evaluators import KINDS  # noqa: PLC0415 -- as above

    def call(*arguments: str) -> str:
        result: Any = CliRunner(catch_exceptions=False).invoke(program, arguments)
        assert result.exit_code == 0, result.stderr
        return str(result.stdout)

    run = str(place / "run")
    options = [part for text in overrides for part in ("--set", text)]
    assert "memory: about" in call("train", str(data), "--output", run, "--dry-run", *options)
    call("train", str(data), "--output", run, *options)
    vae = TextVAE.from_pretrained(run, device="cpu")
    assert type(vae.model.decoder) is ToyDecoder
    assert call("sample", run, "-n", "307", "--seed", "3").splitlines() == vae.sample(307, seed=3)
    assert len(call("sample", run, "-n", "5", "--beam-size", "3").splitlines()) == 5
    sentence = "red cat eats"
    assert call("reconstruct", run, sentence).splitlines() == vae.reconstruct([sentence])
    assert call("interpolate", run, sentence, "shy dog sees", "--steps", "3").count("\n") == 3
    names = [name for name in KINDS if "perplexity" not in name]
    figures = call("evaluate", run, "--samples", "3", "--evaluators", ",".join(names), "--json")
    assert "perplexity" in figures
    assert f"decoder     {ToyDecoder.description}\n" in call("info", run)
    call("report", run, str(data / "valid.txt"), "--output", str(place / "page.html"))
    page = (place / "page.html").read_text(encoding="utf-8")
    assert "A MLP variational autoencoder" in page
    assert ToyDecoder.description in page


def test_every_verb_works_on_a_decoder_of_another_kind(
    tiny_data: Path, tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = [text for text in tiny_overrides if not text.startswith("model.decoder")]
    toy = ["model.decoder.kind=toy", "train.calibrate=true"]
    command = [sys.executable, __file__, str(tiny_data), str(tmp_path), *overrides, *toy]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    kinds.DECODERS += (ToyConfig,)
    use_every_verb(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
