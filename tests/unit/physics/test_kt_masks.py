"""Masks over (frame, ky, kx): the rate in every frame, the centre, the pattern over frames, and what they are a function of."""

import hashlib
import itertools

import numpy as np
import pytest

from echotrain.config import from_dict, to_dict
from echotrain.errors import ConfigError
from echotrain.physics.kt_masks import KtMaskConfig, check_kt_mask, kt_mask

KINDS = ["uniform", "kt_uniform", "kt_gaussian", "kt_radial"]
LATTICES, MOVING = KINDS[:2], KINDS[1:]
SHAPES = [(12, 60, 96), (5, 63, 71), (1, 44, 41), (3, 90, 48)]

# Pinned: a mask that changes would silently change every training run and every evaluation.
OWN_MASKS = {"uniform": "1506433ae3", "kt_uniform": "4f356302f8", "kt_gaussian": "c2d08eb3f5", "kt_radial": "2fe80587e3"}


def config_of(kind, acceleration=4, acs_lines=12, **more):
    return KtMaskConfig(kinds=(kind,), accelerations=(acceleration,), acs_lines=acs_lines, **more)


def draw(config, shape=(12, 60, 96), seed=0, dataset="cine", volume="a", epoch=None, **more):
    return kt_mask(config, shape, seed=seed, dataset=dataset, volume=volume, epoch=epoch, **more)


