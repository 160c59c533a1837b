"""Named tensor shapes: the signature of a public tensor function is its shape documentation.

k-space and images are native complex64, (batch, coil, ky, kx). k-space is centred: the zero
frequency lies at index ``n // 2``. The phase-encode axis is the last one.
"""

from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

__all__ = [
    "Calibration",
    "Channels",
    "CoilImages",
    "CoilMask",
    "Counts",
    "Image",
    "Kspace",
    "KtKspace",
    "KtMask",
    "LineMask",
    "Magnitude",
    "PerSample",
    "SamplingMask",
    "SensMaps",
]

Kspace = Complex[Tensor, "batch coil ky kx"]
# Windows of adjacent frames.
KtKspace = Complex[Tensor, "batch frame coil ky kx"]
CoilImages = Complex[Tensor, "batch coil y x"]
SensMaps = Complex[Tensor, "batch coil y x"]
Image = Complex[Tensor, "batch y x"]
Magnitude = Float[Tensor, "batch y x"]
LineMask = Bool[Tensor, "batch 1 1 kx"]
# Of whole lines (ky_or_1 is 1), or of any points.
SamplingMask = Bool[Tensor, "batch 1 ky_or_1 kx"]
KtMask = Bool[Tensor, "batch frame 1 ky_or_1 kx"]
CoilMask = Bool[Tensor, "batch coil"]
Channels = Float[Tensor, "batch channel y x"]
PerSample = Float[Tensor, "batch"]
Counts = Int[Tensor, "batch"]
# The fully sampled centre: its number of lines, or its rows and columns, (batch, 2).
Calibration = Int[Tensor, "batch *axes"]
