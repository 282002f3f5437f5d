"""Models with labels: a new one is a config with a `kind`, and a name in `LabelsConfig`."""

from textvae.config import Config
from textvae.model.labels_m2 import M2Labels, M2LabelsConfig


class NoLabelsConfig(Config, tag_field="kind", tag="none"):
    """The model knows no labels."""

    def build(self, feature_dim: int, latent_dim: int, num_labels: int) -> None:
        """Nothing."""


LabelsConfig = NoLabelsConfig | M2LabelsConfig
Labels = M2Labels
