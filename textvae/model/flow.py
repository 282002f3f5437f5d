"""An autoregressive flow: its density, its map to standard normals and back, and its fit.

    log p(y) = sum_d log sum_k w_dk N(y_d; mu_dk, s_dk^2),   w, mu, s functions of y_1, ..., y_(d-1)

The parameters of all conditionals come from one network with masked weights (MADE, Germain et al.
2015; with mixtures, RNADE, Uria et al. 2013) in residual blocks (Nash and Durkan 2019). Normals
u_d = Phi^-1(F_d(y_d)) of the conditional distribution functions make it a normalizing flow
(Rezende and Mohamed 2015; Ho et al. 2019 call the map a mixture CDF flow), with an exact inverse.

Pure mathematics, natural logarithms, in the dtype of the tensors. Letters: N points, Z dimensions,
H hidden units, K Gaussians for each dimension.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.model.gaussian import LOG_TWO_PI, DiagonalGaussian
from textvae.randomness import key, normals, shuffled

ROWS = 1024
"""Points whose density is worked out at once: bounds the memory, `[ROWS, 3, Z, K]`."""
BISECTIONS = 20
"""Halvings of an interval in which a distribution function is inverted, to a millionth of it."""
NEWTON_STEPS = 3
"""Steps of Newton's method after them, each of which doubles the digits: enough for float64."""
MAX_LOG_SCALE = 5.0
"""Standard deviations lie between exp(-5) and exp(5) of those of the points."""


class FlowShape(NamedTuple):
    """Sizes of a flow."""

    dim: int
    """Z."""
    hidden_dim: int
    """H."""
    num_blocks: int
    """Residual blocks of two layers each."""
    num_components: int
    """K."""

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of `AutoregressiveFlow`, by its name."""
        outputs = 3 * self.dim * self.num_components
        return {
            "input_weight": (self.hidden_dim, self.dim),
            "input_bias": (self.hidden_dim,),
            "hidden_weight": (self.num_blocks, 2, self.hidden_dim, self.hidden_dim),
            "hidden_bias": (self.num_blocks, 2, self.hidden_dim),
            "output_weight": (outputs, self.hidden_dim),
            "direct_weight": (outputs, self.dim),
            "output_bias": (outputs,),
        }

    def degrees(self) -> Tensor:
        """The last input that each hidden unit may see, int64 `[H]`, ascending."""
        return torch.arange(self.hidden_dim) * max(1, self.dim - 1) // self.hidden_dim

    def masks(self) -> dict[str, Tensor]:
        """1 where a weight may be other than 0, by the names of the weights."""
        inputs, hidden = torch.arange(self.dim), self.degrees()
        outputs = inputs.repeat_interleave(3 * self.num_components)
        return {
            "input_weight": (hidden[:, None] >= inputs).float(),
            "hidden_weight": (hidden[:, None] >= hidden).float(),
            "output_weight": (outputs[:, None] > hidden).float(),
            "direct_weight": (outputs[:, None] > inputs).float(),
        }


class Conditionals(NamedTuple):
    """A mixture of Gaussians for each dimension of each point, `[N, Z, K]`."""

    log_weights: Tensor
    mean: Tensor
    log_scale: Tensor

    def log_prob(self, points: Tensor) -> Tensor:
        """Log-densities of `[N, Z]`, nats, dimension by dimension."""
        distance = (points[..., None] - self.mean) * (-self.log_scale).exp()
        terms = self.log_weights - self.log_scale - 0.5 * (distance.square() + LOG_TWO_PI)
        density: Tensor = terms.logsumexp(-1)
        return density

    def to_normals(self, points: Tensor) -> Tensor:
        """Phi^-1(F(y)) of `[N, Z]`, from the nearer tail."""
        below, above = self._log_tails(points)
        quantile: Tensor = torch.special.ndtri(torch.minimum(below, above).exp())
        return torch.where(below <= above, quantile, -quantile)

    def from_normals(self, noise: Tensor) -> Tensor:
        """F^-1(Phi(u)) of `[N, Z]`, between the Gaussians' own quantiles.

        By bisection and then Newton's method for the logarithm of the nearer tail.
        """
        ends = self.mean + self.log_scale.exp() * noise[..., None]
        low, high = ends.amin(-1), ends.amax(-1)
        is_left = noise <= 0
        aim = torch.special.log_ndtr(torch.where(is_left, noise, -noise))
        middle = 0.5 * (low + high)
        for _ in range(BISECTIONS):
            below, above = self._log_tails(middle)
            is_under = torch.where(is_left, below < aim, above > aim)
            low, high = torch.where(is_under, middle, low), torch.where(is_under, high, middle)
            middle = 0.5 * (low + high)
        for _ in range(NEWTON_STEPS):
            below, above = self._log_tails(middle)
            tail = torch.where(is_left, below, above)
            step = (tail - aim) * (tail - self.log_prob(middle)).exp()
            middle = torch.where(is_left, middle - step, middle + step).clamp(low, high)
        return middle

    def _log_tails(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Log F(y) and log (1 - F(y))."""
        distance = (points[..., None] - self.mean) * (-self.log_scale).exp()
        below = (self.log_weights + torch.special.log_ndtr(distance)).logsumexp(-1)
        above = (self.log_weights + torch.special.log_ndtr(-distance)).logsumexp(-1)
        return below, above


