"""AUROC of `textvae score` for text of another language and random letters against test sentences.

python scripts/foreign_text.py DATA MODEL CORPUS

DATA has a directory per corpus with `test.txt.gz`; MODEL is a run or model directory of a word
model, CORPUS the name of its own corpus. With a closed and with an open vocabulary.
"""

import gzip
from pathlib import Path

import click
import torch

from textvae.api.score import score
from textvae.api.score_reference import reference_of
from textvae.api.text_vae import TextVAE
from textvae.randomness import key, uniforms

SENTENCES = 300
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def read_test(folder: Path) -> list[str]:
    """The first test sentences of a corpus."""
    with gzip.open(folder / "test.txt.gz", "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()][:SENTENCES]


def random_letters() -> list[str]:
    """Lines of 4 to 12 words of 2 to 9 letters."""
    numbers = torch.arange(SENTENCES)
    draws = uniforms(key(0, "random letters"), numbers, lanes=1 + 12 * 10).tolist()
    lines = []
    for first, *rest in draws:
        words = []
        for place in range(4 + int(9 * first)):
            size, *letters = rest[10 * place : 10 * place + 10]
            words.append("".join(LETTERS[int(26 * one)] for one in letters[: 2 + int(8 * size)]))
        lines.append(" ".join(words))
    return lines


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("corpus")
def main(data: Path, model: Path, corpus: str) -> None:
    """Print a row per vocabulary, score and kind of text."""
    vae = TextVAE.from_pretrained(model, device="cpu")
    closed = TextVAE(vae.model, vae.tokenizer, vae.config, results=vae.results, path=vae.path)
    others = {
        "German": read_test(data / "multi30k_de"),
        "Japanese": read_test(data / "tanaka_ja"),
        "random letters": random_letters(),
    }
    normal = read_test(data / corpus)
    for vocabulary, scored in (("closed", closed), ("open", vae)):
        reference = reference_of(scored, keep=False)
        for kind in ("nll_per_token", "nll"):

            def scores(texts: list[str], by: str = kind, vae: TextVAE = scored) -> torch.Tensor:
                rows = score(vae, texts, reference, by=by, too_long="cut")  # noqa: B023 -- at once
                return torch.tensor([one.score for one in rows])

            low = scores(normal)
            for name, texts in others.items():
                high = scores(texts)[:, None]
                auroc = (high > low).double().mean() + 0.5 * (high == low).double().mean()
                click.echo(f"{vocabulary:8}{kind:16}{name:16}{float(auroc):.4f}")


if __name__ == "__main__":
    main()
