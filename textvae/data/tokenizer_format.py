"""The file of a tokenizer, but for what it learned: `tokenizers` JSON of each kind."""

from typing import Literal

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

UNKNOWN_WORD = "<unk>"
SMILES_PATTERN = (
    r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$|"
    r"\%[0-9]{2}|[0-9])"
)
"""Atoms, bonds, branches and rings: the regular expression of Schwaller et al. 2019, "Molecular
Transformer"."""

Kind = Literal["word", "bpe", "char", "smiles"]

KINDS: tuple[tuple[Kind, bool], ...] = (
    ("word", False),
    ("word", True),
    ("bpe", False),
    ("char", False),
    ("smiles", False),
)


def file_shape(kind: Kind, lowercase: bool) -> dict[str, object]:
    """All of a file but its vocabulary and merges."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    # [\s\S] is any character, line feeds too, in every dialect of regular expressions.
    each_character, each_smiles_token = (
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in ("[\\s\\S]", SMILES_PATTERN)
    )
    bpe_model: dict[str, object] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    cut = {
        "word": {"type": "WhitespaceSplit"},
        "bpe": byte_level,
        "char": each_character,
        "smiles": each_smiles_token,
    }
    fuse = {"type": "Fuse"}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"} if lowercase else None,
        "pre_tokenizer": cut[kind],
        "post_processor": None,
        "decoder": {"bpe": byte_level, "char": fuse, "smiles": fuse}.get(kind),
        "model": bpe_model if kind == "bpe" else {"type": "WordLevel", "unk_token": UNKNOWN_WORD},
    }


def _byte_characters() -> dict[str, int]:
    """The byte of each character by which byte-level tokenizers write it (GPT-2's)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in shown]
    characters = {chr(byte): byte for byte in shown}
    return characters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


BYTES = _byte_characters()


def byte_level(model: models.BPE) -> Library:
    """A tokenizer of bytes of the library around a model."""
    library = Library(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    return library
