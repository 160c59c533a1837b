"""ESPIRiT: in the units of the RSS image, better than zero-filled, and untouched by what must not matter."""

import h5py
import numpy as np
import pytest

from echotrain.baselines import espirit
from echotrain.baselines.bart import Bart, find_bart
from echotrain.baselines.espirit import EspiritConfig, reconstruct
from echotrain.data.formats.target import rss_target
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.errors import BartError, ConfigError, ResourceError, ScanError
from echotrain.metrics.volume import psnr
from echotrain.physics.crop import center_crop
from echotrain.physics.masks import MaskConfig, line_mask

HARDLY_REGULARIZED = EspiritConfig(regularization=1e-6, iterations=50)
QUICK = EspiritConfig(iterations=20)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Return a maker of one slice of simulated k-space, (coils, height, width)."""

    def make(anatomy="brain", *, matrix=96, noise=0.01):
        config = SimulationConfig(num_patients=1, volumes_per_patient=1, num_slices=1, matrix=matrix, anatomies=(anatomy,), noise=noise)
        (path,) = simulate(config, tmp_path_factory.mktemp("scans"))
        with h5py.File(path) as file:
            return file["kspace"][0]

    return make


def undersampled(kspace, num_low, acceleration=4, volume="volume"):
    """Return k-space that is zero outside a random mask with ``num_low`` centre lines."""
    config = MaskConfig(kind="random", accelerations=(acceleration,), center_fractions=(num_low / kspace.shape[-1],))
    sampling = line_mask(config, kspace.shape[-1], seed=0, dataset="test", volume=volume, epoch=None)
    assert sampling.num_low_frequencies == num_low
    return kspace * sampling.mask


def zero_filled(kspace):
    return rss_target(kspace, kspace.shape[-2:])


def decibels(target, image):
    return psnr(target[None], image[None])


@pytest.mark.bart
@pytest.mark.parametrize(("shape", "least_db"), [((96, 96), 100), ((95, 96), 50), ((96, 85), 50), ((87, 81), 50)])
def test_a_full_scan_without_noise_becomes_its_rss_image(simulated, shape, least_db):
    kspace = np.ascontiguousarray(center_crop(simulated(noise=0), shape))
    target = zero_filled(kspace)
    image = reconstruct(kspace, 24, HARDLY_REGULARIZED)
    assert image.dtype == np.float32
    assert decibels(target, image) > least_db
    assert np.vdot(image, target) / np.vdot(image, image) == pytest.approx(1, abs=5e-4)


@pytest.mark.bart
def test_with_noise_a_full_scan_still_becomes_its_rss_image_inside_the_maps(simulated):
    kspace = simulated()
    target, image = zero_filled(kspace), reconstruct(kspace, 24, HARDLY_REGULARIZED)
    inside = image > 0.01 * image.max()
    assert 0.3 < inside.mean() < 0.7
    assert decibels(target * inside, image) > 40


@pytest.mark.bart
@pytest.mark.parametrize(("matrix", "num_low", "least_gain_db"), [(96, 8, 4), (128, 10, 6), (128, 11, 6), (128, 4, 3)])
def test_at_a_quarter_of_the_lines_it_beats_zero_filled(simulated, matrix, num_low, least_gain_db):
    kspace = simulated(matrix=matrix)
    measured = undersampled(kspace, num_low)
    target = zero_filled(kspace)
    gain = decibels(target, reconstruct(measured, num_low)) - decibels(target, zero_filled(measured))
    assert gain > least_gain_db


# The 16-coil scan is noisy: fully sampled, ESPIRiT is 29 dB from the RSS, so it has little to gain where zero-filled is near that.
@pytest.mark.bart
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "acceleration", "num_low", "least_gain_db"),
    [("brain_t2_4ch", 4, 20, 4), ("phantom_gre_4ch_trio3T", 4, 20, 2), ("brain_flash_16ch_cimax3T", 4, 10, 3)],
)
def test_on_real_scans_it_beats_zero_filled(scanner_data, name, acceleration, num_low, least_gain_db):
    with h5py.File(scanner_data / f"{name}.h5") as file:
        kspace = file["kspace"][0]
    measured = undersampled(kspace, num_low, acceleration, volume=name)
    target = zero_filled(kspace)
    gain = decibels(target, reconstruct(measured, num_low)) - decibels(target, zero_filled(measured))
    assert gain > least_gain_db


@pytest.mark.bart
def test_with_24_centre_lines_or_more_it_is_what_run_bart_of_fastmri_runs(simulated):
    measured = undersampled(simulated(matrix=128), 26, acceleration=3)
    bart, data = Bart(executable=find_bart()), measured.transpose(1, 2, 0)[None]
    (maps,) = bart.run("ecalib", ["-d0", "-m1", "-r", "26"], [data])
    (image,) = bart.run("pics", ["-d0", "-S", "-R", "T:7:0:0.01", "-i", "200"], [data, maps])
    np.testing.assert_allclose(reconstruct(measured, 26), np.abs(image[0]), rtol=1e-3, atol=1e-4 * np.abs(image).max())


@pytest.mark.bart
def test_two_sets_of_maps_describe_an_object_larger_than_the_field_of_view(simulated):
    kspace = simulated("knee")
    target = zero_filled(kspace)
    one, two = (reconstruct(kspace, 24, EspiritConfig(regularization=1e-6, iterations=50, maps=maps)) for maps in (1, 2))
    assert decibels(target, two) > decibels(target, one) + 15


@pytest.mark.bart
def test_the_same_kspace_gives_the_same_image_in_any_unit(simulated):
    measured = undersampled(simulated(), 8)
    image = reconstruct(measured, 8, QUICK)
    assert reconstruct(measured, 8, QUICK).tobytes() == image.tobytes()
    np.testing.assert_array_equal(reconstruct(measured * np.float32(2.0**-60), 8, QUICK), image * np.float32(2.0**-60))
    np.testing.assert_allclose(
        reconstruct(measured * np.float32(1e9), 8, QUICK), image * np.float32(1e9), rtol=1e-3, atol=1e5 * image.max()
    )


@pytest.mark.bart
def test_padding_coils_leaves_the_image_unchanged(simulated):
    measured = undersampled(simulated(), 8)
    padded = np.pad(measured, ((0, 3), (0, 0), (0, 0)))
    np.testing.assert_array_equal(reconstruct(padded, 8, QUICK), reconstruct(measured, 8, QUICK))


@pytest.mark.bart
def test_one_coil_and_the_smallest_matrix_are_enough(simulated):
    kspace = np.ascontiguousarray(center_crop(simulated(noise=0), (16, 16)))[:1]
    assert decibels(zero_filled(kspace), reconstruct(kspace, 16, HARDLY_REGULARIZED)) > 40


@pytest.mark.bart
def test_calibration_that_finds_no_maps_gives_an_empty_image_and_a_warning(caplog):
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal((16, 16, 16)) + 1j * rng.standard_normal((16, 16, 16))).astype(np.complex64)
    image = reconstruct(noise, 2, QUICK)
    assert not image.any()
    assert "no coil maps" in caplog.text


@pytest.mark.bart
def test_a_time_limit_holds(simulated):
    with pytest.raises(BartError, match=r"bart ecalib .* took longer than timeout_s=0\.001"):
        reconstruct(simulated(), 24, EspiritConfig(timeout_s=0.001))


class _Asked(Exception):
    """Ends a reconstruction once it is known what BART is asked."""


@pytest.fixture
def asked(monkeypatch):
    """Return a function that tells what ``ecalib`` is asked: its options as a dictionary, and the acquired lines of its k-space."""

    def run(self, tool, args, inputs, num_outputs=1):
        raise _Asked(tool, args, inputs[0])

    def ask(kspace, num_low):
        with pytest.raises(_Asked) as raised:
            reconstruct(kspace, num_low)
        tool, args, given = raised.value.args
        assert (tool, args[:2]) == ("ecalib", ["-d0", "-m1"])
        return dict(zip(args[2::2], args[3::2], strict=True)), given.any(axis=(0, 1, 3))

    monkeypatch.setattr(Bart, "run", run)
    monkeypatch.setattr(espirit, "find_bart", lambda: None)
    return ask


def with_center(num_low, width, height=64):
    """Return k-space of ones in the centre lines, where fastMRI's masks put them."""
    kspace = np.zeros((2, height, width), np.complex64)
    first = (width - num_low + 1) // 2
    kspace[..., first : first + num_low] = 1
    return kspace


