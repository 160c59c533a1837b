"""Hand-written operations against the library's, and their gradients against finite differences."""

import pytest
import torch
import torch.nn.functional as F

from echotrain.models.layers import channels_last
from echotrain.models.layers.activated_norm import norm_leaky_relu_
from echotrain.models.layers.channels_last import conv1x1, conv3x3, conv_weight_gradient, upsample2x2
from echotrain.models.layers.complex_channels import channels_to_complex, complex_to_channels

FORMATS = [torch.contiguous_format, torch.channels_last]


def draw(*shape, memory_format=torch.channels_last, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 3, 6, 5), (3, 2, 4, 7)])
def test_activated_norm_equals_instance_norm_and_leaky_relu(shape, memory_format):
    x = draw(*shape, memory_format=memory_format)
    torch.testing.assert_close(norm_leaky_relu_(x.clone()), F.leaky_relu(F.instance_norm(x), 0.2))
    assert torch.autograd.gradcheck(lambda x: norm_leaky_relu_(x.clone()), x)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_activated_norm_of_bf16_takes_its_statistics_in_float32(memory_format):
    # A mean of 300 swallows the deviations in bf16 statistics, though the values themselves differ.
    x = (draw(2, 3, 64, 64, memory_format=memory_format, dtype=torch.float32).detach() * 4 + 300).bfloat16().requires_grad_()
    expected = F.leaky_relu(F.instance_norm(x.detach().float()), 0.2)
    output = norm_leaky_relu_(x.clone())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=1e-2, atol=1e-2)
    output.float().square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("in_chans", [(3,), (2, 3), (20,)])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_conv3x3_equals_the_library_s_over_concatenated_inputs(in_chans, memory_format, monkeypatch):
    monkeypatch.setattr(channels_last, "_FEW_CHANNELS", 2)
    inputs = [draw(2, chans, 5, 4, memory_format=memory_format) for chans in in_chans]
    weight = draw(4, sum(in_chans), 3, 3, memory_format=torch.contiguous_format)
    torch.testing.assert_close(conv3x3(weight, *inputs), F.conv2d(torch.cat(inputs, 1), weight, padding=1))
    assert torch.autograd.gradcheck(conv3x3, (weight, *inputs), fast_mode=True)


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_conv3x3_computes_only_the_gradients_asked_for(needs):
    weight, x = draw(4, 3, 3, 3).detach().requires_grad_(needs[0]), draw(1, 3, 5, 4).detach().requires_grad_(needs[1])
    conv3x3(weight, x).sum().backward()
    assert (weight.grad is not None, x.grad is not None) == needs


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1), (2, 2), (3, 8), (8, 3), (20, 18)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("pixels_per_piece", [7, 4096])
def test_weight_gradients_by_products_equal_the_library_s(size, batch, pixels_per_piece, monkeypatch):
    monkeypatch.setattr(channels_last, "_PIXELS_PER_PIECE", pixels_per_piece)
    x, grad = draw(batch, 3, *size).detach(), draw(batch, 4, *size).detach()
    expected = torch.nn.grad.conv2d_weight(x, (4, 3, 3, 3), grad, padding=1)
    torch.testing.assert_close(conv_weight_gradient(x, grad), expected)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_upsample2x2_equals_the_library_s(memory_format):
    x, weight = draw(2, 4, 3, 5, memory_format=memory_format), draw(4, 3, 2, 2, memory_format=torch.contiguous_format)
    torch.testing.assert_close(upsample2x2(weight, x), F.conv_transpose2d(x, weight, stride=2))
    assert torch.autograd.gradcheck(upsample2x2, (weight, x))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_conv1x1_equals_the_library_s(memory_format):
    x, weight, bias = (
        draw(2, 4, 3, 5, memory_format=memory_format),
        draw(3, 4, 1, 1),
        torch.randn(3, dtype=torch.float64, requires_grad=True),
    )
    torch.testing.assert_close(conv1x1(weight, bias, x), F.conv2d(x, weight, bias))
    assert torch.autograd.gradcheck(conv1x1, (weight, bias, x))


def test_complex_images_are_seen_as_channels_without_a_copy():
    image = torch.randn(2, 4, 5, dtype=torch.complex64)
    channels = complex_to_channels(image)
    assert channels.data_ptr() == image.data_ptr()
    assert channels.is_contiguous(memory_format=torch.channels_last)
    again = channels_to_complex(channels)
    assert again.data_ptr() == image.data_ptr()
    assert torch.equal(again, image)
