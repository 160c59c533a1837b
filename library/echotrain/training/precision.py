"""In which precision a network computes."""

from typing import Literal

import torch

__all__ = ["Precision", "autocast"]

Precision = Literal["fp32", "bf16"]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return what forward and loss are computed within; weights, gradients and optimiser stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
