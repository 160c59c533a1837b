import hashlib

import numpy as np
import pytest

from echotrain.config import from_dict, to_dict
from echotrain.errors import ConfigError
from echotrain.physics.masks import MaskConfig, count_low_frequencies, line_mask

KINDS = ["random", "equispaced", "equispaced_fraction", "magic", "magic_fraction"]

# Observed from the public fastMRI code for "file1000001.h5": width, kind, centre fraction, R, centre lines, lines, first six, sha1.
PUBLIC_MASKS = [
    (368, "random", 0.08, 4, 29, 81, [3, 6, 7, 11, 15, 16], "b472e3e26b"),
    (368, "random", 0.04, 8, 15, 44, [3, 6, 7, 11, 31, 57], "b75233efb2"),
    (368, "equispaced", 0.08, 4, 29, 114, [3, 7, 11, 15, 19, 23], "f79466e304"),
    (368, "equispaced_fraction", 0.08, 4, 29, 91, [3, 8, 14, 19, 25, 30], "dae6236cb8"),
    (368, "equispaced_fraction", 0.04, 8, 15, 46, [3, 14, 26, 37, 49, 60], "367178ecaf"),
    (368, "magic", 0.08, 4, 29, 114, [1, 5, 9, 13, 17, 21], "f4a27b4cf9"),
    (368, "magic_fraction", 0.04, 8, 15, 44, [1, 13, 25, 37, 49, 61], "41b13bc738"),
    (372, "random", 0.08, 4, 30, 81, [3, 6, 7, 11, 15, 31], "8024bc6ff4"),
    (372, "equispaced_fraction", 0.08, 4, 30, 92, [3, 8, 14, 19, 25, 30], "8f47cb0222"),
    (372, "equispaced_fraction", 0.04, 8, 15, 47, [3, 14, 26, 37, 48, 60], "efa427ecc4"),
    (320, "equispaced_fraction", 0.08, 4, 26, 80, [3, 8, 14, 19, 25, 30], "1e2a6bbd2a"),
    (320, "random", 0.04, 8, 13, 38, [3, 6, 7, 11, 31, 57], "f4a28e54ce"),
]

# The project's own seeding, pinned: a mask that changes would silently change every training run and every evaluation.
OWN_MASKS = {
    "random": "01c5055f94",
    "equispaced": "f4a27b4cf9",
    "equispaced_fraction": "0151f8f51e",
    "magic": "f79466e304",
    "magic_fraction": "e73eaf3418",
}


def sha1(mask: np.ndarray) -> str:
    return hashlib.sha1(mask.astype(np.uint8).tobytes()).hexdigest()[:10]


def draw(config: MaskConfig, width: int = 368, seed: int = 0, dataset: str = "knees", volume: str = "a", epoch: int | None = None, **more):
    return line_mask(config, width, seed=seed, dataset=dataset, volume=volume, epoch=epoch, **more)


@pytest.mark.parametrize(("width", "kind", "fraction", "acceleration", "num_low", "num_lines", "first", "digest"), PUBLIC_MASKS)
@pytest.mark.parametrize("volume", ["file1000001.h5", "file1000001"])
def test_fastmri_seeding_reproduces_the_public_masks(width, kind, fraction, acceleration, num_low, num_lines, first, digest, volume):
    config = MaskConfig(kind=kind, accelerations=(acceleration,), center_fractions=(fraction,), seeding="fastmri")
    sampling = draw(config, width, volume=volume)
    assert sampling.num_low_frequencies == num_low
    assert sampling.mask.sum() == num_lines
    assert np.flatnonzero(sampling.mask)[:6].tolist() == first
    assert sha1(sampling.mask) == digest


@pytest.mark.parametrize("kind", KINDS)
def test_the_projects_own_masks_never_change(kind):
    assert sha1(draw(MaskConfig(kind=kind), volume="file1000001", epoch=3, seed=1).mask) == OWN_MASKS[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [190, 255, 256, 368, 401])
@pytest.mark.parametrize(("fraction", "acceleration"), [(0.08, 4), (0.04, 8)])
def test_the_centre_is_full_and_sits_at_the_zero_frequency(kind, width, fraction, acceleration):
    sampling = draw(MaskConfig(kind=kind, accelerations=(acceleration,), center_fractions=(fraction,)), width)
    num_low = round(width * fraction)
    start = (width - num_low + 1) // 2
    assert sampling.num_low_frequencies == num_low
    assert sampling.mask[start : start + num_low].all()
    assert sampling.mask[width // 2]
    assert count_low_frequencies(sampling.mask) >= num_low - 2


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction"])
@pytest.mark.parametrize(("fraction", "acceleration"), [(0.08, 4), (0.04, 8)])
def test_the_centre_is_paid_for_so_that_these_kinds_acquire_one_line_in_r_on_average(kind, fraction, acceleration):
    config = MaskConfig(kind=kind, accelerations=(acceleration,), center_fractions=(fraction,))
    lines = np.mean([draw(config, volume=str(volume)).mask.sum() for volume in range(200)])
    assert lines == pytest.approx(368 / acceleration, rel=0.03)


@pytest.mark.parametrize("acceleration", [2, 4, 8])
def test_an_equispaced_mask_is_its_centre_and_every_rth_line_from_the_offset(acceleration):
    config = MaskConfig(kind="equispaced", accelerations=(acceleration,), center_fractions=(0.04,))
    offsets = set()
    for epoch in range(100):
        sampling = draw(config, epoch=epoch)
        assert sampling.offset is not None
        offsets.add(sampling.offset)
        expected = np.zeros(368, dtype=bool)
        expected[sampling.offset :: acceleration] = True
        expected[177:192] = True
        np.testing.assert_array_equal(sampling.mask, expected)
    assert offsets == set(range(acceleration))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"equispaced"}))
