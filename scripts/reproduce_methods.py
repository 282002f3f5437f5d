"""The methods that `reproduce.py` compares, as settings, and published figures to stand beside.

Each method sets everything that distinguishes methods (prior, KL weight, free bits, rate, word
dropout, posterior, procedure), so that a recipe's choice does not leak into it. Sizes, dropout
rates, the optimizer and the number of steps are those of the recipe, the same for every method.
"""

from typing import NamedTuple

_KL_WEIGHT = "train.objective.kl_weight."
_PLAIN = (
    "model.prior.kind=standard_normal",
    f"{_KL_WEIGHT}kind=linear",
    "train.objective.free_bits.kind=none",
    "train.objective.rate.kind=none",
    "train.objective.word_dropout.kind=constant",
    "train.objective.word_dropout.value=0.0",
    "train.objective.beta=1.0",
    "train.procedure.kind=joint",
    "model.encoder.posterior.kind=none",
    "model.decoder.skip_connection=false",
)


class Method(NamedTuple):
    """A way to train."""

    overrides: tuple[str, ...]
    """After those of the recipe; of two for one key the last counts."""
    paper: str
    cost: float = 1.0
    """The most that a step costs, in steps of the others; the number of steps is divided by it."""
    without: tuple[str, ...] = ()
    """Prefixes of settings for all methods that this one does not have."""


def _with(paper: str, *overrides: str, cost: float = 1.0) -> Method:
    has_weight = any(text.startswith(_KL_WEIGHT) for text in overrides)
    annealing = () if has_weight else (f"{_KL_WEIGHT}share=0.25",)
    return Method((*_PLAIN, *annealing, *overrides), paper, cost)


_FREE_BITS = "train.objective.free_bits."
_PER_DIMENSION = (f"{_FREE_BITS}kind=per_dimension", f"{_FREE_BITS}nats=0.25")
METHODS: dict[str, Method] = {
    "recipe": Method((), "the recipe as it is"),
    "language_model": Method(
        (
            *(text for text in _PLAIN if not text.startswith("model.encoder")),
            "model.encoder.kind=none",
            "model.latent_dim=0",
        ),
        "the same decoder without a latent",
        without=("model.encoder.", "model.latent_dim="),
    ),
    "plain": _with(
        "Kingma and Welling 2014",
        f"{_KL_WEIGHT}kind=constant",
        f"{_KL_WEIGHT}value=1.0",
    ),
    "annealed": _with("Bowman et al. 2016"),
    "word_dropout": _with("Bowman et al. 2016", "train.objective.word_dropout.value=0.3"),
    "cyclical": _with("Fu et al. 2019", f"{_KL_WEIGHT}kind=cyclical"),
    "beta": _with("Higgins et al. 2017", "train.objective.beta=0.5"),
    "free_bits_dimension": _with("Kingma et al. 2016", *_PER_DIMENSION),
    "fitted_prior": _with(
        "the same, and the prior fitted to the aggregate posterior",
        "model.prior.kind=gaussian",
        *_PER_DIMENSION,
    ),
    "free_bits_sentence_dimension": _with(
        "Li et al. 2019, without pre-training",
        f"{_FREE_BITS}kind=per_sentence_and_dimension",
        f"{_FREE_BITS}nats=0.25",
    ),
    "free_bits_sentence": _with(
        "Kingma et al. 2016", f"{_FREE_BITS}kind=per_sentence", f"{_FREE_BITS}nats=8.0"
    ),
    "free_bits_total": _with(
        "Kingma et al. 2016", f"{_FREE_BITS}kind=total", f"{_FREE_BITS}nats=8.0"
    ),
    "lagrangian": _with(
        "Pelsmaeker and Aziz 2020",
        "train.objective.rate.kind=lagrangian",
        "train.objective.rate.nats=8.0",
    ),
    "control": _with(
        "Shao et al. 2020", "train.objective.rate.kind=control", "train.objective.rate.nats=8.0"
    ),
    "batch_norm": _with("Zhu et al. 2020", "model.encoder.posterior.kind=batch_norm"),
    "pretraining": _with(
        "Li et al. 2019",
        "train.procedure.kind=pretraining",
        f"{_FREE_BITS}kind=per_sentence_and_dimension",
        f"{_FREE_BITS}nats=0.25",
    ),
    # At most 10 updates of the encoder before each of the first tenth of the steps: twice the work.
    "aggressive": _with(
        "He et al. 2019",
        "train.procedure.kind=aggressive",
        "train.procedure.share=0.1",
        "train.procedure.max_updates=10",
        cost=2.0,
    ),
    "skip": _with("Dieng et al. 2019", "model.decoder.skip_connection=true"),
}


class Published(NamedTuple):
    """Figures of a paper; None where it states none."""

    corpus: str
    """The name of the directory of the data."""
    method: str
    """A key of METHODS, where it is one of them."""
    name: str
    perplexity: float
    mutual_information: float | None
    active_units: int | None
    protocol: str
    source: str


_OPTIMUS = "as quoted by Li et al. 2020 (Optimus)"
_WORDS = "LSTM, latent 32, words and </s>, IW-500 (by the default of the authors' code)"
_OTHER_TRAINING_TEXT = f"{_WORDS}; trained on other text than here"

PUBLISHED: tuple[Published, ...] = (
    Published("ptb", "language_model", "LSTM", 100.47, None, None, _WORDS, _OPTIMUS),
    Published("ptb", "annealed", "VAE, annealed", 101.40, 0.0, None, _WORDS, _OPTIMUS),
    Published("ptb", "cyclical", "cyclical", 108.81, 1.27, 5, _WORDS, _OPTIMUS),
    Published("ptb", "aggressive", "aggressive", 99.83, 0.83, 4, _WORDS, _OPTIMUS),
    Published("ptb", "pretraining", "AE and free bits", 96.86, 5.31, 32, _WORDS, _OPTIMUS),
    Published("snli", "language_model", "LSTM", 21.44, None, None, _OTHER_TRAINING_TEXT, _OPTIMUS),
    Published("snli", "annealed", "VAE, annealed", 21.50, 1.45, 2, _OTHER_TRAINING_TEXT, _OPTIMUS),
    Published("snli", "cyclical", "cyclical", 23.67, 3.60, 5, _OTHER_TRAINING_TEXT, _OPTIMUS),
    Published("snli", "aggressive", "aggressive", 21.16, 1.38, 5, _OTHER_TRAINING_TEXT, _OPTIMUS),
    Published(
        "snli", "pretraining", "AE and free bits", 21.64, 7.71, 32, _OTHER_TRAINING_TEXT, _OPTIMUS
    ),
)