class AutoregressiveFlow(NamedTuple):
    """The weights, masked already; shapes are those of `FlowShape.sizes`."""

    input_weight: Tensor
    input_bias: Tensor
    hidden_weight: Tensor
    hidden_bias: Tensor
    output_weight: Tensor
    direct_weight: Tensor
    output_bias: Tensor

    @property
    def shape(self) -> FlowShape:
        """Sizes of the flow."""
        hidden, dim = self.input_weight.shape
        components = self.output_bias.shape[0] // (3 * dim)
        return FlowShape(dim, hidden, self.hidden_weight.shape[0], components)

    def conditionals(self, points: Tensor) -> Conditionals:
        """The mixtures of each dimension of points `[N, Z]`, given the dimensions before it."""
        hidden = F.linear(points, self.input_weight, self.input_bias)
        for weight, bias in zip(self.hidden_weight, self.hidden_bias, strict=True):
            inner = F.linear(F.silu(hidden), weight[0], bias[0])
            hidden = hidden + F.linear(F.silu(inner), weight[1], bias[1])
        outputs = F.linear(F.silu(hidden), self.output_weight, self.output_bias)
        outputs = outputs + F.linear(points, self.direct_weight)
        return _mixtures(outputs.view(-1, points.shape[1], 3, self.shape.num_components))

    def conditional_log_probs(self, points: Tensor) -> Tensor:
        """Log p(y_d | y_1, ..., y_(d-1)), `[N, Z]` -> `[N, Z]`; their sum is the log-density."""
        parts = [self.conditionals(rows).log_prob(rows) for rows in points.split(ROWS)]  # type: ignore[no-untyped-call]
        return torch.cat(parts)

    def to_normals(self, points: Tensor) -> Tensor:
        """The standard normals `[N, Z]` that the flow maps points `[N, Z]` to."""
        parts = [self.conditionals(rows).to_normals(rows) for rows in points.split(ROWS)]  # type: ignore[no-untyped-call]
        return torch.cat(parts)

    def from_normals(self, noise: Tensor) -> Tensor:
        """The points `[N, Z]` of standard normals `[N, Z]`: the inverse of `to_normals`.

        Dimension after dimension. Hidden units are sorted by the last input that they see, so that
        each is computed once, as soon as that input is known.
        """
        shape, degrees = self.shape, self.shape.degrees()
        points = torch.zeros_like(noise)
        hidden, inner = (
            noise.new_zeros(size, len(noise), shape.hidden_dim)
            for size in (shape.num_blocks + 1, shape.num_blocks)
        )
        for d in range(shape.dim):
            rows = slice(3 * shape.num_components * d, 3 * shape.num_components * (d + 1))
            outputs = F.linear(points, self.direct_weight[rows], self.output_bias[rows])
            outputs = outputs + F.linear(F.silu(hidden[-1]), self.output_weight[rows])
            mixture = _mixtures(outputs.view(-1, 1, 3, shape.num_components))
            points[:, d : d + 1] = mixture.from_normals(noise[:, d : d + 1])
            units = slice(*torch.searchsorted(degrees, torch.tensor([d, d + 1])).tolist())
            new = F.linear(points, self.input_weight[units], self.input_bias[units])
            hidden[0, :, units] = new
            for number, (weight, bias) in enumerate(
                zip(self.hidden_weight, self.hidden_bias, strict=True)
            ):
                read = F.silu(hidden[number])
                inner[number, :, units] = F.linear(read, weight[0, units], bias[0, units])
                new = new + F.linear(F.silu(inner[number]), weight[1, units], bias[1, units])
                hidden[number + 1, :, units] = new
        return points


def _mixtures(outputs: Tensor) -> Conditionals:
    """Mixtures from the outputs of the network, `[N, Z, 3, K]`."""
    scale = outputs[:, :, 2].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE)
    return Conditionals(outputs[:, :, 0].log_softmax(-1), outputs[:, :, 1], scale)


