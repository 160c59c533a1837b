"""What a network draws belongs to a sample and a place in the network: not to a batch, a rank, or the first of two passes."""

import pytest
import torch
from torch import nn

from echotrain.data.catalog.identity import SampleId
from echotrain.errors import ConfigError, TrainingError
from echotrain.models.layers import draws
from echotrain.models.layers.draws import drawing, name_places, no_global_draws, regrouped
from echotrain.models.layers.dropout import Dropout, Dropout2d, DropPath
from echotrain.models.unrolled import sensitivity
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.seeding import uniforms

CPU = torch.device("cpu")
CONFIG = VarNetConfig(num_cascades=2, chans=3, pools=1, sens_chans=2, sens_pools=1, drop_prob=0.4)
NUM, COILS, SIZE = 4, 3, (18, 22)


def roots_of(num, epoch=0):
    return tuple(SampleId("simulated", f"v{index}", index).root(7, epoch) for index in range(num))


def named(layer):
    name_places(layer)
    return layer


@pytest.fixture(scope="module")
def samples():
    """Slices of one, two and three coils, padded to three."""
    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(NUM, COILS, *SIZE, dtype=torch.complex64, generator=generator)
    coil_mask = torch.arange(COILS) < torch.tensor([1, 3, 2, 3])[:, None]
    mask = torch.zeros(NUM, 1, 1, SIZE[1], dtype=torch.bool)
    mask[..., ::2] = True
    mask[..., 9:13] = True
    return kspace * coil_mask[..., None, None] * mask, mask, torch.full((NUM,), 4), coil_mask


def build(**changes):
    torch.manual_seed(0)
    return named(VarNetConfig(**{**vars(CONFIG), **changes}).build())


def run(network, samples, rows, epoch=0):
    """Return the images of some of the samples, and the gradient that they give."""
    network.zero_grad()
    with drawing([roots_of(NUM, epoch)[row] for row in rows]):
        images = network(*(part[rows] for part in samples))
        images.square().sum().backward()
    return images.detach(), torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("groups", [[[2, 0, 3, 1]], [[0, 1], [2, 3]], [[0], [1], [2], [3]], [[3, 1, 0], [2]]])
def test_a_sample_draws_the_same_in_any_batch(samples, groups, checkpointed, monkeypatch):
    monkeypatch.setattr(sensitivity, "_PIXELS_AT_ONCE", 2 * SIZE[0] * SIZE[1])
    images, gradient = run(build(), samples, [0, 1, 2, 3])
    network, together = build(activation_checkpointing=checkpointed), torch.zeros_like(gradient)
    for rows in groups:
        some, part = run(network, samples, rows)
        torch.testing.assert_close(some, images[rows], rtol=1e-4, atol=1e-5)
        together += part
    torch.testing.assert_close(together, gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())


def test_the_second_pass_of_activation_checkpointing_draws_what_the_first_drew(samples):
    plain, checkpointed = (run(build(activation_checkpointing=on), samples, [0, 1, 2, 3]) for on in (False, True))
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-5 * plain[1].abs().max().item())


def test_each_epoch_coil_and_cascade_draws_anew(samples, monkeypatch):
    drawn = []
    monkeypatch.setattr(draws, "uniforms", lambda seeds, *rest: drawn.extend(seeds) or uniforms(seeds, *rest))
    network = build()
    for epoch in (0, 1):
        run(network, samples, [0, 1, 2, 3], epoch)
    # Two draws in each of three blocks: of two cascades for four samples, and of the sensitivities for nine coils.
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 3 * (2 * 4 + 9)


@pytest.mark.parametrize("changes", [{"drop_prob": 0.0}, {}])
def test_nothing_is_drawn_with_probability_zero_or_outside_of_training(samples, changes, monkeypatch):
    monkeypatch.setattr(draws, "uniforms", lambda *_: pytest.fail("something was drawn"))
    network = build(**changes).train("drop_prob" in changes)
    with torch.no_grad():
        network(*samples)


def test_dropout_adds_no_name_to_a_state_and_moves_no_initial_weight():
    kept, dropped = build(drop_prob=0.0).state_dict(), build().state_dict()
    assert list(kept) == list(dropped)
    assert all(torch.equal(kept[name], dropped[name]) for name in kept)


