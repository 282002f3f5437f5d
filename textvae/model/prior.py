"""Priors over latents: a new one is a config with a `kind` in its own file, and a name here."""

from textvae.model.prior_flow import FlowPriorConfig
from textvae.model.prior_gaussian import GaussianPriorConfig, StandardNormalPriorConfig
from textvae.model.prior_mixture import MixturePriorConfig

PriorConfig = StandardNormalPriorConfig | GaussianPriorConfig | MixturePriorConfig | FlowPriorConfig
