"""VarNet on masks of any shape, and on windows of adjacent frames, against the same equations in centred k-space."""

from dataclasses import replace

import pytest
import torch

from echotrain.errors import ConfigError
from echotrain.models.layers.complex_channels import channels_to_complex, complex_to_channels
from echotrain.models.layers.draws import drawing, name_places
from echotrain.models.layers.norm_unet import NormUnet
from echotrain.models.unrolled.sensitivity import center_of
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.physics.coils import rss, sens_expand, sens_reduce
from echotrain.physics.fft import fft2c, ifft2c
from echotrain.physics.kt_masks import KtMaskConfig, kt_mask

SMALL = VarNetConfig(num_cascades=2, chans=4, pools=2, sens_chans=3, sens_pools=2)
ACS = 8


def model_of(num_adjacent=1, **changes):
    torch.manual_seed(0)
    return replace(SMALL, num_adjacent=num_adjacent, **changes).build()


def scan(kind, frames=1, size=(33, 36), batch=2, coils=3):
    """Return windows of frames: masked k-space, mask and centre, as (batch, frame, ...)."""
    kspace = torch.randn(batch, frames, coils, *size, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    config = KtMaskConfig(kinds=(kind,), accelerations=(4,), acs_lines=ACS, random_start=True)
    masks = [kt_mask(config, (frames, *size), seed=0, dataset="d", volume="v", epoch=0, slice=index).mask for index in range(batch)]
    mask = torch.stack([torch.from_numpy(each) for each in masks])[:, :, None]
    center = torch.full((batch, frames, 2) if kind == "kt_radial" else (batch, frames), ACS)
    return kspace * mask, mask, center


def plain(model, kspace, mask, center):
    """Reconstruct the centre frame of one window (frame, coil, ky, kx) by the equations, in centred k-space."""
    images = ifft2c(kspace * center)
    refined = torch.cat([model.sens_net.norm_unet(frame) for frame in images]).view(images.shape)
    maps = refined / rss(refined).unsqueeze(1)
    current = kspace
    for cascade in model.cascades:
        image = cascade.regularizer(sens_reduce(ifft2c(current), maps))
        current = current - cascade.dc_weight * mask * (current - kspace) - fft2c(sens_expand(image, maps))
    return rss(ifft2c(current))[len(kspace) // 2]


def central(kind, size):
    rows, columns = ((torch.arange(n) >= (n - ACS + 1) // 2) & (torch.arange(n) < (n - ACS + 1) // 2 + ACS) for n in size)
    return rows[:, None] & columns if kind == "kt_radial" else columns.expand(size)


@pytest.mark.parametrize("kind", ["kt_uniform", "kt_gaussian", "kt_radial"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("size", [(33, 36), (24, 41)])
def test_every_kind_of_mask_and_window_follows_the_equations(kind, frames, size):
    model = model_of(frames)
    kspace, mask, center = scan(kind, frames, size)
    output = model(kspace, mask, center) if frames > 1 else model(kspace[:, 0], mask[:, 0], center[:, 0])
    expected = torch.stack([plain(model, k, m, central(kind, size)) for k, m in zip(kspace, mask, strict=True)])
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_a_mask_of_lines_written_out_in_points_gives_the_same():
    model = model_of()
    kspace, mask, center = (each[:, 0] for each in scan("kt_gaussian"))
    expected = model(kspace, mask, center)
    for points, centre in ((mask.expand(-1, -1, 33, -1), center), (mask, torch.stack([torch.full_like(center, 33), center], -1))):
        torch.testing.assert_close(model(kspace, points, centre), expected, rtol=1e-4, atol=1e-5)


def test_a_square_centre_beside_a_mask_of_lines_is_a_square():
    mask = torch.ones(1, 1, 1, 9, dtype=torch.bool)
    center = center_of(mask, torch.tensor([[3, 4]]), 7)
    assert center.shape == (1, 1, 7, 9)
    assert center[0, 0].nonzero().amin(0).tolist() == [2, 3]
    assert center[0, 0].nonzero().amax(0).tolist() == [4, 6]
    assert center.sum() == 12


def test_the_centre_of_points_that_nothing_describes_is_refused():
    kspace, mask, _ = (each[:, 0] for each in scan("kt_radial"))
    with pytest.raises(ConfigError, match="without its centre"):
        model_of()(kspace, mask)


def test_sensitivities_of_a_radial_mask_come_from_its_square_alone():
    model = model_of()
    kspace, mask, center = (each[:, 0] for each in scan("kt_radial"))
    outside = kspace * ~central("kt_radial", kspace.shape[-2:])
    seen = []
    model.sens_net.norm_unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(kspace, mask, center)
    model(kspace - 0.5 * outside, mask, center)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-5, atol=1e-6)
    assert (kspace - outside).abs().sum() > 0


def test_one_frame_is_the_network_it_was():
    torch.manual_seed(0)
    names = SMALL.build().state_dict()
    assert [(name, tensor.shape) for name, tensor in model_of(1).state_dict().items()] == [(n, t.shape) for n, t in names.items()]
    wide = model_of(5).state_dict()
    assert wide.keys() == names.keys()
    grown = {name for name in names if wide[name].shape != names[name].shape}
    assert {name.partition("regularizer.")[2] for name in grown} == {"unet.encoder.0.conv1.weight", "unet.head.weight", "unet.head.bias"}
    assert wide["cascades.0.regularizer.unet.encoder.0.conv1.weight"].shape[1] == 10


def test_every_frame_of_a_window_matters_and_each_gradient_is_finite():
    model = model_of(3)
    kspace, mask, center = scan("kt_uniform", 3)
    kspace.requires_grad_()
    model(kspace, mask, center).square().mean().backward()
    assert (kspace.grad.abs().sum((0, 2, 3, 4)) > 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_windows_of_a_batch_do_not_see_each_other():
    model = model_of(3)
    kspace, mask, center = scan("kt_radial", 3)
    together = model(kspace, mask, center)
    alone = torch.cat([model(kspace[i : i + 1], mask[i : i + 1], center[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_what_is_dropped_of_a_window_is_its_samples_own_and_each_frames_own():
    model = model_of(3, drop_prob=0.4).train()
    name_places(model)
    kspace, mask, center = scan("kt_gaussian", 3)

    def output(rows, roots):
        with drawing(roots):
            return model(kspace[rows], mask[rows], center[rows])

    both = output([0, 1], [7, 8])
    for row, root in enumerate((7, 8)):
        torch.testing.assert_close(output([row], [root]), both[row : row + 1], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(output([0], [8]), both[:1], rtol=1e-2)
    alike = kspace[:1, :1].expand(1, 3, -1, -1, -1), mask[:1, :1].expand(1, 3, -1, -1, -1), center[:1, :1].expand(1, 3)
    seen = []
    hook = model.sens_net.norm_unet.register_forward_hook(lambda _, __, maps: seen.append(maps.detach()))
    with drawing([7]):
        model(*alike)
    hook.remove()
    first, second, third = torch.cat(seen).view(3, -1).unbind()
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


def test_padded_coils_of_windows_change_nothing():
    model = model_of(3)
    kspace, mask, center = scan("kt_uniform", 3)
    padded = torch.cat((kspace, torch.zeros_like(kspace[:, :, :2])), dim=2)
    coil_mask = torch.arange(5).lt(3).expand(2, 3, 5)
    torch.testing.assert_close(model(padded, mask, center, coil_mask), model(kspace, mask, center), rtol=1e-5, atol=1e-6)


def test_activation_checkpointing_leaves_gradients_of_windows_as_they_are():
    model = model_of(3)
    kspace, mask, center = scan("kt_radial", 3)
    gradients = []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        model(kspace, mask, center).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(("takes", "given"), [(1, 3), (3, 1), (3, 5)])
def test_windows_of_another_number_of_frames_are_refused(takes, given):
    kspace, mask, center = scan("kt_uniform", given, batch=3)
    inputs = (kspace, mask, center) if given > 1 else (kspace[:, 0], mask[:, 0], center[:, 0])
    with pytest.raises(ConfigError, match=f"samples of {given} frame.*num_adjacent={takes}"):
        model_of(takes)(*inputs)


@pytest.mark.parametrize("value", [0, 2, -1])
def test_a_window_without_a_centre_frame_is_refused(value):
    with pytest.raises(ConfigError, match=f"num_adjacent={value}"):
        VarNetConfig(num_adjacent=value)


@pytest.mark.parametrize("num_images", [1, 3])
def test_images_of_a_sample_become_real_parts_then_imaginary_parts_and_come_back(num_images):
    image = torch.randn(2 * num_images, 5, 4, dtype=torch.complex64)
    channels = complex_to_channels(image, num_images)
    assert channels.shape == (2, 2 * num_images, 5, 4)
    assert channels.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels[1], torch.cat((image[num_images:].real, image[num_images:].imag)), rtol=0, atol=0)
    torch.testing.assert_close(channels_to_complex(channels, num_images), image, rtol=0, atol=0)


def test_the_norm_of_a_window_is_over_all_its_images():
    unet = NormUnet(3, 2, num_images=3)
    seen = []
    unet.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    scale = torch.tensor([1.0, 10.0, 100.0]).repeat(2)[:, None, None]
    image = scale * torch.randn(6, 16, 16, dtype=torch.complex64) + (2 - 3j)
    unet(image)
    std, mean = torch.std_mean(seen[0].reshape(2, 2, -1), dim=2)
    torch.testing.assert_close(std, torch.ones(2, 2))
    torch.testing.assert_close(mean, torch.zeros(2, 2), rtol=0, atol=1e-6)
    assert seen[0][:, 2].std() > 5 * seen[0][:, 1].std()
