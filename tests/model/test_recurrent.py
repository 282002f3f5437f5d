"""How parameters begin, and the two functions that know where a sentence ends."""

import hashlib
import math

import pytest
import torch
from scipy import stats
from torch import nn

from textvae.config import decode
from textvae.model.initialization import (
    EMBEDDING_RANGE,
    Initializer,
    SeededModule,
    initialize,
)
from textvae.model.recurrent import GRULayer, last_states, reverse_sentences
from textvae.model.vae import ModelConfig
from textvae.randomness import hashes, key, uniforms

B, T, V, E, H, C = 3, 7, 23, 5, 11, 2
LENGTHS = torch.tensor([7, 1, 4])


def tokens() -> torch.Tensor:
    return (hashes(key(1, "tokens"), torch.arange(B * T)) % (V - 2) + 2).view(B, T)


class Words(SeededModule):
    """Some parameters of every sort, made in the order that is asked for."""

    def __init__(self, names: str, vocabulary_size: int = V) -> None:
        super().__init__()
        shapes = {
            "input_embedding": (vocabulary_size, E),
            "other_embedding": (vocabulary_size, E),
            "weight": (H, E),
            "bias": (H,),
        }
        for name in names.split():
            setattr(self, name, nn.Parameter(torch.empty(shapes[name])))
        self.names = names.split()

    def reset_parameters(self, initializer: Initializer) -> None:
        initializer.embedding(*(name for name in self.names if "embedding" in name))
        initializer.linear(*(name for name in self.names if name == "weight"))
        initializer.constant(0.0, *(name for name in self.names if name == "bias"))


def values(names: str, seed: int = 0, vocabulary_size: int = V) -> dict[str, torch.Tensor]:
    module = Words(names, vocabulary_size)
    initialize(module, seed)
    return {name: p.detach() for name, p in module.named_parameters()}


def test_a_parameter_is_a_function_of_the_seed_and_its_name_alone() -> None:
    first = values("input_embedding other_embedding weight bias")
    second = values("bias weight input_embedding")
    for name, value in second.items():
        assert torch.equal(value, first[name])
    assert not torch.equal(first["input_embedding"], first["other_embedding"])
    assert not torch.equal(values("weight", seed=1)["weight"], first["weight"])


def test_more_words_leave_the_vectors_of_the_first_ones_as_they_were() -> None:
    few, many = values("input_embedding"), values("input_embedding", vocabulary_size=2 * V)
    assert torch.equal(few["input_embedding"], many["input_embedding"][:V])


def test_initialising_leaves_the_random_state_of_torch_alone() -> None:
    before = torch.get_rng_state()
    initialize(GRULayer(E, H, C), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_biases_are_zero_and_matrices_uniform_in_their_ranges() -> None:
    layer = GRULayer(41, 53, 17)
    initialize(layer, 5)
    for name, parameter in layer.named_parameters():
        flat = parameter.detach().flatten().double()
        if "bias" in name:
            assert float(flat.abs().max()) == 0.0
            continue
        bound = 1.0 / math.sqrt(parameter.shape[1])
        found = stats.kstest(flat.numpy(), "uniform", args=(-bound, 2 * bound))
        assert found.pvalue > 1e-4, name
        assert float(flat.abs().max()) <= bound
    embedding = values("input_embedding", vocabulary_size=503)["input_embedding"].flatten()
    found = stats.kstest(
        embedding.double().numpy(), "uniform", args=(-EMBEDDING_RANGE, 2 * EMBEDDING_RANGE)
    )
    assert found.pvalue > 1e-4


def test_no_parameter_is_left_unset() -> None:
    norm = nn.LayerNorm(7)
    initialize(norm, 3)
    assert norm.weight.tolist() == [1.0] * 7
    with pytest.raises(TypeError, match="no module fills weight in its reset_parameters"):
        initialize(nn.Embedding(3, 5), 1)


GRU = {"kind": "gru", "hidden_dim": 7}
DEEP = {"kind": "gru", "embedding_dim": 5, "hidden_dim": 7, "num_layers": 2}
GOLDEN: dict[str, tuple[dict[str, object], str]] = {
    "words of its own, two layers, both directions, M2": (
        {
            "latent_dim": 3,
            "encoder": {**DEEP, "bidirectional": True, "posterior": {"kind": "batch_norm"}},
            "decoder": {**DEEP, "tie_embeddings": False},
            "prior": {"kind": "mixture", "max_components": 4},
            "labels": {"kind": "m2"},
        },
        "b0e3b79f496fead4",
    ),
    "words of the decoder": (
        {"latent_dim": 3, "encoder": GRU, "decoder": {**GRU, "embedding_dim": 5}},
        "06915db1e7260ee8",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_seed_gives_the_parameters_that_it_has_always_given(name: str) -> None:
    values, expected = GOLDEN[name]
    model = decode(values, ModelConfig, source="golden").build(
        31, num_labels=4 * ("labels" in values), seed=17
    )
    digest = hashlib.sha256()
    for key_, tensor in sorted(model.state_dict().items()):
        digest.update(key_.encode() + tensor.numpy().tobytes())
    assert digest.hexdigest()[:16] == expected


@pytest.mark.parametrize("condition_dim", [0, C])
def test_a_layer_hands_its_own_parameters_to_the_kernels(condition_dim: int) -> None:
    layer = GRULayer(E, H, condition_dim)
    weights = layer.weights()
    assert weights.input is layer.input_weight
    assert weights.recurrent is layer.recurrent_weight
    assert weights.condition is layer.condition_weight
    assert (weights.condition is None) == (condition_dim == 0)
    assert sum(w is not None for w in weights) == len(list(layer.parameters()))


def test_the_last_state_is_the_one_at_the_true_last_token() -> None:
    states = uniforms(key(1, "states"), torch.arange(B * T), lanes=H).view(B, T, H)
    found = last_states(states, LENGTHS)
    expected = torch.stack([states[b, int(n) - 1] for b, n in enumerate(LENGTHS)])
    assert torch.equal(found, expected)
    assert torch.equal(last_states(states[:1], LENGTHS[:1]), expected[:1])


def test_sentences_are_reversed_within_their_lengths() -> None:
    found = reverse_sentences(tokens(), LENGTHS)
    for row, reversed_row, length in zip(
        tokens().tolist(), found.tolist(), LENGTHS.tolist(), strict=True
    ):
        assert reversed_row == row[:length][::-1] + [0] * (T - length)


def test_reversing_twice_gives_the_sentence_and_zeros() -> None:
    twice = reverse_sentences(reverse_sentences(tokens(), LENGTHS), LENGTHS)
    mask = torch.arange(T) < LENGTHS[:, None]
    assert torch.equal(twice, tokens() * mask)
