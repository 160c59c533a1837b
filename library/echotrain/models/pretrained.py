"""What else is asked of the settings of a network that names published weights."""

from typing import Any, Protocol, runtime_checkable

from torch import nn

__all__ = ["NamesWeights"]


@runtime_checkable
class NamesWeights(Protocol):
    """Settings that name files beside the data. Weights come from where they say, and are never downloaded on their own."""

    def located(self, *, begins: bool) -> Any:
        """Return the settings with paths made absolute.

        Args:
            begins: Whether training may begin with them, and so what ``initialise`` reads must be there as well.

        Raises:
            ConfigError: A file is not named, not there, or of another network; known before a worker starts.
        """

    def initialise(self, network: nn.Module) -> None:
        """Load the weights that training begins with into a network that was just built; never done when a run is resumed.

        Raises:
            ConfigError: They are of another network.
        """
