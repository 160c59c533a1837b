"""Centred transforms without shifts."""

import pytest
import torch

from echotrain.physics.fft import fft2c, ifft2c
from echotrain.physics.modulation import HybridSpace

SIZES = [(8, 10), (9, 10), (8, 7), (5, 9), (6, 6)]


@pytest.mark.parametrize("norm", ["ortho", "backward"])
@pytest.mark.parametrize("size", SIZES)
def test_hybrid_images_are_the_centred_ones(size, norm):
    kspace = torch.randn(2, 3, *size, dtype=torch.complex128)
    space = HybridSpace.of(kspace, norm)
    torch.testing.assert_close(space.images(space.enter(kspace)), ifft2c(kspace, norm))


@pytest.mark.parametrize("norm", ["ortho", "backward"])
@pytest.mark.parametrize("size", SIZES)
def test_modulated_images_go_to_centred_kspace(size, norm):
    images = torch.randn(2, 3, *size, dtype=torch.complex128)
    space = HybridSpace.of(images, norm)
    torch.testing.assert_close(space.leave(space.fft(space.modulate(images))), fft2c(images, norm))


def test_a_line_mask_acts_alike_in_both_spaces():
    kspace, mask = torch.randn(1, 2, 6, 9, dtype=torch.complex128), torch.rand(9) < 0.5
    space = HybridSpace.of(kspace, "ortho")
    torch.testing.assert_close(space.leave(space.enter(kspace) * mask), kspace * mask)
