import pytest
import torch

from echotrain.physics.fft import adjoint_norm, fft2c, ifft2c

SIZES = [(8, 8), (7, 8), (8, 7), (5, 9), (1, 6), (640, 372)]
NORMS = ["ortho", "backward", "forward"]


def random_complex(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", NORMS)
def test_the_inverse_undoes_the_transform_at_odd_and_even_sizes(size, norm):
    image = random_complex(2, *size)
    torch.testing.assert_close(ifft2c(fft2c(image, norm), norm), image)


@pytest.mark.parametrize("size", SIZES)
def test_the_orthonormal_transform_keeps_inner_products(size):
    first, second = random_complex(*size, seed=1), random_complex(*size, seed=2)
    torch.testing.assert_close(torch.vdot(fft2c(first).ravel(), fft2c(second).ravel()), torch.vdot(first.ravel(), second.ravel()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", NORMS)
def test_the_adjoint_norm_makes_the_inverse_transform_the_adjoint(size, norm):
    image, kspace = random_complex(*size, seed=1), random_complex(*size, seed=2)
    left = torch.vdot(fft2c(image, norm).ravel(), kspace.ravel())
    right = torch.vdot(image.ravel(), ifft2c(kspace, adjoint_norm(norm)).ravel())
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (9, 5)])
def test_a_point_at_the_centre_has_a_flat_real_spectrum_and_a_flat_image_a_central_peak(size):
    height, width = size
    point = torch.zeros(size, dtype=torch.complex128)
    point[height // 2, width // 2] = 1
    flat = torch.full(size, (height * width) ** -0.5, dtype=torch.complex128)
    torch.testing.assert_close(fft2c(point), flat)
    torch.testing.assert_close(fft2c(flat), point)


def test_the_centred_transform_equals_its_defining_sum():
    image = random_complex(5, 4)
    y, x = torch.arange(5) - 2, torch.arange(4) - 2
    rows = torch.exp(-2j * torch.pi * torch.outer(y, y) / 5).to(image.dtype)
    columns = torch.exp(-2j * torch.pi * torch.outer(x, x) / 4).to(image.dtype)
    torch.testing.assert_close(fft2c(image), rows @ image @ columns / 20**0.5)


def test_gradients_of_the_transform_are_exact():
    image = random_complex(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(fft2c, (image,))
    assert torch.autograd.gradcheck(ifft2c, (image,))
