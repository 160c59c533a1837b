import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from echotrain.errors import ConfigError
from echotrain.losses.ssim import SSIMLoss


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(7, 7), (8, 13), (32, 31)])
def test_each_sample_scores_as_skimage_scores_it_with_its_own_data_range(size):
    target, output = images(3, *size, seed=1), images(3, *size, seed=2)
    data_range = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)
    losses = SSIMLoss()(output, target, data_range)
    expected = [
        1 - structural_similarity(t.numpy(), o.numpy(), data_range=float(r)) for t, o, r in zip(target, output, data_range, strict=True)
    ]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-10)


def test_identical_images_have_no_loss_and_inverted_ones_a_large_one():
    target = images(2, 16, 16)
    torch.testing.assert_close(SSIMLoss()(target, target, torch.ones(2)), torch.zeros(2, dtype=torch.float64))
    assert (SSIMLoss()(1 - target, target, torch.ones(2)) > 1).all()


def test_a_flat_pair_scores_the_luminance_term_alone():
    target, output = torch.full((1, 9, 9), 0.8, dtype=torch.float64), torch.full((1, 9, 9), 0.4, dtype=torch.float64)
    luminance = (2 * 0.8 * 0.4 + 1e-4) / (0.8**2 + 0.4**2 + 1e-4)
    assert float(SSIMLoss()(output, target, torch.ones(1))) == pytest.approx(1 - luminance, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e6])
def test_the_unit_of_the_magnitudes_does_not_matter_in_single_precision(scale):
    target, output = images(2, 20, 20, seed=1, dtype=torch.float32), images(2, 20, 20, seed=2, dtype=torch.float32)
    reference = SSIMLoss()(output, target, torch.ones(2))
    torch.testing.assert_close(SSIMLoss()(output * scale, target * scale, torch.full((2,), scale)), reference)


def test_the_loss_of_a_sample_does_not_depend_on_its_batch():
    target, output = images(4, 12, 12, seed=1), images(4, 12, 12, seed=2)
    data_range = torch.tensor([1.0, 2.0, 3.0, 4.0])
    together = SSIMLoss()(output, target, data_range)
    alone = torch.cat([SSIMLoss()(output[[i]], target[[i]], data_range[[i]]) for i in range(4)])
    torch.testing.assert_close(together, alone)


def test_autocast_does_not_lower_the_precision():
    target, output = images(2, 20, 20, seed=1, dtype=torch.float32), images(2, 20, 20, seed=2, dtype=torch.float32)
    reference = SSIMLoss()(output, target, torch.ones(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = SSIMLoss()(output, target, torch.ones(2))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, reference, rtol=0, atol=0)


def test_gradients_are_exact():
    target, output = images(2, 8, 9, seed=1), images(2, 8, 9, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda output: SSIMLoss()(output, target, torch.tensor([1.0, 2.0])), (output,))


@pytest.mark.parametrize(("output", "target"), [((1, 8, 8), (1, 8, 9)), ((2, 8, 8), (1, 8, 8)), ((1, 6, 20), (1, 6, 20))])
def test_images_that_cannot_be_compared_are_refused(output, target):
    with pytest.raises(ConfigError, match="at least 7 pixels"):
        SSIMLoss()(torch.zeros(output), torch.zeros(target), torch.ones(1))
