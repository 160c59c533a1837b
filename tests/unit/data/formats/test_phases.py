"""Phases of the heart's cycle in raw scans: the frames of a slice."""

import numpy as np
import pytest

from echotrain.data.formats import ReadLimits, open_volume
from echotrain.errors import ScanError
from tests.raw_scans import HEIGHT, PROTOCOL, WIDTH, flag, with_values, write
from tests.scans import curate, lines_of, object_kspace, write_twix

SLICES, FRAMES, COILS = 2, 5, 3


def cine(seed: int = 0) -> np.ndarray:
    """Return k-space (slice, frame, coil, height, width), each image another."""
    return object_kspace((SLICES * FRAMES, COILS, HEIGHT, WIDTH), seed).reshape(SLICES, FRAMES, COILS, HEIGHT, WIDTH)


def readouts_of(kspace, first=0, step=1):
    """Return readouts in no order that a reader could rely on."""
    lines = [
        line
        for frame in reversed(range(kspace.shape[1]))
        for slice_ in range(len(kspace))
        for line in with_values(lines_of(kspace[slice_, frame], slice_), phase=first + step * frame)
    ]
    return [lines[index] for index in np.random.default_rng(0).permutation(len(lines))]


def assert_is(volume, kspace):
    header = volume.header
    assert (header.num_slices, header.num_frames, header.num_images) == (*kspace.shape[:2], kspace.shape[0] * kspace.shape[1])
    assert [header.place(image) for image in range(header.num_images)] == list(np.ndindex(*kspace.shape[:2]))
    for image in range(header.num_images):
        np.testing.assert_array_equal(volume.read_slice(image), kspace[header.place(image)])


@pytest.mark.parametrize("first", [0, 1, 7])
def test_phases_are_the_frames_of_their_slice_in_order_wherever_their_counter_begins(tmp_path, first):
    with open_volume(write(tmp_path, readouts_of(cine(), first))) as volume:
        assert_is(volume, cine())
        assert volume.findings == ()
        assert volume.mask(FRAMES) is None


