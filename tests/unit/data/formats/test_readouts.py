"""Raw scans: which readouts make up a slice, where each goes, and what is told of the others."""

import re

import h5py
import numpy as np
import pytest

from echotrain.data.formats import Deidentifier, open_volume
from echotrain.errors import ScanError
from tests.raw_scans import HEIGHT, PROTOCOL, WIDTH, flag, header, reversed_readout, with_values, write
from tests.scans import header_xml, lines_of, object_kspace, random_kspace, write_ismrmrd, write_twix, write_twix_vd


def parallel(mode: str, rate: int = 2) -> str:
    factor = f"<accelerationFactor><kspace_encoding_step_1>{rate}</kspace_encoding_step_1></accelerationFactor>"
    return f"<parallelImaging>{factor}<calibrationMode>{mode}</calibrationMode></parallelImaging>"


# Calibration: MRIReco.jl#237, ismrmrd#51 and #143.


@pytest.mark.parametrize("mode", ["embedded", "", "other", "interleaved"])
@pytest.mark.parametrize(("rate", "first"), [(2, 0), (2, 1), (3, 2), (4, 1)])
def test_embedded_calibration_lines_belong_to_the_k_space(tmp_path, mode, rate, first):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    grid, center = np.arange(WIDTH) % rate == first, abs(np.arange(WIDTH) - WIDTH // 2 + 0.5) < 8
    readouts = [
        # Some converters set 20 beside 21.
        (
            samples,
            {
                **values,
                "flags": (flag(20) | flag(21) if line % 4 else flag(21))
                if grid[line] and center[line]
                else flag(20)
                if center[line]
                else 0,
            },
        )
        for line, (samples, values) in enumerate(lines_of(kspace))
        if grid[line] or center[line]
    ]
    with open_volume(write(tmp_path, readouts, parallel(mode) if mode else "")) as volume:
        np.testing.assert_array_equal(volume.mask(0), grid | center)
        np.testing.assert_array_equal(volume.read_slice(0), kspace * (grid | center))
        assert volume.calibration is None
        assert f"{int((center & ~grid).sum())} calibration lines belong to the k-space" in volume.findings


@pytest.mark.parametrize("mode", ["separate", "external", "other", ""])
def test_calibration_measured_apart_stays_out_and_is_told(tmp_path, mode):
    kspace, other = object_kspace((1, 3, HEIGHT, WIDTH))[0], object_kspace((1, 3, HEIGHT, WIDTH), seed=1)[0] * 3
    grid = np.arange(WIDTH) % 2 == 1
    image = [line for keep, line in zip(grid, lines_of(kspace), strict=True) if keep]
    apart = with_values(lines_of(other)[WIDTH // 2 - 6 : WIDTH // 2 + 6], flags=flag(20))
    with open_volume(write(tmp_path, apart + image, parallel(mode) if mode else "")) as volume:
        np.testing.assert_array_equal(volume.mask(0), grid)
        np.testing.assert_array_equal(volume.read_slice(0), kspace * grid)
        assert volume.calibration == (12, True)
        assert any("left out 12 lines of" in finding and "calibration" in finding for finding in volume.findings)


def test_calibration_of_other_samples_stays_out_even_where_it_is_called_embedded(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    grid = np.arange(WIDTH) % 2 == 0
    image = [line for keep, line in zip(grid, lines_of(kspace), strict=True) if keep]
    short = [(samples[:, ::2], {**values, "flags": flag(20)}) for samples, values in lines_of(kspace)[19:29:2]]
    with open_volume(write(tmp_path, image + short, parallel("embedded"))) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace * grid)
        assert "left out 5 lines of calibration of other samples or coils" in volume.findings


@pytest.mark.parametrize(("mode", "is_embedded"), [(2, True), (4, False), (8, False), (1, True)])
def test_twix_calibration_lines_follow_the_protocols_mode(tmp_path, mode, is_embedded):
    pytest.importorskip("twixtools")
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    grid, center = np.arange(WIDTH) % 3 == 0, abs(np.arange(WIDTH) - WIDTH // 2 + 0.5) < 6
    readouts = []
    for line in np.flatnonzero(grid | center):
        flags = ("PATREFSCAN", "PATREFANDIMASCAN") if grid[line] and center[line] else ("PATREFSCAN",) if center[line] else ()
        readouts.append((kspace[:, :, line], {"Lin": int(line), "CenterLin": WIDTH // 2, "flags": flags}))
    path = write_twix(tmp_path / "a.dat", f"{PROTOCOL}sPat.ucRefScanMode = 0x{mode:x}\n", readouts)
    with open_volume(path) as volume:
        expected = grid | center if is_embedded else grid
        np.testing.assert_array_equal(volume.mask(0), expected)
        np.testing.assert_array_equal(volume.read_slice(0), kspace * expected)
        assert (volume.calibration is None) == is_embedded


def test_calibration_of_slices_that_have_no_image_is_none_of_the_k_spaces(tmp_path):
    kspace, other = object_kspace((1, 3, HEIGHT, WIDTH))[0], object_kspace((1, 3, HEIGHT, WIDTH), seed=1)[0]
    grid, center = np.arange(WIDTH) % 2 == 0, abs(np.arange(WIDTH) - WIDTH // 2 + 0.5) < 6
    image = [line for keep, line in zip(grid, lines_of(kspace), strict=True) if keep]
    own = with_values([line for keep, line in zip(center & ~grid, lines_of(kspace), strict=True) if keep], flags=flag(20))
    foreign = with_values([line for keep, line in zip(center & ~grid, lines_of(other, 1), strict=True) if keep], flags=flag(20))
    with open_volume(write(tmp_path, foreign + own + image, parallel("embedded"))) as volume:
        assert volume.header.num_slices == 1
        np.testing.assert_array_equal(volume.read_slice(0), kspace * (grid | center))


# Series, averages and what shares a place: gadgetron#1287, MRIReco.jl#138, twixtools#29.


@pytest.mark.parametrize(("counter", "first"), [("repetition", 1), ("set", 0), ("contrast", 3)])
def test_of_a_series_the_first_is_taken_wherever_its_counter_begins_and_told(tmp_path, counter, first):
    series = object_kspace((3, 3, HEIGHT, WIDTH))
    readouts = [line for j in range(3) for line in with_values(lines_of(series[j]), **{counter: first + j})]
    with open_volume(write(tmp_path, readouts[::-1])) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), series[0])
        assert any(finding.startswith("took ") and "1 of 3" in finding for finding in volume.findings)


def test_slices_with_fewer_phases_give_their_own_first(tmp_path):
    kspace = object_kspace((2, 3, HEIGHT, WIDTH))
    readouts = [line for phase in (0, 1, 2) for line in with_values(lines_of(kspace[0]), phase=phase)]
    readouts += with_values(lines_of(kspace[1], 1), phase=2)
    with open_volume(write(tmp_path, readouts)) as volume:
        np.testing.assert_array_equal(volume.read_slice(1), kspace[1])
        assert "took phase 1 of 3 (of some slices 1), the other phases are left out" in volume.findings


def test_one_phase_that_is_counted_from_one_is_all_there_is(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    with open_volume(write(tmp_path, with_values(lines_of(kspace), phase=1, repetition=7))) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert volume.findings == ()


def test_averages_are_told_and_readouts_that_nothing_tells_apart_are_refused(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    averaged = [line for j in range(3) for line in with_values(lines_of(kspace), average=j)]
    with open_volume(write(tmp_path, averaged)) as volume:
        np.testing.assert_allclose(volume.read_slice(0), kspace, rtol=1e-6)
        assert "merged 3 averages into their mean" in volume.findings
    for segment in (0, 1):
        echoes = [line for j in range(3) for line in with_values(lines_of(kspace), segment=j * segment)]
        with pytest.raises(ScanError, match=r"3 readouts of slice 0, line 0: share all counters"):
            open_volume(write(tmp_path, echoes))


def test_other_readouts_and_encodings_are_told(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    other = [(random_kspace((3, 20)), {"flags": flag(number)}) for number in (19, 23, 27)] + [
        (random_kspace((3, 20)), {"encoding_space_ref": 1})
    ]
    with open_volume(write(tmp_path, [*other, *lines_of(kspace)])) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert volume.findings == ("left out 1 readouts of further encodings", "left out 1 noise, 2 navigator, feedback or dummy readouts")


# Where readouts go: mrpro#832, gadgetron#1199, siemens_to_ismrmrd#142, MRIReco.jl#240.


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("center", [HEIGHT // 2, HEIGHT // 2 - 1, HEIGHT // 2 - 3])
def test_a_reversed_readout_goes_where_its_own_echo_says(tmp_path, every, center):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = [
        (reversed_readout(samples, center), {**values, "flags": flag(22), "center_sample": center})
        if line % every == every - 1
        else (samples, values)
        for line, (samples, values) in enumerate(lines_of(kspace))
    ]
    with open_volume(write(tmp_path, readouts)) as volume:
        got = volume.read_slice(0)
    lost = abs(HEIGHT - 1 - center - HEIGHT // 2)
    inner = slice(lost, HEIGHT - lost)
    np.testing.assert_array_equal(got[:, inner], kspace[:, inner])


def test_where_the_energy_lies_is_asked_of_the_readouts_that_run_forwards_however_few_they_are(tmp_path):
    # Partial echoes both ways: forwards the beginning is missing, backwards the end, so that their echoes lie 16 samples apart.
    kspace, missing = object_kspace((1, 3, HEIGHT, WIDTH))[0], HEIGHT // 4
    is_forward = np.arange(WIDTH) % 3 == 0
    readouts = [
        (samples[:, missing:], {**values, "center_sample": HEIGHT // 2 - missing})
        if is_forward[line]
        else (samples[:, :-missing][:, ::-1], {**values, "flags": flag(22), "center_sample": HEIGHT // 2 - missing - 1})
        for line, (samples, values) in enumerate(lines_of(kspace))
    ]
    there = np.ones((HEIGHT, WIDTH), bool)
    there[:missing, is_forward] = there[-missing:, ~is_forward] = False
    with open_volume(write(tmp_path, readouts)) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace * there)
        assert volume.findings == ()


def test_samples_to_be_discarded_are_no_part_of_a_readout_and_its_echo_is_counted_without_them(tmp_path):
    kspace, pre, post = object_kspace((1, 3, HEIGHT, WIDTH))[0], 7, 3
    readouts = [
        (
            np.concatenate([np.full((3, pre), 1e3), samples, np.full((3, post), -1e3)], axis=1).astype(np.complex64),
            {**values, "discard_pre": pre, "discard_post": post, "center_sample": pre + HEIGHT // 2},
        )
        for samples, values in lines_of(kspace)
    ]
    with open_volume(write(tmp_path, readouts)) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert volume.findings == ()


@pytest.mark.parametrize("every", [1, 2])
def test_a_twix_readout_that_runs_backwards_is_turned_over(tmp_path, every):
    pytest.importorskip("twixtools")
    kspace, center = object_kspace((1, 3, HEIGHT, WIDTH))[0], HEIGHT // 2 - 1
    readouts = [
        (reversed_readout(samples, center), {"Lin": line, "CenterLin": WIDTH // 2, "CenterCol": center, "flags": ("REFLECT",)})
        if line % every == every - 1
        else (samples, {"Lin": line, "CenterLin": WIDTH // 2})
        for line, (samples, _) in enumerate(lines_of(kspace))
    ]
    with open_volume(write_twix(tmp_path / "a.dat", PROTOCOL, readouts)) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_partial_echo_is_placed_by_its_echo_in_either_direction(tmp_path, is_reversed):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    kspace[:, :16] = 0
    readouts = [
        (samples[:, 16:][:, ::-1], {**values, "flags": flag(22), "center_sample": HEIGHT - 16 - 1 - (HEIGHT // 2 - 16)})
        if is_reversed
        else (samples[:, 16:], {**values, "center_sample": HEIGHT // 2 - 16})
        for samples, values in lines_of(kspace)
    ]
    with open_volume(write(tmp_path, readouts)) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)


def test_an_echo_too_far_from_the_middle_of_its_readout_is_refused(tmp_path):
    kspace = np.roll(object_kspace((1, 3, HEIGHT, WIDTH))[0], -12, axis=1)
    with pytest.raises(ScanError, match="64 samples with the echo at 20: do not fit a matrix of 64"):
        open_volume(write(tmp_path, with_values(lines_of(kspace), center_sample=HEIGHT // 2 - 12)))


def either_way(kspace: np.ndarray, *, backwards: bool) -> list:
    """Return the readouts of a slice, running backwards with the echo at half their samples, or forwards."""
    if not backwards:
        return lines_of(kspace)
    return [
        (reversed_readout(samples, HEIGHT // 2), {**values, "flags": flag(22), "center_sample": HEIGHT // 2})
        for samples, values in lines_of(kspace)
    ]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("encoded", "told"), [(2 * HEIGHT, "their oversampling was removed before"), (HEIGHT // 2, "they are oversampled twice")]
)
def test_readouts_of_half_or_twice_the_headers_samples_are_no_partial_echo(tmp_path, encoded, told, backwards):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = either_way(kspace, backwards=backwards)
    path = write_ismrmrd(tmp_path / "raw.h5", header_xml(encoded, WIDTH, recon=(min(encoded, HEIGHT), WIDTH)), readouts)
    with open_volume(path) as volume:
        assert (volume.header.height, volume.header.recon_height) == (HEIGHT, min(encoded, HEIGHT))
        np.testing.assert_array_equal(volume.read_slice(0)[:, 1:], kspace[:, 1:])
        assert told in volume.findings[0]


@pytest.mark.parametrize("claimed", [0, HEIGHT - 1])
def test_an_echo_that_the_energy_contradicts_is_overruled(tmp_path, claimed):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    with open_volume(write(tmp_path, with_values(lines_of(kspace), center_sample=claimed))) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert f"their echo is at sample {claimed}" in volume.findings[0]


@pytest.mark.parametrize(("claimed", "user"), [(24, 15), (24, 0), (0, 0), (200, 15)])
def test_the_centre_is_where_the_energy_lies_not_where_the_header_puts_it(tmp_path, claimed, user):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    kspace[..., :9] = 0
    readouts = [
        (samples, {**values, "kspace_encode_step_1": values["kspace_encode_step_1"] - 9, "user": [0, 0, 0, 0, 0, user, 0, 0]})
        for samples, values in lines_of(kspace)[9:]
    ]
    with open_volume(write(tmp_path, readouts, center=claimed, maximum=38)) as volume:
        header, got = volume.header, volume.read_slice(0)
        # Without the scanner's own counter the peak may miss the centre by a line, which moves no pixel of a magnitude image.
        shift = header.padding_left - 9
        assert abs(shift) <= (0 if user else 1)
        assert header.width == WIDTH
        np.testing.assert_array_equal(got, np.roll(kspace, shift, axis=-1))
        assert f"centre of k-space at line {claimed}" in " ".join(volume.findings)


def test_lines_that_are_counted_from_one_fit_the_matrix(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = [(samples, {**values, "kspace_encode_step_1": values["kspace_encode_step_1"] + 1}) for samples, values in lines_of(kspace)]
    with open_volume(write(tmp_path, readouts)) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert "since counters begin at 1" in volume.findings[0]


def test_a_pulseq_sequence_whose_counters_say_nothing_is_placed_by_its_energy(tmp_path):
    pytest.importorskip("twixtools")
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = [(kspace[:, :, line], {"Lin": line, "CenterLin": 0}) for line in range(WIDTH)]
    protocol = '\ntSequenceFileName = ""%CustomerSeq%\\pulseq""\nsKSpace.lBaseResolution = 16\nsKSpace.lPhaseEncodingLines = 64\n'
    with open_volume(write_twix(tmp_path / "a.dat", protocol, readouts)) as volume:
        header = volume.header
        assert (header.height, header.width, header.recon_height, header.recon_width) == (HEIGHT, WIDTH, HEIGHT, WIDTH)
        np.testing.assert_array_equal(volume.read_slice(0), kspace)


def test_the_real_pulseq_scan_has_its_matrix_and_its_centre(scanner_data):
    pytest.importorskip("twixtools")
    with open_volume(scanner_data / "siemens" / "pulseq_gre_64x64_32ch.dat") as volume:
        header, energy = volume.header, np.square(np.abs(volume.read_slice(0))).sum(axis=(0, 1))
    assert (header.height, header.width, header.padding_left, header.padding_right) == (64, 64, 0, 64)
    assert (header.recon_height, header.recon_width) == (64, 64)
    assert abs(int(energy.argmax()) - 32) <= 1


# Slices: pulseq#118.


def test_slices_come_in_order_of_their_position(tmp_path):
    kspace = object_kspace((5, 3, HEIGHT, WIDTH))
    order = [0, 2, 4, 1, 3]
    readouts = [
        line
        for counter, place in enumerate(order)
        for line in with_values(lines_of(kspace[place], counter), position=(1.0, 7.0 - 0.5 * place, 4.5 * place))
    ]
    with open_volume(write(tmp_path, readouts)) as volume:
        for place in range(5):
            np.testing.assert_array_equal(volume.read_slice(place), kspace[place])
        assert "slices were put in order of their position" in volume.findings


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_twix_slices_come_in_order_of_their_position_along_their_normal(tmp_path, axis):
    mdh_def = pytest.importorskip("twixtools.mdh_def")
    names, kspace = ("Sag", "Cor", "Tra"), object_kspace((4, 3, HEIGHT, WIDTH))
    # Along the other axes they lie in other orders.
    places = np.array([[0, 3, 1, 2], [2, 0, 3, 1], [3, 2, 0, 1]])
    places[[0, axis]] = places[[axis, 0]]
    places[axis] = range(4)
    readouts = []
    for counter, place in enumerate([2, 0, 3, 1]):
        data = type(mdh_def.VB17_header().SliceData)()
        for name, along in zip(names, places, strict=True):
            setattr(data.SlicePos, name, 5.0 * along[place])
        values = {"Sli": counter, "CenterLin": WIDTH // 2, "SliceData": data}
        readouts += [(kspace[place][:, :, line], {**values, "Lin": line}) for line in range(WIDTH)]
    protocol = f"{PROTOCOL}sSliceArray.asSlice[0].sNormal.d{names[axis]} = 1.0\n"
    with open_volume(write_twix(tmp_path / "a.dat", protocol, readouts)) as volume:
        for place in range(4):
            np.testing.assert_array_equal(volume.read_slice(place), kspace[place])
        assert volume.header.orientation == ("SAG", "COR", "AX")[axis]


@pytest.mark.parametrize("step", [3.0, -3.0, 0.0])
def test_slices_that_run_along_their_positions_or_have_none_stay_as_they_are_counted(tmp_path, step):
    kspace = object_kspace((3, 3, HEIGHT, WIDTH))
    readouts = [line for index in range(3) for line in with_values(lines_of(kspace[index], index + 1), position=(0, 0, step * index))]
    with open_volume(write(tmp_path, readouts)) as volume:
        for index in range(3):
            np.testing.assert_array_equal(volume.read_slice(index), kspace[index])
        assert volume.findings == ()


# What else a file holds.


def test_further_measurements_and_encodings_are_told_or_refused(tmp_path):
    kspace = object_kspace((2, 3, HEIGHT, WIDTH))
    path = write(tmp_path, lines_of(kspace[0]))
    with h5py.File(path, "a") as file, h5py.File(write_ismrmrd(tmp_path / "b.h5", header(), lines_of(kspace[1]))) as other:
        file.copy(other["dataset"], "dataset_2")
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace[0])
        assert "took 1 of 2 measurements in the file, the others are left out" in volume.findings
    with h5py.File(path, "a") as file:
        rows = file["dataset/data"][:]
        rows["head"]["flags"] = flag(19)
        file["dataset/data"][...] = rows
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace[1])
    reference = lines_of(object_kspace((1, 3, HEIGHT, WIDTH), seed=3)[0])[:16]
    with pytest.raises(ScanError, match="most lines are of encoding 1"):
        open_volume(write(tmp_path, [*reference, *with_values(lines_of(kspace[0]), encoding_space_ref=1)]))


def test_of_several_twix_measurements_the_last_is_taken_and_images_before_it_are_told(tmp_path):
    pytest.importorskip("twixtools")
    kspace = object_kspace((2, 3, HEIGHT, WIDTH))
    first, last = ([(coils[:, :, line], {"Lin": line, "CenterLin": WIDTH // 2}) for line in range(WIDTH)] for coils in kspace)
    adjustment = [(random_kspace((3, 32)), {"Lin": line}) for line in range(4)]
    for earlier, told in ((first, True), (adjustment, False)):
        path = write_twix_vd(tmp_path / "a.dat", [(PROTOCOL, earlier), (PROTOCOL, last)])
        with open_volume(path) as volume:
            np.testing.assert_array_equal(volume.read_slice(0), kspace[1])
            assert ("took the last of 2 measurements in the file, the others are left out" in volume.findings) == told


def test_the_name_in_a_twix_files_table_names_its_patient_and_no_file(tmp_path):
    pytest.importorskip("twixtools")
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = [(kspace[:, :, line], {"Lin": line, "CenterLin": WIDTH // 2}) for line in range(WIDTH)]
    named = Deidentifier("x", safe_names=(".*",))
    path = write_twix_vd(tmp_path / "knee_jane_doe.dat", [(PROTOCOL, readouts)], patient_name="Doe^Jane")
    with open_volume(path, deidentifier=named) as volume:
        assert volume.header.volume.startswith("volume-")
        assert volume.header.patient.startswith("patient-")
    with open_volume(write_twix_vd(tmp_path / "knee_b.dat", [(PROTOCOL, readouts)]), deidentifier=named) as volume:
        assert volume.header.volume == "knee_b"


def test_slices_of_several_orientations_are_told(tmp_path):
    kspace = object_kspace((3, 3, HEIGHT, WIDTH))
    axes = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    readouts = [line for index in range(3) for line in with_values(lines_of(kspace[index], index), slice_dir=axes[index])]
    with open_volume(write(tmp_path, readouts)) as volume:
        assert "slices of several orientations are taken as one volume" in volume.findings


@pytest.mark.parametrize("center", [27, 0])
def test_lines_beyond_the_headers_matrix_widen_it(tmp_path, center):
    kspace = object_kspace((1, 3, HEIGHT, 54))[0]
    with open_volume(write(tmp_path, lines_of(kspace), center=center, maximum=53)) as volume:
        header = volume.header
        assert (header.width, header.recon_width) == (54, WIDTH)
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert "since lines reach beyond the matrix" in volume.findings[0]


@pytest.mark.parametrize(
    ("covered", "matrix", "size"), [((0.5, 1.0), (HEIGHT, WIDTH), (32, 48)), ((0.5, 0.75), (2 * HEIGHT, 96), (32, 36))]
)
def test_the_image_is_what_its_field_of_view_covers_however_the_scanner_interpolates(tmp_path, covered, matrix, size):
    # Of an encoded field of view of 2 mm to the sample; without one the stated matrix is all there is.
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    xml = header_xml(HEIGHT, WIDTH, recon=matrix).decode()
    stated = f"<x>{2 * matrix[0]}</x><y>{2 * matrix[1]}</y><z>4</z>"
    assert stated in xml
    x, y = round(2 * HEIGHT * covered[0]), round(2 * WIDTH * covered[1])
    with_fov = xml.replace(stated, f"<x>{x}</x><y>{y}</y><z>4</z>") if matrix != (HEIGHT, WIDTH) else _last(xml, stated, x, y)
    with open_volume(write_ismrmrd(tmp_path / "a.h5", with_fov.encode(), lines_of(kspace))) as volume:
        assert (volume.header.recon_height, volume.header.recon_width) == size
        assert volume.header.fov_mm == (x, y, 4)
    without = re.sub(r"<fieldOfView_mm>.*?</fieldOfView_mm>", "", xml)
    with open_volume(write_ismrmrd(tmp_path / "b.h5", without.encode(), lines_of(kspace))) as volume:
        assert (volume.header.recon_height, volume.header.recon_width) == (HEIGHT, WIDTH)


def _last(xml: str, stated: str, x: int, y: int) -> str:
    begin, _, end = xml.rpartition(stated)
    return f"{begin}<x>{x}</x><y>{y}</y><z>4</z>{end}"
