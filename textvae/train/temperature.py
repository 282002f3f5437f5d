"""The temperature of the softmax that suits held-out sentences best, at the end of a run.

A model that has seen its sentences often is too sure of others. One number chosen on the validation
set, by which all logits are divided, takes much of that back (Guo et al. 2017, "On calibration of
modern neural networks"). It goes into the weights, so that likelihood and generation have it alike,
and nothing need know of it.
"""

import math
from collections.abc import Callable

from textvae.model.vae import VAE

WIDTH = 0.1
"""How far apart the logarithms of the temperatures are through which a parabola is laid."""
NEAR = 0.01
"""A vertex so near the middle is the answer: what is not a parabola is then even, and hardly moves
it."""
ROUNDS = 8
"""Most parabolas; a model that is not out by a factor of more than 1.6 needs two or three."""


def calibrate(model: VAE, elbo: Callable[[], float]) -> float:
    """Divide the logits of a model by the temperature that makes a bound the largest, in place.

    -log softmax(l / T) is convex in 1 / T, and a parabola in log T near its minimum: the vertex of
    one through three temperatures WIDTH apart is the next in their middle, until it hardly moves.
    Of all that were tried the best is taken, 1 among them.

    Args:
        model: in evaluation mode.
        elbo: of the validation set under the model as it is when called, nats, always with the
            same draws.

    Returns:
        The temperature T; 1 where the parameters are as they were.
    """
    own = {name: value.clone() for name, value in model.state_dict().items()}

    tried = {0.0: elbo()}

    def at(log_temperature: float) -> float:
        model.load_state_dict(own)  # so that rounding does not depend on what was tried before
        model.decoder.scale_logits(math.exp(-log_temperature))
        tried[log_temperature] = elbo()
        return tried[log_temperature]

    middle = 0.0
    for _ in range(ROUNDS):
        below, here, above = (at(middle + step) for step in (-WIDTH, 0.0, WIDTH))
        bend = below - 2.0 * here + above
        if not bend < 0.0:  # not a maximum, or not a number
            break
        step = WIDTH * (below - above) / (2.0 * bend)
        middle += max(-5.0 * WIDTH, min(5.0 * WIDTH, step))
        if abs(step) <= NEAR:
            at(middle)
            break
    best = max(tried, key=lambda log_temperature: tried[log_temperature])
    model.load_state_dict(own)
    if best != 0.0:
        model.decoder.scale_logits(math.exp(-best))
    return math.exp(best)