@pytest.mark.parametrize(
    ("cls", "units"), [(Dropout, (5, 6, 7)), (Dropout2d, (5, 1, 1)), (DropPath, (1, 1, 1))], ids=["numbers", "channels", "samples"]
)
def test_what_is_dropped_together_is_and_the_rest_keeps_the_mean(cls, units):
    layer, x = named(nn.Sequential(cls(0.25))), torch.ones(400, 5, 6, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    with drawing(roots_of(400)):
        y = layer(x)
    assert torch.equal(y, y[:, : units[0], : units[1], : units[2]].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    num_units = 400 * units[0] * units[1] * units[2]
    assert abs(y.mean().item() - 1) < 4 * (0.25 / 0.75 / num_units) ** 0.5
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_a_layer_draws_anew_each_time_it_is_called_and_two_layers_never_the_same():
    network, x = named(nn.ModuleList([Dropout(0.5), Dropout(0.5)])), torch.ones(2, 64)
    with drawing(roots_of(2)):
        outputs = [network[0](x), network[0](x), network[1](x)]
    rows = [tuple(row) for output in outputs for row in output.tolist()]
    assert len(set(rows)) == len(rows)


def test_crops_of_samples_are_rows_of_their_own_in_any_batch():
    layer, x = named(Dropout(0.5)), torch.ones(6, 32)
    with drawing(roots_of(3)), regrouped(lambda: [(sample, crop) for crop in range(2) for sample in range(3)]):
        together = layer(x)
    for sample in range(3):
        with drawing(roots_of(3)[sample : sample + 1]), regrouped(lambda: [(0, 0), (0, 1)]):
            assert torch.equal(layer(x[:2]), together[sample::3])
    assert len({tuple(row) for row in together.tolist()}) == 6


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_compiled_network_draws_the_same():
    network, x = named(nn.Sequential(nn.Linear(5, 8), Dropout(0.3))), torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    results = []
    for call in (network, torch.compile(network, backend="eager")):
        with drawing(roots_of(3)):
            results.append(call(x))
    assert torch.equal(*results)
    assert (results[0] == 0).any()


def test_a_draw_without_a_sample_a_place_or_the_right_rows_is_an_error():
    x, layer = torch.ones(3, 4), named(Dropout(0.5))
    with drawing(roots_of(3)):
        layer(x)
    with pytest.raises(TrainingError, match="of no sample"):
        layer(x)
    with pytest.raises(TrainingError, match="has no place"), drawing(roots_of(3)):
        Dropout(0.5)(x)
    with pytest.raises(TrainingError, match=r"3 rows in 1: are not the 2"), drawing(roots_of(2)):
        named(nn.Sequential(nn.Identity(), Dropout(0.5)))(x)


@pytest.mark.parametrize("draw", [lambda: nn.Dropout(0.5)(torch.ones(3)), lambda: torch.rand(1), lambda: torch.manual_seed(1)])
def test_a_draw_from_the_global_generator_is_an_error(draw):
    with pytest.raises(TrainingError, match="global generator"), no_global_draws(CPU):
        draw()
    with no_global_draws(CPU), torch.random.fork_rng(devices=[]):
        draw()


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_a_probability_that_cannot_be_is_refused(probability):
    with pytest.raises(ConfigError, match="must lie in"):
        Dropout(probability)
    with pytest.raises(ConfigError, match="drop_prob"):
        VarNetConfig(drop_prob=probability)


def splitmix64(state, count):
    """The generator of Steele et al., word for word."""
    mask = (1 << 64) - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def test_uniform_numbers_are_splitmix64s():
    assert list(splitmix64(1234567, 3)) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    seeds = [0, 1234567, (1 << 63) - 1, *roots_of(3)]
    expected = [[(z >> 40) / 2**24 for z in splitmix64(seed, 37)] for seed in seeds]
    found = uniforms(seeds, 37, CPU)
    assert (found.dtype, found.tolist()) == (torch.float32, expected)
    assert uniforms(seeds, 0, CPU).shape == (6, 0)
