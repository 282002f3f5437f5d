"""The temperature of the softmax that fits held-out sentences best, at the end of a run.

A model that has seen its sentences often is overconfident on others. Dividing all logits by one
number, chosen on the validation set, corrects much of that (Guo et al. 2017, "On calibration of
modern neural networks"). It is folded into the weights, so likelihood and generation agree.
"""

from collections.abc import Callable
from typing import NamedTuple

from textvae.model.vae import VAE

WIDTH = 0.1
"""Relative distance of the three factors through which a parabola is fitted."""
FARTHEST = 1.65
"""Largest ratio of a vertex to the middle factor: far from the optimum the bound is no parabola."""
NEAR = 0.01
"""Relative distance at which a vertex is accepted. That the bound is no parabola moves it by some
tenths of a percent, which cost some 1e-4 nats."""
ROUNDS = 16
"""Most parabolas, of two or three validations each; near a factor of 1 two are enough."""


class Calibration(NamedTuple):
    """The temperature by which logits have been divided, and the ELBO with it."""

    temperature: float
    """1 if the parameters are unchanged."""
    elbo: float


def calibrate(model: VAE, elbo: Callable[[], float]) -> Calibration:
    """Divide the logits of a model by the temperature that maximises a bound, in place.

    `elbo` computes the ELBO of the model on the validation set, always with the same noise.

    log softmax(b l) is concave in the factor b = 1 / T. The vertex of a parabola through three
    factors WIDTH apart is the middle of the next three, until it hardly moves. The best of all
    evaluated factors is taken, 1 among them.
    """
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    elbos = {1.0: elbo()}

    def at(factor: float) -> float:
        if factor not in elbos:
            model.load_state_dict(initial)  # so that rounding does not depend on earlier factors
            model.scale_logits(factor)
            elbos[factor] = elbo()
        return elbos[factor]

    middle = 1.0
    for _ in range(ROUNDS):
        below, here, above = (at(middle * (1.0 + offset)) for offset in (-WIDTH, 0.0, WIDTH))
        bend = below - 2.0 * here + above
        if not bend < 0.0:  # no number, or the same for all
            break
        step = 0.5 * WIDTH * (below - above) / bend
        middle *= max(1.0 / FARTHEST, min(FARTHEST, 1.0 + step))
        if abs(step) <= NEAR:
            at(middle)
            break
    best = max(elbos, key=lambda factor: elbos[factor])
    model.load_state_dict(initial)
    if best != 1.0:
        model.scale_logits(best)
    return Calibration(1.0 / best, elbos[best])