def test_twix_phases_are_frames_too(tmp_path):
    pytest.importorskip("twixtools")
    readouts = [
        (samples, {"Lin": values["kspace_encode_step_1"], "Sli": values["slice"], "Phs": values["phase"], "CenterLin": WIDTH // 2})
        for samples, values in readouts_of(cine())
    ]
    with open_volume(write_twix(tmp_path / "a.dat", PROTOCOL, readouts)) as volume:
        assert_is(volume, cine())


def test_of_slices_with_different_numbers_of_phases_all_give_as_many_as_the_one_with_fewest_and_it_is_told(tmp_path):
    kspace = cine()
    readouts = [line for line in readouts_of(kspace) if line[1]["slice"] == 0 or line[1]["phase"] < 3]
    with open_volume(write(tmp_path, readouts)) as volume:
        assert_is(volume, kspace[:, :3])
        assert volume.findings == ("took the first 3 of 5 phases: some slices have no more",)


def test_gaps_between_phases_are_told(tmp_path):
    with open_volume(write(tmp_path, readouts_of(cine(), step=2))) as volume:
        assert_is(volume, cine())
        assert volume.findings == ("phases have gaps in their counter: they are taken in its order",)


def test_of_phases_with_repetitions_the_first_repetition_is_taken_with_all_its_phases(tmp_path):
    readouts = [*with_values(readouts_of(cine(1)), repetition=1), *readouts_of(cine())]
    with open_volume(write(tmp_path, readouts)) as volume:
        assert_is(volume, cine())
        assert volume.findings == ("took repetition 1 of 2, the other repetitions are left out",)


def test_averages_are_averaged_within_their_phase_alone(tmp_path):
    readouts = readouts_of(cine()) + with_values(readouts_of(cine()), average=1)
    with open_volume(write(tmp_path, readouts)) as volume:
        np.testing.assert_allclose(volume.read_slice(FRAMES + 2), cine()[1, 2], rtol=1e-6)


def test_a_line_that_is_there_twice_in_one_phase_is_refused(tmp_path):
    readouts = readouts_of(cine())
    with pytest.raises(ScanError, match="2 readouts of slice"):
        open_volume(write(tmp_path, [*readouts, readouts[0]]))


def test_every_frame_has_its_own_lines_and_an_undersampled_one_is_left_out(tmp_path):
    kspace, rate = cine(), 4
    center = abs(np.arange(WIDTH) - WIDTH // 2) < 6
    masks = [center | (np.arange(WIDTH) % rate == frame % rate) for frame in range(FRAMES)]
    readouts = [line for line in readouts_of(kspace) if masks[line[1]["phase"]][line[1]["kspace_encode_step_1"]]]
    with open_volume(write(tmp_path, readouts)) as volume:
        for image in range(volume.header.num_images):
            slice_, frame = volume.header.place(image)
            np.testing.assert_array_equal(volume.mask(image), masks[frame])
            np.testing.assert_array_equal(volume.read_slice(image), kspace[slice_, frame] * masks[frame])
        assert "undersampled already" in curate(volume)[0].reason


@pytest.mark.parametrize(("phases", "is_embedded"), [(range(FRAMES), True), ([0], False), ([9], False), ([*range(FRAMES), 9], False)])
def test_calibration_is_embedded_only_where_every_frame_has_its_own(tmp_path, phases, is_embedded):
    kspace = cine()
    grid, center = np.arange(WIDTH) % 2 == 0, abs(np.arange(WIDTH) - WIDTH // 2 + 0.5) < 5
    image = [line for line in readouts_of(kspace) if grid[line[1]["kspace_encode_step_1"]]]
    calibrating = [
        (samples, {**values, "flags": flag(20), "phase": phase})
        for phase in phases
        for samples, values in readouts_of(kspace[:, [min(phase, FRAMES - 1)]])
        if (center & ~grid)[values["kspace_encode_step_1"]]
    ]
    with open_volume(write(tmp_path, image + calibrating)) as volume:
        expected = grid | center if is_embedded else grid
        np.testing.assert_array_equal(volume.mask(FRAMES + 1), expected)
        np.testing.assert_array_equal(volume.read_slice(FRAMES + 1), kspace[1, 1] * expected)
        assert (volume.calibration is None) == is_embedded


def test_a_calibration_line_that_other_frames_have_in_their_image_is_new_to_its_own(tmp_path):
    kspace, center = cine(), abs(np.arange(WIDTH) - WIDTH // 2 + 0.5) < 5
    grids = [np.arange(WIDTH) % 2 == frame % 2 for frame in range(FRAMES)]
    readouts = []
    for samples, values in readouts_of(kspace):
        is_image, is_central = grids[values["phase"]][values["kspace_encode_step_1"]], center[values["kspace_encode_step_1"]]
        if is_image or is_central:
            readouts.append((samples, {**values, "flags": 0 if is_image else flag(20)}))
    with open_volume(write(tmp_path, readouts)) as volume:
        for image in range(volume.header.num_images):
            np.testing.assert_array_equal(volume.mask(image), grids[volume.header.place(image)[1]] | center)


def test_of_one_phase_with_calibration_in_several_the_first_is_taken_wherever_it_begins(tmp_path):
    kspace, other = cine()[0, 0], cine(1)[0, 0]
    grid, center = np.arange(WIDTH) % 2 == 0, abs(np.arange(WIDTH) - WIDTH // 2 + 0.5) < 5
    image = [line for keep, line in zip(grid, lines_of(kspace), strict=True) if keep]
    calibrating = [
        (samples, {**values, "flags": flag(20), "phase": phase})
        for phase, source in ((3, other), (2, kspace))
        for keep, (samples, values) in zip(center & ~grid, lines_of(source), strict=True)
        if keep
    ]
    with open_volume(write(tmp_path, image + calibrating)) as volume:
        assert volume.header.num_frames is None
        np.testing.assert_array_equal(volume.read_slice(0), kspace * (grid | center))


def test_the_memory_limit_counts_all_frames(tmp_path):
    path, nbytes = write(tmp_path, readouts_of(cine())), cine().nbytes
    open_volume(path, limits=ReadLimits(volume_bytes=nbytes)).close()
    with pytest.raises(ScanError, match="declares volume of"):
        open_volume(path, limits=ReadLimits(volume_bytes=nbytes - 1))
