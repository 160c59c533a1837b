"""Randomness as a pure function: every draw comes from a hash of (seed, purpose, identity).

The same arguments give the same numbers on every worker, world size, restart and platform.
"""

import hashlib

import numpy as np
import torch

__all__ = ["derive_seed", "numpy_generator", "torch_generator"]


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
