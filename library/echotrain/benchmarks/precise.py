"""Whether a GPU may round the factors of float32 products to 10 bits (TF32), for a while."""

import contextlib
import warnings
from collections.abc import Iterator

import torch

__all__ = ["tf32"]


@contextlib.contextmanager
def tf32(is_on: bool) -> Iterator[None]:
    """Allow or forbid TF32 in convolutions and matrix products until the block ends; PyTorch allows it in convolutions alone."""
    before = _set(is_on, is_on)
    try:
        yield
    finally:
        _set(*before)


def _set(convolutions: bool, products: bool) -> tuple[bool, bool]:
    with warnings.catch_warnings():
        # Newer settings exist; torch's compiler reads these, and no mixture of both.
        warnings.simplefilter("ignore")
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
    return before
