"""Initial parameters, each a function of the seed and of its name in the model alone."""

import math

import torch
from torch import nn

from textvae.randomness import key, uniforms

EMBEDDING_RANGE = 0.1
"""Embeddings are uniform in +-0.1, as in He et al. 2019 and Li et al. 2019."""


class Initializer:
    """Fills parameters of one module, named by attribute; those that are None are skipped."""

    def __init__(self, module: nn.Module, seed: int, path: str) -> None:
        """For a module at a dotted path in the model, such as `encoder.forward_layers.0`."""
        self._module, self._seed, self._path = module, seed, path
        self.filled: set[str] = set()
        """The names in the model of the parameters that were filled."""

    def linear(self, *names: str) -> None:
        """Matrices `[out, in]`: uniform in +-1/sqrt(in)."""
        for name, parameter in self._parameters(names):
            self._uniform(name, parameter, 1.0 / math.sqrt(parameter.shape[1]))

    def embedding(self, *names: str) -> None:
        """Matrices with a row per word or label: uniform in +-EMBEDDING_RANGE."""
        for name, parameter in self._parameters(names):
            self._uniform(name, parameter, EMBEDDING_RANGE)

    def constant(self, value: float, *names: str) -> None:
        """The same value everywhere."""
        for _, parameter in self._parameters(names):
            parameter.fill_(value)

    def _parameters(self, names: tuple[str, ...]) -> list[tuple[str, nn.Parameter]]:
        owned = [(name, self._module.get_parameter(name)) for name in names if self._has(name)]
        full = [(f"{self._path}.{name}" if self._path else name, value) for name, value in owned]
        self.filled.update(name for name, _ in full)
        return full

    def _has(self, name: str) -> bool:
        return getattr(self._module, name) is not None

    def _uniform(self, name: str, parameter: nn.Parameter, bound: float) -> None:
        rows = torch.arange(parameter.shape[0])
        draws = uniforms(key(self._seed, "initialize", name), rows, lanes=parameter.shape[1])
        parameter.copy_(draws.mul_(2.0 * bound).sub_(bound))


class SeededModule(nn.Module):
    """A module that initializes its parameters itself."""

    def reset_parameters(self, initializer: Initializer) -> None:
        """Fill every parameter of this module; its children fill theirs."""
        raise NotImplementedError


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Zero the buffers of a model and let each of its modules fill its parameters.

    TypeError where nothing fills one.
    """
    for buffer in model.buffers():
        buffer.zero_()
    missing = {name for name, _ in model.named_parameters()}
    for path, module in model.named_modules():
        initializer = Initializer(module, seed, path)
        if isinstance(module, SeededModule):
            module.reset_parameters(initializer)
        elif isinstance(module, nn.Linear):
            initializer.linear("weight")
            initializer.constant(0.0, "bias")
        elif isinstance(module, nn.LayerNorm):
            initializer.constant(1.0, "weight")
            initializer.constant(0.0, "bias")
        missing -= initializer.filled
    if missing:
        raise TypeError(f"no module fills {', '.join(sorted(missing))} in its reset_parameters")
