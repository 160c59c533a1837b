"""The loop's fused operations against plain ones, and their gradients against finite differences."""

import itertools

import pytest
import torch

from echotrain.physics.coils import sens_expand, sens_reduce
from echotrain.physics.consistency import combine, consistency_step
from echotrain.physics.fft import fft2c
from echotrain.physics.modulation import HybridSpace


@pytest.fixture
def draw():
    """Return a function whose draws differ from each other, also those of one shape: a difference of two is not zero."""
    seeds = itertools.count()

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(next(seeds))).requires_grad_()

    return draw


def points(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5)) < 0.5


LINES = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0]], dtype=torch.bool)[:, None, None]


@pytest.mark.parametrize("by_lines", [True, False])
@pytest.mark.parametrize("norm", ["ortho", "backward"])
def test_combine_equals_the_plain_operations_and_has_their_gradients(norm, by_lines, draw):
    current, maps = draw(2, 3, 4, 5), draw(2, 3, 5, 4).transpose(-2, -1)
    space = HybridSpace.of(current, norm, by_lines=by_lines)
    torch.testing.assert_close(combine(current, maps, space), sens_reduce(space.ifft(current), maps))
    assert torch.autograd.gradcheck(lambda k, s: combine(k, s, space), (current, maps))


@pytest.mark.parametrize(("mask", "by_lines"), [(LINES, True), (LINES, False), (points(2, 1, 4, 5), False), (points(4, 5), False)])
@pytest.mark.parametrize("norm", ["ortho", "backward"])
def test_the_step_equals_its_equation_and_has_its_gradients(norm, mask, by_lines, draw):
    current, measured, maps, image = draw(2, 3, 4, 5), draw(2, 3, 4, 5), draw(2, 3, 4, 5), draw(2, 4, 5)
    weight = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    space = HybridSpace.of(current, norm, by_lines=by_lines)
    assert (mask * (current - measured)).abs().sum() > 1
    expected = current - weight * mask * (current - measured) - space.fft(sens_expand(image, maps))
    torch.testing.assert_close(consistency_step(current, measured, mask, weight, image, maps, space), expected)
    assert torch.autograd.gradcheck(
        lambda k, k0, eta, x, s: consistency_step(k, k0, mask, eta, x, s, space), (current, measured, weight, image, maps)
    )


def test_a_larger_weight_pulls_the_iterate_to_what_was_measured_and_its_gradient_says_so(draw):
    current, measured, maps = draw(1, 2, 4, 5), draw(1, 2, 4, 5), draw(1, 2, 4, 5)
    image, mask = torch.zeros(1, 4, 5, dtype=torch.complex128), torch.ones(1, 1, 1, 5, dtype=torch.bool)
    space = HybridSpace.of(current, "ortho")

    def misfit(weight):
        return (consistency_step(current, measured, mask, weight, image, maps, space) - measured).abs().square().sum()

    weights = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.0, 0.5, 1.0)]
    misfits = [misfit(weight) for weight in weights]
    assert misfits[0] > misfits[1] > misfits[2]
    assert misfits[2].item() == pytest.approx(0, abs=1e-20)
    # Of (1 - w)^2 |k - k0|^2, the derivative at 0 is -2 |k - k0|^2.
    (slope,) = torch.autograd.grad(misfits[0], weights[0])
    assert slope.item() == pytest.approx(-2 * misfits[0].item())


@pytest.mark.parametrize("size", [(6, 9), (7, 4)])
def test_the_step_in_either_space_is_the_step_in_centred_kspace(size, draw):
    kspace, measured, maps, image = draw(2, 3, *size), draw(2, 3, *size), draw(2, 3, *size), draw(2, *size)
    weight = torch.tensor([0.7], dtype=torch.float64)
    for mask, by_lines in ((points(2, 1, 1, size[1]), True), (points(2, 1, *size), False)):
        space = HybridSpace.of(kspace, "ortho", by_lines=by_lines)
        stepped = consistency_step(space.enter(kspace), space.enter(measured), mask, weight, image, space.modulate(maps), space)
        expected = kspace - weight * mask * (kspace - measured) - fft2c(sens_expand(image, maps))
        torch.testing.assert_close(space.leave(stepped), expected)


def test_a_mask_of_points_is_refused_where_only_lines_act(draw):
    kspace = draw(1, 2, 4, 5)
    space = HybridSpace.of(kspace, "ortho")
    with pytest.raises(AssertionError, match="not of whole lines"):
        consistency_step(kspace, kspace, points(1, 1, 4, 5), torch.ones(1), kspace[:, 0], kspace, space)
