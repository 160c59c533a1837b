"""The loop's fused operations against plain ones, and their gradients against finite differences."""

import pytest
import torch

from echotrain.physics.coils import sens_expand, sens_reduce
from echotrain.physics.consistency import combine, consistency_step
from echotrain.physics.modulation import HybridSpace


def draw(*shape):
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.randn(*shape, dtype=torch.complex128, generator=generator).requires_grad_()


@pytest.mark.parametrize("norm", ["ortho", "backward"])
def test_combine_equals_the_plain_operations_and_has_their_gradients(norm):
    current, maps = draw(2, 3, 4, 5), draw(2, 3, 5, 4).transpose(-2, -1)
    space = HybridSpace.of(current, norm)
    torch.testing.assert_close(combine(current, maps, space), sens_reduce(space.ifft(current), maps))
    assert torch.autograd.gradcheck(lambda k, s: combine(k, s, space), (current, maps))


@pytest.mark.parametrize("norm", ["ortho", "backward"])
def test_the_step_equals_its_equation_and_has_its_gradients(norm):
    current, measured, maps, image = draw(2, 3, 4, 5), draw(2, 3, 4, 5), draw(2, 3, 4, 5), draw(2, 4, 5)
    weight = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0]], dtype=torch.bool)[:, None, None]
    space = HybridSpace.of(current, norm)
    expected = current - weight * mask * (current - measured) - space.fft(sens_expand(image, maps))
    torch.testing.assert_close(consistency_step(current, measured, mask, weight, image, maps, space), expected)
    assert torch.autograd.gradcheck(
        lambda k, k0, eta, x, s: consistency_step(k, k0, mask, eta, x, s, space), (current, measured, weight, image, maps)
    )
