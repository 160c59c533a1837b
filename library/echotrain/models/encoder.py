"""What an encoder is to whoever takes it away from the network that it was trained in."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["EncoderShape", "HasEncoder"]


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """What the tensors of a plain ViT do not say of it, or not at first sight.

    Attributes:
        side: Pixels of the images that it was trained on.
        patch: Pixels of a patch.
        heads: Of its attention.
    """

    side: int
    patch: int
    heads: int


@runtime_checkable
class HasEncoder(Protocol):
    """A network with an encoder that is of use without the rest."""

    def encoder_state(self) -> dict[str, Tensor]:
        """Return the encoder alone, a copy, under the names that timm gives a ViT."""

    def encoder_shape(self) -> EncoderShape:
        """Return what its tensors do not say of it."""
