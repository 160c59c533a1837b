"""Named tensor shapes: the signature of a public tensor function is its shape documentation.

k-space and images are native complex64, (batch, coil, ky, kx). k-space is centred: the zero
frequency lies at index ``n // 2``. The phase-encode axis is the last one.
"""

from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

__all__ = [
    "Channels",
    "CoilImages",
    "CoilMask",
    "Counts",
    "Image",
    "Kspace",
    "LineMask",
    "Magnitude",
    "PerSample",
    "SensMaps",
]

Kspace = Complex[Tensor, "batch coil ky kx"]
CoilImages = Complex[Tensor, "batch coil y x"]
SensMaps = Complex[Tensor, "batch coil y x"]
Image = Complex[Tensor, "batch y x"]
Magnitude = Float[Tensor, "batch y x"]
LineMask = Bool[Tensor, "batch 1 1 kx"]
CoilMask = Bool[Tensor, "batch coil"]
Channels = Float[Tensor, "batch channel y x"]
PerSample = Float[Tensor, "batch"]
Counts = Int[Tensor, "batch"]
