"""The temperature of the softmax that suits held-out sentences best, at the end of a run.

A model that has seen its sentences often is too sure of others. One number chosen on the validation
set, by which all logits are divided, takes much of that back (Guo et al. 2017, "On calibration of
modern neural networks"). It goes into the weights, so that likelihood and generation have it alike,
and nothing need know of it.
"""

from collections.abc import Callable
from typing import NamedTuple

from textvae.model.vae import VAE

WIDTH = 0.1
"""How far apart the factors are through which a parabola is laid, as a share of the middle one."""
FARTHEST = 1.65
"""The most by which a vertex may be larger or smaller than the middle one: far from the optimum
the bound is no parabola."""
NEAR = 0.01
"""A vertex that is nearer than this share is the answer. That the bound is no parabola moves it by
some tenths of a percent, which cost some 1e-4 nats."""
ROUNDS = 16
"""Most parabolas, of two or three validations each. Near a factor of 1 two will do."""


class Calibration(NamedTuple):
    """What `calibrate` found."""

    temperature: float
    """1 where the parameters are as they were."""
    elbo: float
    """At that temperature."""


def calibrate(model: VAE, elbo: Callable[[], float]) -> Calibration:
    """Divide the logits of a model by the temperature that makes a bound the largest, in place.

    log softmax(b l) is concave in the factor b = 1 / T. The vertex of a parabola through three
    factors WIDTH apart is the middle one of the next three, until it hardly moves. Of all that
    were tried the best is taken, 1 among them.

    Args:
        model: in evaluation mode.
        elbo: of the validation set under the model as it is when called, nats, always with the
            same draws.
    """
    own = {name: value.clone() for name, value in model.state_dict().items()}
    tried = {1.0: elbo()}

    def at(factor: float) -> float:
        if factor not in tried:
            model.load_state_dict(own)  # so that rounding does not depend on what was tried before
            model.scale_logits(factor)
            tried[factor] = elbo()
        return tried[factor]

    middle = 1.0
    for _ in range(ROUNDS):
        below, here, above = (at(middle * (1.0 + share)) for share in (-WIDTH, 0.0, WIDTH))
        bend = below - 2.0 * here + above
        if not bend < 0.0:  # no number, or the same for all
            break
        step = 0.5 * WIDTH * (below - above) / bend
        middle *= max(1.0 / FARTHEST, min(FARTHEST, 1.0 + step))
        if abs(step) <= NEAR:
            at(middle)
            break
    best = max(tried, key=lambda factor: tried[factor])
    model.load_state_dict(own)
    if best != 1.0:
        model.scale_logits(best)
    return Calibration(1.0 / best, tried[best])
