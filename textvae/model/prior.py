"""Priors over latents: a new one is a config with a `kind`, and a name here."""

from textvae.model.interfaces import Prior
from textvae.model.prior_flow import FlowPrior, FlowPriorConfig
from textvae.model.prior_gaussian import GaussianPriorConfig, StandardNormalPriorConfig
from textvae.model.prior_mixture import MixturePrior, MixturePriorConfig

PriorConfig = StandardNormalPriorConfig | GaussianPriorConfig | MixturePriorConfig | FlowPriorConfig


def name_of(config: PriorConfig, prior: Prior) -> str:
    """For a reader, such as "gaussian prior" or "mixture prior (64 Gaussians)"."""
    kind = str(type(config).__struct_config__.tag).replace("_", " ")
    if isinstance(prior, FlowPrior) and not prior.has_flow:
        return f"{kind} prior (N(m, C), which was no worse)"
    if not isinstance(prior, MixturePrior):
        return f"{kind} prior"
    count = prior.num_components
    return f"{kind} prior ({f'{count} Gaussians' if count else 'N(m, C), which was no worse'})"
