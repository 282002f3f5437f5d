"""The opponents of the benchmark compute what textvae computes, given its weights."""

import math

import opponents
import pytest
import torch
from small import small_config
from torch import Tensor

from textvae.data.batching import Batch, TokenArray
from textvae.metrics.likelihood import encode_corpus, importance_weighted
from textvae.model.vae import VAE, sum_by_sentence
from textvae.randomness import hash64, key, normals

V, E, H, Z, N = 53, 13, 19, 5, 23


def build() -> VAE:
    """Large weights and biases that are not zero, so that each of them matters."""
    config = small_config(
        Z,
        E,
        H,
        decoder={"tie_embeddings": False, "output_dropout_rate": 0.0, "skip_connection": False},
    )
    model = config.build(V, seed=2)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            draws = normals(key(3, number), torch.arange(parameter.numel()), lanes=1)
            parameter.mul_(2.0).add_(draws.view(parameter.shape), alpha=0.1)
    return model


def with_weights_of(model: VAE) -> torch.nn.Module:
    opponent: torch.nn.Module = opponents.Opponent(V, E, H, Z)
    opponents.copy_weights(model, opponent)
    return opponent


def sentences() -> list[list[int]]:
    k = key(5, "sentences")
    return [[2 + hash64(k, i, t) % (V - 2) for t in range(hash64(k, i) % 11)] for i in range(N)]


def corpus() -> TokenArray:
    return TokenArray.from_lists(sentences(), V)


def losses() -> tuple[VAE, torch.nn.Module, Tensor, Tensor]:
    """Both models and their summed losses of the same batch at the same noise."""
    model, batch = build(), corpus().batch(torch.arange(N))
    opponent = with_weights_of(model)
    noise = normals(key(7, "noise"), batch.indices, lanes=Z)
    terms = model(batch.inputs, batch.targets, batch.lengths, noise)
    loss = opponent(opponents.as_padded(batch, opponent), noise)
    ours = terms.reconstruction.total + terms.kl.sum()
    return model, opponent, ours, loss.cross_entropy + loss.kl


def test_the_summed_loss_is_the_same() -> None:
    _, _, ours, theirs = losses()
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)


def test_the_gradients_are_the_same() -> None:
    model, opponent, ours, theirs = losses()
    ours.backward()  # type: ignore[no-untyped-call]
    theirs.backward()  # type: ignore[no-untyped-call]
    decoder = model.decoder
    pairs = {
        "output.weight": decoder.output_embedding,
        "output.bias": decoder.output_bias,
        "initial.weight": decoder.initial_weight,
        "decoder.weight_hh_l0": decoder.layers[0].recurrent_weight,
        "decoder.bias_ih_l0": decoder.layers[0].bias,
        "encoder.weight_ih_l0": model.encoder.forward_layers[0].input_weight,
    }
    for name, parameter in pairs.items():
        found = opponent.get_parameter(name).grad
        torch.testing.assert_close(found, parameter.grad, rtol=1e-3, atol=1e-4)
    embedding = opponent.get_parameter("encoder_embedding.weight").grad
    torch.testing.assert_close(embedding[:V], model.encoder.embedding.grad, rtol=1e-3, atol=1e-4)


def test_its_own_padded_batch_has_the_same_loss() -> None:
    model, batch = build(), corpus().batch(torch.arange(N))
    opponent = with_weights_of(model)
    noise = normals(key(7, "noise"), batch.indices, lanes=Z)
    own = opponents.collate(opponents.prepared(sentences(), opponent), opponent.padding)
    torch.testing.assert_close(own.lengths, batch.lengths)
    same, other = opponent(own, noise), opponent(opponents.as_padded(batch, opponent), noise)
    assert same.cross_entropy.item() == pytest.approx(other.cross_entropy.item(), rel=1e-6)
    assert same.kl.item() == pytest.approx(other.kl.item(), rel=1e-6)


def test_the_log_likelihood_of_each_sample_is_the_same() -> None:
    model = build()
    opponent = with_weights_of(model)
    latents = normals(key(11, "latents"), torch.arange(37), lanes=Z)
    ids = max(sentences(), key=len)
    one = TokenArray.from_lists([ids] * 37, V).batch(torch.arange(37))
    with torch.no_grad():
        rows = model.reconstruct(one.inputs, one.targets, one.lengths, latents).rows
    theirs = opponents.log_likelihoods(opponent, opponents.prepared([ids], opponent)[0], latents)
    torch.testing.assert_close(theirs, -sum_by_sentence(rows, one.lengths), rtol=1e-5, atol=1e-4)


def test_importance_weighting_estimates_the_same() -> None:
    model, array = build().eval(), corpus()
    opponent = with_weights_of(model).eval()
    found = importance_weighted(model, array, encode_corpus(model, array), num_samples=997, seed=1)
    opponents.seed_everything(1)
    for i, ids in enumerate(opponents.prepared(sentences()[:5], opponent)):
        theirs = opponents.importance_weighted(opponent, ids, 997)
        error = math.sqrt(2 * float(found.monte_carlo_variance[i]))
        assert abs(theirs + float(found.nll[i])) < 5 * error + 1e-4


def test_training_lowers_the_loss_and_both_optimizers_take_the_same_steps() -> None:
    model, batch = build(), corpus().batch(torch.arange(N))
    finals = []
    for make in (opponents.naive_optimizer, opponents.careful_optimizer):
        opponents.seed_everything(1)
        opponent = with_weights_of(model)
        optimizer, padded = make(opponent, 1e-2), opponents.as_padded(batch, opponent)
        steps = [
            float(opponents.train_step(opponent, optimizer, padded, autocast=False))
            for _ in range(7)
        ]
        assert steps[-1] < steps[0]
        finals.append(steps[-1])
    assert finals[0] == pytest.approx(finals[1], rel=1e-4)


def test_batches_of_equal_lengths_hold_every_sentence_once() -> None:
    opponent = with_weights_of(build())
    loader = opponents.equal_length_batches(
        opponents.prepared(sentences(), opponent), 3, opponent.padding
    )
    batches = list(loader)
    assert len(batches) == len(loader)
    assert all(len(set(batch.lengths.tolist())) == 1 for batch in batches)
    assert all(int((batch.targets == opponent.padding).sum()) == 0 for batch in batches)
    seen = sorted(tuple(row[1:]) for batch in batches for row in batch.inputs.tolist())
    assert seen == sorted(tuple(ids) for ids in sentences())


def test_the_nucleus_is_the_smallest_set_of_that_mass() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.05, 0.9, 0.03, 0.02]]).log()
    kept = opponents.nucleus(logits, 0.7).isfinite()
    assert kept.tolist() == [[True, False, True, False], [False, True, False, False]]


def test_a_latent_decides_what_is_written_and_rows_end_with_the_end() -> None:
    model = build()
    opponent = with_weights_of(model)
    latents = normals(key(13, "latents"), torch.arange(17), lanes=Z)
    opponents.seed_everything(1)
    rows = opponents.sample(opponent, latents, max_length=7)
    assert len(rows) == 17
    assert all(0 < len(row) <= 7 and 0 not in row[:-1] for row in rows)
    assert all(row[-1] == 0 for row in rows if len(row) < 7)


def test_the_paddings_of_a_batch_are_beyond_its_lengths() -> None:
    batch: Batch = corpus().batch(torch.arange(N))
    padded = opponents.as_padded(batch, with_weights_of(build()))
    assert int((padded.targets == V + 1).sum()) == padded.targets.numel() - int(batch.lengths.sum())
