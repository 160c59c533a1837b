"""Randomness as a pure function: every draw comes from a hash of (seed, purpose, identity).

The same arguments give the same numbers on every worker, world size, restart and platform.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["derive_seed", "numpy_generator", "torch_generator", "uniforms"]

# SplitMix64's odd constants, as signed numbers of 64 bits.
_GOLDEN, _MIX1, _MIX2 = (value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def derive_seed(seed: int, purpose: str, *identity: int | str) -> int:
    """Hash (seed, purpose, identity) to an integer in [0, 2**63).

    Args:
        seed: The run's seed.
        purpose: What the randomness is for (``"mask"``, ``"order"``, ``"init"``); streams of two purposes are independent.
        identity: What the draw belongs to: an epoch, a volume, a slice index.
    """
    # NumPy's integers are written like any other.
    parts = [repr(part if isinstance(part, str) else int(part)) for part in (seed, purpose, *identity)]
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(seed: int, purpose: str, *identity: int | str) -> np.random.Generator:
    """Return a NumPy generator for one purpose and identity."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose, *identity)))


def torch_generator(seed: int, purpose: str, *identity: int | str) -> torch.Generator:
    """Return a CPU torch generator for one purpose and identity."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *identity))


def uniforms(seeds: Sequence[int], count: int, device: torch.device) -> Float[Tensor, "seed count"]:
    """Return ``count`` float32 numbers in [0, 1) from each seed, the same on every device: a generator each would cost a loop.

    They are the upper 24 bits of what SplitMix64 gives from that state on (Steele et al., OOPSLA 2014, figure 16).
    """
    # Not waited for: memory that is not pinned is copied aside before the call returns.
    states = torch.tensor(seeds, dtype=torch.int64).to(device, non_blocking=True)[:, None]
    z = states + torch.arange(1, count + 1, device=device) * _GOLDEN
    z = (z ^ _shifted(z, 30)) * _MIX1
    z = (z ^ _shifted(z, 27)) * _MIX2
    return _shifted(z ^ _shifted(z, 31), 40).to(torch.float32) * 2.0**-24


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift to the right as numbers without a sign are."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