def initial_flow(shape: FlowShape, *, seed: int) -> AutoregressiveFlow:
    """A flow whose density is nearly the standard normal: nothing depends on anything.

    The Gaussians of each dimension stand at quantiles, as wide as makes their variance 1.
    """
    sizes = shape.sizes()
    tensors = {name: torch.zeros(size) for name, size in sizes.items()}
    for name, fan_in in (("input_weight", shape.dim), ("hidden_weight", shape.hidden_dim)):
        rows = math.prod(sizes[name][:-1])
        noise = normals(key(seed, "flow", name), torch.arange(rows), lanes=sizes[name][-1])
        tensors[name] = noise.view(sizes[name]) / math.sqrt(fan_in)
    tensors["hidden_weight"][:, 1] = 0.0  # each block begins as the identity
    count = shape.num_components
    mean = 0.9 * torch.special.ndtri((torch.arange(count).double() + 0.5) / count)
    bias = torch.zeros(shape.dim, 3, count)
    bias[:, 1] = mean.float()
    bias[:, 2] = 0.5 * math.log(1.0 - float(mean.square().mean()))
    tensors["output_bias"] = bias.flatten()
    return masked(AutoregressiveFlow(**tensors))


def masked(flow: AutoregressiveFlow) -> AutoregressiveFlow:
    """The flow without the weights by which a dimension would see itself or a later one."""
    masks = flow.shape.masks()
    return flow._replace(
        **{name: getattr(flow, name) * mask.to(flow.output_bias) for name, mask in masks.items()}
    )


class FlowProgress(NamedTuple):
    """Where a fit is."""

    step: int
    num_steps: int
    log_prob: float
    """Mean log-density of the points held out, nats."""
    flow: AutoregressiveFlow
    """The average of the weights, whose log-density that is."""


def fit_flow(
    posterior: DiagonalGaussian,
    to_points: Callable[[Tensor], Tensor],
    held_out: Tensor,
    shape: FlowShape,
    *,
    seed: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    fraction_of_time: Callable[[], float] = lambda: 0.0,
) -> Iterator[FlowProgress]:
    """Fit a flow to the aggregate of posteriors by maximum likelihood, in eight parts.

    A step sees a batch of draws, each from another posterior. The learning rate falls as a cosine
    to the end of the steps or of the time, whichever comes first.

    Args:
        posterior: of N latents, `[N, Z]`, float32.
        to_points: the points y `[B, Z]` of latents `[B, Z]`, such as `GaussianPrior.to_normals`.
        held_out: points `[M, Z]` of draws of other posteriors.
        shape: of the flow.
        seed: of the initialization and the draws.
        num_steps: of Adam (Kingma and Ba 2015).
        batch_size: draws of a step.
        learning_rate: the highest.
        fraction_of_time: how much of the time is over; at 1 the fit ends.

    Yields:
        Where the fit is, an eighth of it after another.
    """
    flow = initial_flow(shape, seed=seed)
    masks = {name: mask.to(posterior.mean) for name, mask in shape.masks().items()}
    weights = [part.to(posterior.mean).requires_grad_() for part in flow]
    averages = [part.detach().clone() for part in weights]
    optimizer = torch.optim.Adam(weights, lr=learning_rate, betas=(0.9, 0.99))
    size, device, parts_over, step = len(posterior.mean), posterior.mean.device, 0, 0
    while True:
        done = max(step / num_steps, fraction_of_time())
        if done >= 1.0:
            break
        if int(8 * done) > parts_over:
            parts_over = int(8 * done)
            yield _progress(averages, held_out, step, num_steps)
        rate = learning_rate * min(1.0, (step + 1) / 50) * 0.5 * (1.0 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        numbers = torch.arange(step * batch_size, (step + 1) * batch_size, device=device)
        rows = shuffled(key(seed, "flow rows"), size, numbers % size)
        noise = normals(key(seed, "flow draws"), numbers, lanes=shape.dim)
        points = to_points(posterior[rows].sample(noise))
        current = AutoregressiveFlow(*weights)
        current = current._replace(
            **{name: getattr(current, name) * mask for name, mask in masks.items()}
        )
        loss = -current.conditionals(points).log_prob(points).sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 10.0)
        optimizer.step()
        _average(averages, weights, step)
        step += 1
    yield _progress(averages, held_out, step, num_steps)


@torch.no_grad()
def _average(averages: list[Tensor], weights: list[Tensor], step: int) -> None:
    """An exponential average, which at the beginning is a short one."""
    share = max(1.0 - 0.995, 1.0 / (step + 1))
    for average, weight in zip(averages, weights, strict=True):
        average.lerp_(weight, share)


@torch.no_grad()
def _progress(averages: list[Tensor], held_out: Tensor, step: int, num_steps: int) -> FlowProgress:
    flow = masked(AutoregressiveFlow(*(part.clone() for part in averages)))
    log_prob = float(flow.conditional_log_probs(held_out).sum(1).double().mean())
    return FlowProgress(step, num_steps, log_prob, flow)
