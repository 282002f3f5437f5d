"""What happens to the learning rate where validations stop getting better."""

from typing import Annotated

from msgspec import Meta

from textvae.config import Config

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class NoPlateau(Config, tag_field="kind", tag="none"):
    """Nothing: the schedule alone decides."""

    def due(self, bad_validations: int) -> bool:
        """Whether the rate falls after so many validations in a row without a better ELBO."""
        return False

    def factor(self, decays: int) -> float:
        """The factor on the learning rate after it has fallen `decays` times."""
        return 1.0

    def exhausted(self, decays: int) -> bool:
        """Whether the run ends after this many."""
        return False


class DivideOnPlateau(Config, tag_field="kind", tag="divide"):
    """Divide the rate, and go back to the best: parameters, their average, optimizer moments.

    The custom for recurrent models (Mikolov et al. 2010 divide by two; He et al. 2019 go back as
    well). Steps go on being counted, so that the sentences and the noise after it are new ones.
    """

    validations: Count = 2
    """So many in a row without a better ELBO; counted again from there each time."""
    divisor: Annotated[float, Meta(gt=1.0)] = 2.0
    """What the rate is divided by."""
    max_decays: Count | None = None
    """The run ends where the rate would fall more often than this."""

    def due(self, bad_validations: int) -> bool:
        """Whether the rate falls after so many validations in a row without a better ELBO."""
        return bad_validations > 0 and bad_validations % self.validations == 0

    def factor(self, decays: int) -> float:
        """The factor on the learning rate after it has fallen `decays` times."""
        return float(self.divisor**-decays)

    def exhausted(self, decays: int) -> bool:
        """Whether the run ends after this many."""
        return self.max_decays is not None and decays > self.max_decays


PlateauConfig = NoPlateau | DivideOnPlateau