def test_only_an_equispaced_mask_has_an_offset(kind):
    assert draw(MaskConfig(kind=kind)).offset is None


@pytest.mark.parametrize("seeding", ["volume", "fastmri"])
def test_a_validation_mask_depends_on_the_volume_alone(seeding):
    config = MaskConfig(seeding=seeding)
    reference = draw(config, seed=1).mask
    np.testing.assert_array_equal(draw(config, seed=2, slice=5).mask, reference)
    assert (draw(config, volume="b").mask != reference).any()


def test_volumes_of_one_name_in_two_datasets_have_masks_of_their_own():
    assert (draw(MaskConfig(), dataset="knees").mask != draw(MaskConfig(), dataset="brains").mask).any()


@pytest.mark.parametrize("seeding", ["volume", "fastmri"])
def test_a_training_mask_is_a_pure_function_of_seed_epoch_and_identity(seeding):
    config = MaskConfig(seeding=seeding)
    reference = draw(config, epoch=0, slice=0).mask
    np.testing.assert_array_equal(draw(config, epoch=0, slice=0).mask, reference)
    for change in [{"seed": 1}, {"epoch": 1}, {"slice": 1}, {"volume": "b"}, {"dataset": "brains"}, {"slice": None}]:
        assert (draw(config, **{"epoch": 0, "slice": 0, **change}).mask != reference).any(), change


def test_drawing_leaves_numpys_global_state_alone():
    before = np.random.get_state()[1].copy()
    draw(MaskConfig(), epoch=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("kind", KINDS)
def test_lines_that_were_never_measured_leave_the_mask(kind):
    whole = draw(MaskConfig(kind=kind)).mask
    partial = draw(MaskConfig(kind=kind), padding_left=40, padding_right=350).mask
    assert not partial[:40].any()
    assert not partial[350:].any()
    np.testing.assert_array_equal(partial[40:350], whole[40:350])


def test_several_rates_are_drawn_in_pairs_and_freely_only_on_request():
    pairs = MaskConfig(accelerations=(4, 8), center_fractions=(0.08, 0.04))
    drawn = [draw(pairs, epoch=epoch) for epoch in range(40)]
    assert {(sampling.acceleration, sampling.num_low_frequencies) for sampling in drawn} == {(4, 29), (8, 15)}
    free = MaskConfig(accelerations=(4, 8), center_fractions=(0.08, 0.04), allow_any_combination=True)
    drawn = [draw(free, epoch=epoch) for epoch in range(80)]
    assert {(sampling.acceleration, sampling.num_low_frequencies) for sampling in drawn} == {(4, 29), (8, 15), (4, 15), (8, 29)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [6, 8, 12, 13])
def test_a_centre_that_rounding_makes_as_large_as_the_budget_does_not_crash(kind, width):
    sampling = draw(MaskConfig(kind=kind, center_fractions=(0.24,)), width)
    assert sampling.mask.shape == (width,)
    assert sampling.mask.sum() >= sampling.num_low_frequencies >= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fraction", "acceleration"), [(0.25, 4), (0.3, 4), (0.125, 8), (1.0, 1), (-0.1, 4)])
def test_a_centre_larger_than_the_acceleration_allows_is_a_clear_error(kind, fraction, acceleration):
    with pytest.raises(ConfigError, match=rf"center_fraction={fraction:g} at acceleration={acceleration}.*must lie in \[0, "):
        MaskConfig(kind=kind, accelerations=(acceleration,), center_fractions=(fraction,))


def test_free_combinations_are_all_checked():
    with pytest.raises(ConfigError, match=r"center_fraction=0\.2 at acceleration=8"):
        MaskConfig(accelerations=(4, 8), center_fractions=(0.2, 0.04), allow_any_combination=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerations": (4, 8)}, "2 accelerations and 1 center_fractions"),
        ({"accelerations": ()}, "without acceleration"),
        ({"accelerations": (0,)}, "acceleration=0"),
        ({"accelerations": (4.5,), "kind": "equispaced"}, r"acceleration=4\.5"),
        ({"accelerations": (float("nan"),), "kind": "magic"}, "acceleration=nan"),
        ({"accelerations": (float("inf"),), "kind": "equispaced"}, "acceleration=inf"),
        ({"accelerations": (float("nan"),)}, "acceleration=nan"),
        ({"center_fractions": (float("nan"),)}, "center_fraction=nan"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MaskConfig(**settings)


def test_the_configuration_survives_being_written_and_read():
    config = MaskConfig(kind="magic", accelerations=(4, 8), center_fractions=(0.08, 0.04))
    assert from_dict(MaskConfig, to_dict(config)) == config
    with pytest.raises(ConfigError, match="kind"):
        from_dict(MaskConfig, {"kind": "spiral"})


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("00111100", 4), ("01111100", 4), ("1111111", 6), ("11111111", 8), ("00000000", 1), ("00010000", 1), ("10011101", 2)],
)
def test_the_centre_of_a_given_mask_is_its_symmetric_run(mask, expected):
    assert count_low_frequencies(np.array(list(mask)) == "1") == expected
