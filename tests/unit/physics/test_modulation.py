"""Centred transforms without shifts."""

import pytest
import torch

from echotrain.physics.fft import fft2c, ifft2c
from echotrain.physics.modulation import HybridSpace

SIZES = [(8, 10), (9, 10), (8, 7), (5, 9), (6, 6)]


@pytest.mark.parametrize("by_lines", [True, False])
@pytest.mark.parametrize("norm", ["ortho", "backward"])
@pytest.mark.parametrize("size", SIZES)
def test_hybrid_images_are_the_centred_ones(size, norm, by_lines):
    kspace = torch.randn(2, 3, *size, dtype=torch.complex128)
    space = HybridSpace.of(kspace, norm, by_lines=by_lines)
    torch.testing.assert_close(space.images(space.enter(kspace)), ifft2c(kspace, norm))


@pytest.mark.parametrize("by_lines", [True, False])
@pytest.mark.parametrize("norm", ["ortho", "backward"])
@pytest.mark.parametrize("size", SIZES)
def test_modulated_images_go_to_centred_kspace(size, norm, by_lines):
    images = torch.randn(2, 3, *size, dtype=torch.complex128)
    space = HybridSpace.of(images, norm, by_lines=by_lines)
    torch.testing.assert_close(space.leave(space.fft(space.modulate(images))), fft2c(images, norm))


def test_a_line_mask_acts_alike_in_both_spaces():
    kspace, mask = torch.randn(1, 2, 6, 9, dtype=torch.complex128), torch.rand(9) < 0.5
    space = HybridSpace.of(kspace, "ortho")
    torch.testing.assert_close(space.leave(space.enter(kspace) * mask), kspace * mask)


def test_a_mask_of_any_shape_acts_alike_where_nothing_is_transformed_at_the_entrance():
    kspace, mask = torch.randn(1, 2, 6, 9, dtype=torch.complex128), torch.rand(6, 9) < 0.5
    space = HybridSpace.of(kspace, "ortho", by_lines=False)
    torch.testing.assert_close(space.leave(space.enter(kspace) * mask), kspace * mask)


@pytest.mark.parametrize("by_lines", [True, False])
@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_called_an_adjoint_is_one(size, norm, by_lines):
    x, y = torch.randn(2, 2, 3, *size, dtype=torch.complex128)
    space = HybridSpace.of(x, norm, by_lines=by_lines)
    for forward, adjoint in ((space.fft, space.fft_adjoint), (space.ifft, space.ifft_adjoint)):
        torch.testing.assert_close(torch.vdot(y.flatten(), forward(x).flatten()), torch.vdot(adjoint(y).flatten(), x.flatten()))