def is_center(shape, acs, kind):
    """Return where the ACS lies, of the mask's shape: whole lines, or a square."""
    rows, columns = ((np.arange(n) >= (n - acs + 1) // 2) & (np.arange(n) < (n - acs + 1) // 2 + acs) for n in shape[1:])
    return rows[:, None] & columns if kind == "kt_radial" else columns[None, :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("acceleration", [4, 7, 24])
def test_every_frame_has_the_nominal_rate_besides_a_full_centre(kind, shape, acceleration):
    sampling = draw(config_of(kind, acceleration), shape, epoch=3, slice=1)
    center = is_center(shape, 12, kind)
    assert sampling.mask.shape == (shape[0], *center.shape)
    assert sampling.mask[:, center].all()
    assert (sampling.kind, sampling.acceleration, sampling.acs_lines) == (kind, acceleration, 12)
    assert sampling.has_whole_lines == (kind != "kt_radial")
    total = shape[1] * shape[2] if kind == "kt_radial" else shape[2]
    for number, frame in enumerate(sampling.mask):
        if kind in LATTICES:
            lattice = np.arange(number % acceleration if kind == "kt_uniform" else 0, shape[2], acceleration)
            assert len(lattice) in (total // acceleration, -(-total // acceleration))
            np.testing.assert_array_equal(np.flatnonzero(frame & ~center), np.setdiff1d(lattice, np.flatnonzero(center)))
        else:
            assert (frame & ~center).sum() == int(total / acceleration + 0.5)


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize(("width", "acceleration"), [(96, 4), (71, 8), (165, 12)])
def test_frames_that_follow_each_other_differ_and_together_cover(kind, width, acceleration):
    mask = draw(config_of(kind, acceleration), (3 * acceleration, 64, width)).mask
    for one, two in itertools.pairwise(mask):
        assert (one != two).any()
    assert mask[:acceleration].any(0).mean() > (0.75 if kind != "kt_radial" else 0.6)
    assert mask.any(0).mean() == 1 if kind != "kt_radial" else mask.any(0).mean() > 0.9


def test_a_uniform_mask_is_the_same_in_every_frame():
    mask = draw(config_of("uniform")).mask
    assert (mask == mask[:1]).all()


@pytest.mark.parametrize("acceleration", [4, 8, 16])
def test_gaussian_lines_are_denser_near_the_centre_in_every_frame_and_come_evenly_over_frames(acceleration):
    shape = (48, 8, 256)
    mask = draw(config_of("kt_gaussian", acceleration), shape).mask[:, 0]
    near = np.abs(np.arange(256) - 128) < 64
    center = is_center(shape, 12, "kt_gaussian")[0]
    density_near, density_far = mask[:, near & ~center].mean(1), mask[:, ~near].mean(1)
    assert (density_near > density_far).mean() > 0.9
    assert density_near.mean() / density_far.mean() > 1.5
    often = mask[:, ~center].sum(0)
    half = mask[:24, ~center].sum(0)
    assert np.abs(often - 2 * half).max() <= 3


def test_a_line_that_would_be_due_more_than_once_a_frame_is_in_every_frame_and_the_rate_stays():
    mask = draw(config_of("kt_gaussian", 1.2, alpha=0.9), (6, 8, 96)).mask[:, 0]
    assert (mask.sum(1) == 80 + 12).all()
    mask = draw(config_of("kt_gaussian", 1.7, alpha=0.95), (6, 8, 96)).mask[:, 0]
    assert (mask.sum(1) == 56 + 12).all()


@pytest.mark.parametrize("size", [(64, 64), (63, 64), (91, 40)])
def test_radial_spokes_go_through_the_centre_to_the_corners_alike_in_all_directions(size):
    mask = draw(config_of("kt_radial", 6), (40, *size)).mask
    often = mask.mean(0)
    y, x = np.abs(np.arange(size[0]) - size[0] // 2), np.abs(np.arange(size[1]) - size[1] // 2)
    assert often[(y > 0.9 * size[0] / 2)[:, None] & (x > 0.9 * size[1] / 2)].mean() > 0.03
    # Along a ring every direction comes about as often, and the further out the rarer.
    radius = np.hypot(np.arange(size[0])[:, None] - size[0] // 2, np.arange(size[1]) - size[1] // 2)
    inner, outer = (often[(radius > low) & (radius < low + 3)] for low in (9, 15))
    assert inner.mean() > outer.mean()
    angles = np.arctan2(np.arange(size[0])[:, None] - size[0] // 2, np.arange(size[1]) - size[1] // 2)
    ring = (radius > 12) & (radius < 19)
    sectors = [often[ring & (np.floor(angles / (np.pi / 4)) == sector)].mean() for sector in range(-4, 4)]
    assert max(sectors) < 1.35 * min(sectors)


@pytest.mark.parametrize("kind", KINDS)
def test_the_projects_own_masks_never_change(kind):
    mask = draw(config_of(kind, 8, random_start=True), (7, 50, 61), volume="P001", epoch=3, slice=2, seed=1).mask
    assert hashlib.sha1(mask.astype(np.uint8).tobytes()).hexdigest()[:10] == OWN_MASKS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_validation_mask_depends_on_the_volume_alone(kind):
    config = config_of(kind, 8, random_start=True)
    reference = draw(config, seed=1).mask
    np.testing.assert_array_equal(draw(config, seed=2, slice=5).mask, reference)
    for name in ("volume", "dataset"):
        assert len({draw(config, **{name: f"other{i}"}).mask.tobytes() for i in range(20)}) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_mask_is_a_pure_function_of_seed_epoch_and_identity(kind):
    config = config_of(kind, 16, random_start=True)
    identity = {"seed": 0, "epoch": 0, "slice": 0, "volume": "a", "dataset": "cine"}
    np.testing.assert_array_equal(draw(config, **identity).mask, draw(config, **identity).mask)
    for name in identity:
        others = [f"other{i}" if isinstance(identity[name], str) else i for i in range(1, 30)]
        drawn = {draw(config, **{**identity, name: other}).mask.tobytes() for other in others}
        assert len(drawn) > (8 if kind in LATTICES else 28)


def test_kinds_and_accelerations_are_all_drawn_in_training_and_one_of_them_for_a_volume_outside():
    config = KtMaskConfig(kinds=("uniform", "kt_gaussian", "kt_radial"), accelerations=(4, 8, 24), acs_lines=8)
    drawn = [draw(config, (2, 40, 44), epoch=0, slice=index) for index in range(150)]
    assert {(s.kind, s.acceleration) for s in drawn} == set(config.combinations())
    assert len({(s.kind, s.acceleration) for s in (draw(config, (2, 40, 44), slice=index) for index in range(9))}) == 1


def test_one_more_frame_leaves_the_frames_before_it_as_they_were():
    for kind in KINDS:
        config = config_of(kind, 8, random_start=True)
        np.testing.assert_array_equal(draw(config, (5, 60, 96)).mask, draw(config, (9, 60, 96)).mask[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_lines_that_were_never_measured_leave_the_mask_and_no_other_does(kind):
    config = config_of(kind)
    whole, cut = draw(config).mask.copy(), draw(config, padding_left=7, padding_right=90).mask
    assert not cut[..., :7].any()
    assert not cut[..., 90:].any()
    assert whole[..., :7].any()
    np.testing.assert_array_equal(cut[..., 7:90], whole[..., 7:90])
    np.testing.assert_array_equal(draw(config).mask, whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ()}, "without kind"),
        ({"accelerations": ()}, "without kind"),
        ({"accelerations": (0.5,)}, r"acceleration=0\.5"),
        ({"accelerations": (4, float("nan"))}, "acceleration=nan"),
        ({"kinds": ("kt_gaussian", "kt_uniform"), "accelerations": (4.5,)}, r"acceleration=4\.5: cannot be sampled by kt_uniform"),
        ({"acs_lines": 0}, "acs_lines=0"),
        ({"alpha": 1.0}, "alpha=1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        KtMaskConfig(**settings)


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        (config_of("uniform", acs_lines=41), (60, 40), "acs_lines=41: is more than a matrix of 60x40"),
        (config_of("kt_radial", acs_lines=31), (30, 40), "acs_lines=31: is more than a matrix of 30x40"),
        (config_of("kt_gaussian", 4, acs_lines=20), (60, 25), "takes 6 of the 5 lines outside of the ACS of a 60x25 matrix"),
        (config_of("kt_radial", 1, acs_lines=4), (30, 30), "takes 900 of the 884 points"),
        (config_of("uniform", 100, acs_lines=4), (30, 30), "takes 0 of the 26 lines"),
    ],
)
def test_a_matrix_that_a_mask_does_not_fit_is_refused(config, size, message):
    with pytest.raises(ConfigError, match=message):
        check_kt_mask(config, *size)
    with pytest.raises(ConfigError, match=message):
        draw(config, (3, *size))


def test_the_largest_centre_that_fits_is_allowed():
    assert draw(config_of("uniform", acs_lines=40), (2, 10, 40)).mask.all()
    assert draw(config_of("kt_gaussian", 4, acs_lines=30), (2, 10, 40)).mask.all()


def test_settings_survive_as_plain_values():
    config = KtMaskConfig(kinds=("kt_uniform", "kt_radial"), accelerations=(4, 8), acs_lines=16, random_start=True)
    assert from_dict(KtMaskConfig, to_dict(config)) == config
