"""Our VarNet against the public one (PyPI ``fastmri``) on the same weights and input."""

import pytest
import torch

from echotrain.models.importers import export_fastmri, import_fastmri
from echotrain.models.unrolled.varnet import VarNet, VarNetConfig

fastmri_models = pytest.importorskip("fastmri.models", reason="the public implementation is not installed")

SMALL = {"num_cascades": 2, "chans": 4, "pools": 2, "sens_chans": 3, "sens_pools": 3}
RELATIVE = 1e-5


def pair(**changes):
    torch.manual_seed(0)
    public = fastmri_models.VarNet(**{**SMALL, **changes})
    ours = VarNetConfig(**{**SMALL, **changes}).build()
    ours.load_state_dict(import_fastmri(public.state_dict()))
    return ours, public


def scan(height, width, *, coils=4, batch=1, num_low=8, padding=(0, 0)):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    smooth = torch.randn(batch, coils, 6, 6, dtype=torch.complex64, generator=generator)
    image = torch.fft.ifft2(smooth, s=(height, width)) * torch.rand(height, width, generator=generator)
    kspace = torch.fft.fftshift(torch.fft.fft2(image, norm="ortho"), dim=(-2, -1)) * 1e-3
    mask = torch.zeros(batch, 1, 1, width, dtype=torch.bool)
    mask[..., ::3] = True
    first = (width - num_low + 1) // 2
    mask[..., first : first + num_low] = True
    mask[..., : padding[0]] = False
    mask[..., width - padding[1] :] = False
    return kspace * mask, mask


def run_public(public, kspace, mask, num_low):
    return public(torch.view_as_real(kspace), mask.unsqueeze(-1), num_low)


def assert_close(ours, public, relative=RELATIVE):
    difference, scale = torch.linalg.vector_norm(ours - public), torch.linalg.vector_norm(public)
    assert difference <= relative * scale, f"relative difference {difference / scale:.2e}"


@pytest.mark.parametrize("size", [(32, 32), (48, 40), (33, 47), (31, 64), (50, 37)])
@pytest.mark.parametrize("mask_center", [True, False])
def test_outputs_equal_the_public_ones_at_odd_and_even_sizes(size, mask_center):
    ours, public = pair(mask_center=mask_center)
    kspace, mask = scan(*size)
    expected = run_public(public, kspace, mask, 8)
    assert_close(ours(kspace, mask, torch.tensor([8])), expected)
    assert_close(ours(kspace, mask, torch.tensor([8])).amax(), expected.amax())


@pytest.mark.parametrize("num_low", [0, None])
def test_centre_lines_are_counted_in_the_mask_where_no_number_is_given(num_low):
    ours, public = pair()
    kspace, mask = scan(32, 40, num_low=7)
    counts = None if num_low is None else torch.tensor([num_low])
    assert_close(ours(kspace, mask, counts), run_public(public, kspace, mask, num_low))


def test_a_batch_with_different_numbers_of_centre_lines_equals_its_samples_alone():
    ours, public = pair()
    samples = [scan(32, 36, num_low=num_low) for num_low in (4, 9, 12)]
    kspace, mask = (torch.cat(parts) for parts in zip(*samples, strict=True))
    together = ours(kspace, mask, torch.tensor([4, 9, 12]))
    for output, (one, one_mask), num_low in zip(together, samples, (4, 9, 12), strict=True):
        assert_close(output[None], run_public(public, one, one_mask, num_low))


def test_outputs_equal_under_partial_fourier_padding():
    ours, public = pair()
    kspace, mask = scan(32, 44, padding=(9, 2))
    assert_close(ours(kspace, mask, torch.tensor([8])), run_public(public, kspace, mask, 8))


def test_padded_coils_change_nothing_against_the_public_output_without_them():
    ours, public = pair()
    kspace, mask = scan(33, 40, coils=3, batch=2)
    padded = torch.cat((kspace, torch.zeros(2, 4, 33, 40, dtype=torch.complex64)), dim=1)
    coil_mask = torch.arange(7).lt(3).expand(2, 7)
    assert_close(ours(padded, mask, torch.tensor([8, 8]), coil_mask), run_public(public, kspace, mask, 8))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (33, 46)])
def test_gradients_equal_the_public_ones(size, checkpointing):
    # In double precision: in single, a leaky ReLU whose input is near 0 may take its other side.
    ours, public = (model.double() for model in pair())
    ours.activation_checkpointing = checkpointing
    kspace, mask = scan(*size, batch=2)
    kspace, target = kspace.to(torch.complex128), torch.rand(2, *size, dtype=torch.float64)
    (run_public(public, kspace, mask, 8) - target).square().sum().backward()
    (ours(kspace, mask, torch.tensor([8, 8])) - target).square().sum().backward()
    expected = import_fastmri({name: parameter.grad for name, parameter in public.named_parameters()})
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, expected[name], relative=1e-9)


def test_the_default_model_has_the_public_model_s_names_and_shapes():
    with torch.device("meta"):
        public, ours = fastmri_models.VarNet(), VarNetConfig().build()
    exported = export_fastmri(ours.state_dict())
    assert {name: t.shape for name, t in exported.items()} == {name: t.shape for name, t in public.state_dict().items()}
    assert isinstance(ours, VarNet)