@pytest.mark.parametrize(("num_low", "width"), [(24, 128), (11, 128), (4, 33), (5, 33), (33, 33), (2, 16)])
def test_every_centre_line_lies_where_bart_looks_for_it(asked, num_low, width):
    options, lines = asked(with_center(num_low, width), num_low)
    assert options["-r"].endswith(f":{num_low}")
    assert np.flatnonzero(lines).tolist() == list(range((width - num_low) // 2, (width - num_low) // 2 + num_low))


@pytest.mark.parametrize(
    ("num_low", "height", "region", "kernel"),
    [
        (30, 64, "1:30:30", "1:6:6"),
        (24, 64, "1:24:24", "1:6:6"),
        (12, 64, "1:24:12", "1:6:6"),
        (11, 64, "1:24:11", "1:6:5"),
        (4, 64, "1:24:4", "1:6:2"),
        (3, 64, "1:24:3", "1:6:2"),
        (30, 20, "1:20:30", "1:6:6"),
    ],
)
def test_few_centre_lines_narrow_the_kernel_and_keep_the_readout(asked, num_low, height, region, kernel):
    options, _ = asked(with_center(num_low, 64, height), num_low)
    assert options == {"-r": region, "-k": kernel}


def test_centre_lines_that_kspace_lacks_are_not_counted_on(asked):
    kspace = with_center(10, 64)
    kspace[..., :30] = 0  # partial Fourier
    assert asked(kspace, 10)[0]["-r"] == "1:24:7"
    assert asked(np.ones_like(kspace), 10)[0]["-r"] == "1:24:10"
    assert asked(np.ones_like(kspace), 1000)[0]["-r"] == "1:64:64"


@pytest.mark.parametrize("num_low", [0, 1, -3])
def test_less_than_two_centre_lines_are_refused(num_low):
    with pytest.raises(ConfigError, match=rf"{max(num_low, 0)} fully sampled centre lines .*at least 2.*center_fraction"):
        reconstruct(np.ones((2, 16, 16), np.complex64), num_low)


def test_a_centre_that_was_not_acquired_is_refused():
    kspace = with_center(10, 64)
    kspace[..., 32] = 0
    with pytest.raises(ConfigError, match="0 fully sampled centre lines"):
        reconstruct(kspace, 10)


def test_more_sets_of_maps_than_coils_are_refused():
    with pytest.raises(ConfigError, match="maps=3: cannot exceed the 2 coils"):
        reconstruct(np.pad(np.ones((2, 16, 16), np.complex64), ((0, 4), (0, 0), (0, 0))), 8, EspiritConfig(maps=3))


def test_empty_kspace_gives_an_empty_image_without_bart(monkeypatch):
    monkeypatch.setenv("ECHOTRAIN_BART", "/nowhere/bart")
    image = reconstruct(np.zeros((4, 20, 18), np.complex64), 4)
    assert (image.shape, image.dtype, image.any()) == ((20, 18), np.float32, False)


def test_without_bart_the_error_says_so(monkeypatch):
    monkeypatch.setenv("ECHOTRAIN_BART", "/nowhere/bart")
    with pytest.raises(ResourceError, match="ECHOTRAIN_BART"):
        reconstruct(np.ones((4, 20, 18), np.complex64), 4)


@pytest.mark.parametrize("shape", [(20, 18), (1, 4, 20, 18), (0, 20, 18), (4, 15, 18), (4, 20, 15)])
def test_anything_but_one_slice_is_refused(shape):
    with pytest.raises(ScanError, match=r"must be complex64 \(coils, height, width\)"):
        reconstruct(np.ones(shape, np.complex64), 4)


def test_another_precision_is_refused():
    with pytest.raises(ScanError, match=r"k-space of complex128"):
        reconstruct(np.ones((4, 20, 18), np.complex128), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, complex(0, -np.inf)])
def test_samples_that_are_not_finite_are_refused(value):
    kspace = np.ones((4, 20, 18), np.complex64)
    kspace[1, 2, 3] = value
    with pytest.raises(ScanError, match="must be finite"):
        reconstruct(kspace, 4)


@pytest.mark.parametrize(
    "setting",
    [
        {"regularization": -0.1},
        {"regularization": float("nan")},
        {"regularization": float("inf")},
        {"iterations": 0},
        {"maps": 0},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        EspiritConfig(**setting)
