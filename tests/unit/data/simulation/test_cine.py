"""The simulated heart: it beats, its cycle closes, the chest is at rest, and its files are as a challenge's."""

import dataclasses

import numpy as np
import pytest

from echotrain.data.formats import open_volume
from echotrain.data.formats.target import rss_target
from echotrain.data.simulation.cine import CineConfig, simulate_cine
from echotrain.data.simulation.heart import SIGNALS, Heart, contraction, draw_heart
from echotrain.errors import ConfigError
from tests.scans import curate

SMALL = CineConfig(num_patients=3, per_patient=4, num_slices=2, num_frames=6, matrix=48)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hearts")
    return folder, simulate_cine(SMALL, folder)


def images_of(path):
    """Return targets (slice, frame, y, x)."""
    with open_volume(path, location=str(path)) as volume:
        header = volume.header
        images = [rss_target(volume.read_slice(image), (header.height, header.width)) for image in range(header.num_images)]
        return np.stack(images).reshape(header.num_slices, -1, header.height, header.width)


def beating(view="sax", num_frames=20, z=0.3, size=(96, 80)):
    """Return the images of one heart, without coils or noise: blood alone is bright."""
    heart = Heart.draw(np.random.default_rng(3))
    signals = dict.fromkeys(SIGNALS["cine"], 0.0) | {"blood": 1.0}
    return draw_heart(heart, view, size, (320.0, 260.0), z, [(frame / num_frames, signals) for frame in range(num_frames)])


def test_every_examination_is_there_in_the_challenges_folders_and_passes_curation(files):
    folder, paths = files
    assert len(paths) == 12
    assert str(paths[0].relative_to(folder)) == "MultiCoil/Cine/TrainingSet/FullSample/Center001/UIH_30T_umr780/P001/cine_sax.mat"
    shapes = set()
    for path in paths:
        with open_volume(path, location=str(path)) as volume:
            header = volume.header
            assert curate(volume) == []
            assert volume.findings == ()
            shapes.add((header.center, header.num_coils, header.height, header.width))
            assert header.num_frames == {"cine_sax": 6, "cine_lax": 6, "T1map": 4, "blackblood": None}[header.modality]
            assert header.height != header.width
    assert len(shapes) == 3
    assert len({coils for _, coils, _, _ in shapes}) == 3
    assert {height % 2 for _, _, height, _ in shapes} == {width % 2 for _, _, _, width in shapes} == {0, 1}


def test_every_center_has_every_examination_where_people_have_some_of_them(tmp_path):
    config = CineConfig(num_patients=9, per_patient=2, num_slices=1, num_frames=3, matrix=32)
    pairs = {(path.parts[-4], path.stem) for path in simulate_cine(config, tmp_path)}
    assert len(pairs) == 12


def test_the_same_seed_writes_the_same_bytes_and_another_one_does_not(files, tmp_path):
    one = CineConfig(num_patients=1, per_patient=1, num_slices=2, num_frames=6, matrix=48)
    again = simulate_cine(one, tmp_path / "again")[0].read_bytes()
    assert again == files[1][0].read_bytes()
    other = CineConfig(seed=1, num_patients=1, per_patient=1, num_slices=2, num_frames=6, matrix=48)
    assert simulate_cine(other, tmp_path / "other")[0].read_bytes() != again


def test_contraction_closes_its_cycle_and_has_one_peak():
    values = [contraction(phase) for phase in np.linspace(0, 1, 201)]
    assert values[0] == values[-1] == contraction(7.0) == 0
    peak = int(np.argmax(values))
    assert values[peak] > 0.999
    assert (np.diff(values[: peak + 1]) >= 0).all()
    assert (np.diff(values[peak:]) <= 0).all()
    assert np.abs(np.diff(values)).max() < 0.03


@pytest.mark.parametrize("view", ["sax", "lax"])
def test_the_pools_shrink_and_fill_again_and_the_step_from_the_last_frame_to_the_first_is_one_like_any_other(view):
    blood = beating(view)
    middle = blood[:, 30:75, 15:65] if view == "sax" else blood
    volumes = middle.sum(axis=(1, 2))
    smallest = int(np.argmin(volumes))
    assert 5 <= smallest <= 9
    if view == "sax":
        assert volumes[smallest] < 0.75 * volumes[0]
    steps = np.abs(np.diff(blood, axis=0, append=blood[:1])).sum(axis=(1, 2))
    assert steps[-1] <= steps.max()
    assert steps.min() > 0


def test_muscle_keeps_its_area_while_the_pool_shrinks():
    heart = dataclasses.replace(Heart.draw(np.random.default_rng(3)), rotation=0.0, shift_mm=(0.0, 0.0))
    signals = dict.fromkeys(SIGNALS["cine"], 0.0) | {"myocardium": 1.0}
    images = draw_heart(heart, "sax", (192, 160), (320.0, 260.0), 0.9, [(phase, signals) for phase in (0.0, 0.35)])
    # The half that faces away from the right chamber.
    half = images[:, :, :80]
    assert half[1].sum() == pytest.approx(half[0].sum(), rel=0.05)
    assert np.abs(half[1] - half[0]).sum() > 0.2 * half[0].sum()


def test_only_the_heart_moves_and_an_image_of_it_shows_that_through_coils_and_noise(files):
    images = images_of(files[1][0])[0]
    steps = np.abs(np.diff(images, axis=0, append=images[:1])).sum(axis=(1, 2))
    assert steps[-1] < steps[:-1].max(), "after the last frame comes the first"
    moving = images.std(axis=0) / images.max()
    height, width = moving.shape
    assert moving.max() > 0.1
    y, x = np.ogrid[:height, :width]
    outside = (abs(y - height // 2) > height // 4) | (abs(x - width // 2) > width // 3)
    assert moving[outside].max() < 0.05


def test_images_of_a_map_differ_in_contrast_and_not_in_place(files):
    images = images_of(files[1][2])[0]
    outlines = images > 0.3 * images.max(axis=(1, 2), keepdims=True)
    assert len(images) == 4
    assert np.abs(images[0] / images[0].max() - images[2] / images[2].max()).max() > 0.2
    assert (outlines[0] == outlines[3]).mean() > 0.6


@pytest.mark.parametrize(
    "settings", [{"num_frames": 2}, {"matrix": 16}, {"noise": 1.0}, {"examinations": ("knee",)}, {"per_patient": 5}, {"num_slices": 0}]
)
def test_what_cannot_be_simulated_is_refused(settings):
    with pytest.raises(ConfigError):
        CineConfig(**settings)
