import pytest
import torch

from echotrain.physics.coils import rss, sens_expand, sens_reduce
from echotrain.physics.operators import CartesianOperator, LinearOperator, SenseOperator

SIZES = [(8, 8), (7, 8), (8, 7), (9, 5)]


def random_complex(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def every_third_line(width: int) -> torch.Tensor:
    return (torch.arange(width) % 3 == 0).reshape(1, 1, 1, width)


def assert_adjoint(operator: LinearOperator, x: torch.Tensor, y: torch.Tensor) -> None:
    torch.testing.assert_close(torch.vdot(operator(x).ravel(), y.ravel()), torch.vdot(x.ravel(), operator.adjoint(y).ravel()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
def test_the_cartesian_operator_has_a_true_adjoint(size, norm):
    assert_adjoint(
        CartesianOperator(every_third_line(size[1]), norm), random_complex(2, 3, *size, seed=1), random_complex(2, 3, *size, seed=2)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
def test_the_sense_operator_has_a_true_adjoint(size, norm):
    maps = random_complex(2, 3, *size)
    assert_adjoint(
        SenseOperator(maps, every_third_line(size[1]), norm), random_complex(2, *size, seed=1), random_complex(2, 3, *size, seed=2)
    )


@pytest.mark.parametrize("size", SIZES)
def test_expanding_to_coils_and_reducing_are_adjoint(size):
    image, coil_images, maps = random_complex(2, *size, seed=1), random_complex(2, 3, *size, seed=2), random_complex(2, 3, *size, seed=3)
    left = torch.vdot(sens_expand(image, maps).ravel(), coil_images.ravel())
    torch.testing.assert_close(left, torch.vdot(image.ravel(), sens_reduce(coil_images, maps).ravel()))


def test_normalised_maps_make_reducing_undo_expanding():
    image, maps = random_complex(2, 6, 5, seed=1), random_complex(2, 4, 6, 5, seed=2)
    maps = maps / rss(maps).unsqueeze(1)
    torch.testing.assert_close(sens_reduce(sens_expand(image, maps), maps), image)


def test_a_fully_sampled_sense_operator_with_normalised_maps_keeps_the_norm():
    maps = random_complex(1, 4, 6, 5, seed=2)
    operator = SenseOperator(maps / rss(maps).unsqueeze(1), torch.ones(1, 1, 1, 5, dtype=torch.bool))
    image = random_complex(1, 6, 5)
    torch.testing.assert_close(torch.linalg.vector_norm(operator(image)), torch.linalg.vector_norm(image))


def test_lines_outside_the_mask_stay_zero_and_are_never_read():
    operator = CartesianOperator(every_third_line(7))
    kspace = operator(random_complex(1, 2, 6, 7))
    assert kspace[..., [1, 2, 4, 5]].abs().max() == 0
    spoilt = kspace.clone()
    spoilt[..., 1] = 1e9
    torch.testing.assert_close(operator.adjoint(spoilt), operator.adjoint(kspace))


def test_gradients_of_the_sense_operator_are_exact():
    maps, image = random_complex(1, 2, 4, 3).requires_grad_(), random_complex(1, 4, 3, seed=1).requires_grad_()
    mask = every_third_line(3)
    assert torch.autograd.gradcheck(lambda image, maps: SenseOperator(maps, mask)(image), (image, maps))


def test_rss_is_the_root_of_the_sum_of_squares_and_ignores_padded_coils():
    coil_images = random_complex(2, 3, 5, 4)
    expected = sum(coil_images[:, coil].abs() ** 2 for coil in range(3)) ** 0.5
    torch.testing.assert_close(rss(coil_images), expected)
    padded = torch.cat([coil_images, torch.zeros(2, 2, 5, 4, dtype=coil_images.dtype)], dim=1)
    torch.testing.assert_close(rss(padded), expected)


def test_rss_has_a_finite_gradient_where_all_coils_are_zero():
    coil_images = torch.zeros(1, 3, 2, 2, dtype=torch.complex64, requires_grad=True)
    rss(coil_images).sum().backward()
    assert coil_images.grad is not None
    assert coil_images.grad.abs().max() == 0


def test_rss_of_nothing_is_0_with_gradient_0_and_nan_stays_nan():
    images = torch.zeros(2, 3, 3, dtype=torch.complex64, requires_grad=True)
    rss(images).sum().backward()
    assert images.grad.abs().max() == 0
    images = torch.zeros(2, 3, 3, dtype=torch.complex64)
    images[1, 2, 0] = torch.nan
    assert rss(images).isnan().nonzero().tolist() == [[2, 0]]
