"""What counts as acquired, as a hole, and as the centre of k-space."""

import numpy as np
import pytest
import torch

from echotrain.data.formats.checks.energy import acquired, energy_of, find_holes, find_peak, finite_energy, is_off_center, tolerance
from echotrain.physics.fft import fft2c, ifft2c
from tests.scans import object_kspace, random_kspace

SHAPES = [(1, 4, 64, 48), (1, 1, 65, 47), (1, 7, 33, 90)]


def there_and_back(kspace: np.ndarray) -> np.ndarray:
    """Return k-space after a Fourier transform there and back in single precision."""
    return fft2c(ifft2c(torch.from_numpy(kspace))).numpy()


def lines_of_rate(width: int, rate: int) -> np.ndarray:
    lines = np.arange(width) % rate == 1
    lines[width // 2 - 3 : width // 2 + 3] = True
    return lines


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-15, 1e12])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_energy_is_that_of_all_coils_at_any_scale(shape, scale):
    kspace = random_kspace(shape)[0] * np.float32(scale)
    expected = np.square(np.abs(kspace.astype(np.complex128))).sum(axis=0)
    np.testing.assert_allclose(energy_of(kspace), expected, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1j * np.nan])
def test_the_energy_of_what_is_not_finite_is_not_finite_and_tells_nothing(value):
    kspace = object_kspace((1, 3, 32, 24))[0]
    kspace[1, 5, 7] = value
    assert not np.isfinite(energy_of(kspace)).any()
    assert not finite_energy(kspace).any()


@pytest.mark.parametrize("make", [object_kspace, random_kspace], ids=["object", "noise"])
@pytest.mark.parametrize("rounds", [0, 1, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_lines_that_hold_only_the_dust_of_rounding_are_not_acquired(shape, rounds, make):
    lines = lines_of_rate(shape[-1], 4)
    kspace = (make(shape) * lines).astype(np.complex64)[0]
    for _ in range(rounds):
        kspace = there_and_back(kspace)
    if rounds:
        assert kspace[..., ~lines].any(), "the round trip leaves dust, or this test shows nothing"
    np.testing.assert_array_equal(acquired(energy_of(kspace)), lines)


def test_coarser_dust_is_told_by_the_gap_above_it():
    lines = lines_of_rate(48, 3)
    kspace = object_kspace((1, 4, 64, 48))[0] * lines
    dust = 2e-5 * np.abs(kspace).max() * random_kspace(kspace.shape) * ~lines * 0.1
    weakest = np.abs(kspace).max(axis=(0, 1))[lines].min()
    assert weakest > 100 * np.abs(dust).max()
    np.testing.assert_array_equal(acquired(energy_of(kspace + dust)), lines)


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_weak_lines_that_were_measured_count_as_acquired(shape, noise):
    kspace = object_kspace(shape, noise=noise)[0]
    assert acquired(energy_of(kspace)).all()
    assert acquired(energy_of(kspace), axis=0).all()
    assert find_holes(energy_of(kspace)).lines == 0


@pytest.mark.parametrize("is_dusty", [False, True])
def test_a_two_dimensional_pattern_has_holes_though_no_line_is_empty(is_dusty):
    kspace = object_kspace((1, 4, 64, 48))[0]
    mask = np.random.default_rng(0).random((64, 48)) < 0.4
    mask[26:38, 18:30] = True
    sampled = (kspace * mask).astype(np.complex64)
    sampled = there_and_back(sampled) if is_dusty else sampled
    assert acquired(energy_of(sampled)).all()
    holes = find_holes(energy_of(sampled))
    assert holes.lines == 48
    assert holes.share == pytest.approx(float((~mask).mean()), abs=0.03)


def test_half_a_readout_and_cut_corners_are_holes_and_partial_echoes_are_none():
    kspace = object_kspace((1, 4, 64, 48))[0]
    half = kspace.copy()
    half[:, :32, 10] = 0
    assert find_holes(energy_of(half)).lines == 1
    y, x = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 48), indexing="ij")
    assert find_holes(energy_of(kspace * (y**2 + x**2 <= 1))).lines > 10
    partial = kspace.copy()
    partial[:, :16], partial[..., 40:] = 0, 0
    assert find_holes(energy_of(partial)).lines == 0
    turned = kspace.copy()
    turned[:, 0, ::2] = 0  # what turning every second readout over costs
    assert find_holes(energy_of(turned)).lines == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_peak_lies_at_half_the_size_and_follows_a_shift(shape):
    kspace = object_kspace(shape)[0]
    for axis, size in ((0, shape[2]), (1, shape[3])):
        peak = find_peak(energy_of(kspace), axis)
        assert peak.is_distinct
        assert abs(peak.line - size // 2) <= 1
        assert not is_off_center(peak, size)
        shifted = find_peak(energy_of(np.roll(kspace, -size // 2, axis=axis + 1)), axis)
        assert is_off_center(shifted, size)


def test_small_shifts_partial_fourier_and_asymmetric_echoes_pass():
    kspace = object_kspace((1, 4, 128, 96))[0]
    moved = np.roll(kspace, (tolerance(128) - 1, -(tolerance(96) - 1)), axis=(1, 2))
    moved[..., :30], moved[:, 100:] = 0, 0
    energy = energy_of(moved)
    assert not is_off_center(find_peak(energy, 0), 128)
    assert not is_off_center(find_peak(energy, 1), 96)


def test_noise_has_no_centre_and_one_spike_makes_none():
    noise = random_kspace((4, 64, 48))
    assert not find_peak(energy_of(noise)).is_distinct
    spiked = object_kspace((1, 4, 64, 48))[0]
    spiked[:, 3, 5] = 3 * np.abs(spiked).max()
    assert not is_off_center(find_peak(energy_of(spiked), 1), 48)
    assert not is_off_center(find_peak(energy_of(spiked), 0), 64)


def energy_at_once(kspace: np.ndarray) -> np.ndarray:
    """Return ``energy_of`` finite k-space as it is defined, whole coils at a time."""
    pairs = torch.view_as_real(torch.from_numpy(kspace))
    largest = float(pairs.abs().max())
    energy = torch.zeros(pairs.shape[1:])
    for coil in pairs:
        scaled = coil / largest
        energy.addcmul_(scaled, scaled)
    return np.asarray(energy.sum(-1).numpy(), np.float64) * largest**2


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 700, 37), (5, 33, 1500), (4, 257, 193), (1, 3, 60_001)])
def test_the_energy_by_blocks_of_rows_is_that_of_whole_coils_to_the_bit(shape):
    rng = np.random.default_rng(shape[1])
    kspace = random_kspace(shape) * np.exp(rng.normal(0, 5, shape)).astype(np.float32)
    np.testing.assert_array_equal(energy_of(kspace), energy_at_once(kspace))
