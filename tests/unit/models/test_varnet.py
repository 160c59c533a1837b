"""VarNet: size, symmetries, options. Agreement with the public implementation is in ``tests/parity``."""

import shutil
from dataclasses import replace

import pytest
import torch

from echotrain.errors import ConfigError
from echotrain.models.layers.norm_unet import NormUnet
from echotrain.models.unrolled import sensitivity
from echotrain.models.unrolled.sensitivity import center_lines, count_center_lines
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.physics.coils import rss
from echotrain.physics.fft import fft2c

SMALL = VarNetConfig(num_cascades=2, chans=4, pools=2, sens_chans=3, sens_pools=2)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SMALL.build()


def scan(height=32, width=36, *, coils=4, batch=1):
    generator = torch.Generator().manual_seed(1)
    kspace = torch.randn(batch, coils, height, width, dtype=torch.complex64, generator=generator)
    mask = torch.zeros(batch, 1, 1, width, dtype=torch.bool)
    mask[..., ::3] = True
    mask[..., width // 2 - 4 : width // 2 + 4] = True
    return kspace * mask, mask, torch.full((batch,), 8)


@pytest.mark.parametrize(("num_cascades", "expected"), [(12, 29_936_966), (8, 20_119_610)])
def test_parameter_counts_are_the_published_ones(num_cascades, expected):
    with torch.device("meta"):
        model = VarNetConfig(num_cascades=num_cascades).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("name", ["num_cascades", "chans", "pools", "sens_chans", "sens_pools"])
def test_a_size_below_one_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}=0"):
        VarNetConfig(**{name: 0})


@pytest.fixture(params=[True, False], ids=["left out", "zeros that stay zero"])
def _padding(request, monkeypatch):
    """Treat padded coils as a CPU does, and as a GPU, which is not asked which they are."""
    monkeypatch.setattr(sensitivity, "_leaves_out_padding", lambda device: request.param)


@pytest.mark.usefixtures("_padding")
def test_padded_coils_change_nothing_with_or_without_a_coil_mask(model):
    kspace, mask, num_low = scan(33, 41, batch=2)
    padded = torch.cat((kspace, torch.zeros_like(kspace[:, :3])), dim=1)
    coil_mask = torch.arange(7).lt(4).expand(2, 7)
    expected = model(kspace, mask, num_low)
    torch.testing.assert_close(model(padded, mask, num_low, coil_mask), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(padded, mask, num_low), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_padding")
def test_samples_with_different_numbers_of_coils_share_a_batch(model):
    kspace, mask, num_low = scan(batch=2)
    kspace[1, 2:] = 0
    coil_mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    outputs = model(kspace, mask, num_low, coil_mask)
    torch.testing.assert_close(outputs[1:], model(kspace[1:, :2], mask[1:], num_low[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_padding")
def test_gradients_with_padded_coils_are_finite_and_the_same(model):
    kspace, mask, num_low = scan(batch=2)
    model(kspace, mask, num_low).sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    padded = torch.cat((kspace, torch.zeros_like(kspace[:, :2])), dim=1)
    model(padded, mask, num_low, torch.arange(6).lt(4).expand(2, 6)).sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().amax() + 1))


def test_the_order_of_coils_does_not_matter(model):
    kspace, mask, num_low = scan(coils=5)
    shuffled = kspace[:, torch.tensor([3, 0, 4, 2, 1])]
    torch.testing.assert_close(model(shuffled, mask, num_low), model(kspace, mask, num_low), rtol=1e-5, atol=1e-6)


def test_activation_checkpointing_leaves_gradients_as_they_are(model):
    kspace, mask, num_low = scan(33, 37)
    gradients = []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        model(kspace, mask, num_low).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=0, atol=0)


def test_one_batch_can_be_learned_by_heart(model):
    blocks = torch.randn(1, 2, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))
    images = blocks.repeat_interleave(4, -1).repeat_interleave(4, -2)
    _, mask, num_low = scan(32, 32)
    kspace, target = fft2c(images) * mask, rss(images)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (model(kspace, mask, num_low) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_bf16_autocast_keeps_physics_in_single_precision(model):
    kspace, mask, num_low = scan()
    expected = model(kspace, mask, num_low)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(kspace, mask, num_low)
    assert output.dtype == torch.float32
    output.sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    assert torch.linalg.vector_norm(output - expected) < 0.05 * torch.linalg.vector_norm(expected)


def test_the_regularizer_maps_zero_images_to_zero_with_finite_gradients():
    unet = NormUnet(3, 2)
    image = torch.zeros(2, 20, 20, dtype=torch.complex64, requires_grad=True)
    output = unet(image)
    assert torch.count_nonzero(output) == 0
    output.abs().square().sum().backward()
    assert image.grad.abs().isfinite().all()


@pytest.mark.parametrize(("lines", "expected"), [("0111010", 2), ("0011100", 2), ("1111111", 1), ("00111100", 4), ("10010010", 1)])
def test_centre_lines_are_counted_symmetrically(lines, expected):
    mask = torch.tensor([[character == "1" for character in lines]])[:, None, None]
    assert count_center_lines(mask).tolist() == [expected]


@pytest.mark.parametrize(("width", "num", "first"), [(10, 4, 3), (10, 3, 4), (11, 4, 4), (11, 5, 3)])
def test_the_centre_lies_where_the_mask_functions_put_it(width, num, first):
    lines = center_lines(torch.ones(1, 1, 1, width, dtype=torch.bool), torch.tensor([num]))
    assert lines.flatten().nonzero().flatten().tolist() == list(range(first, first + num))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about torch
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_regularizers_change_neither_names_nor_outputs_nor_gradients(model):
    compiled = replace(SMALL, compile_regularizer=True, activation_checkpointing=True).build()
    compiled.load_state_dict(model.state_dict())
    kspace, mask, num_low = scan()
    expected, output = model(kspace, mask, num_low), compiled(kspace, mask, num_low)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    for network, image in ((model, expected), (compiled, output)):
        image.square().mean().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
    for ours, plain in zip(compiled.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-3, atol=1e-3 * float(plain.grad.abs().amax()))
