"""Raw files: ISMRMRD and Siemens twix, readout by readout."""

import h5py
import numpy as np
import pytest

from echotrain.data.formats import open_volume
from echotrain.data.formats.target import rss_target
from echotrain.errors import ScanError
from tests.scans import header_xml, lines_of, random_kspace, write_ismrmrd, write_twix

PROTOCOL = """
sKSpace.lBaseResolution = 8
sKSpace.lPhaseEncodingLines = 12
sSliceArray.asSlice[0].sNormal.dTra = 1.0
sSliceArray.asSlice[0].dReadoutFOV = 200.0
sSliceArray.asSlice[0].dPhaseFOV = 150.0
sProtConsistencyInfo.flNominalB0 = 2.89
<ParamString."tProtocolName"> { "t2_tse_sag_spine" }
<ParamString."PatientID"> { "4711-0815" }
<ParamString."InstitutionName"> { "General Hospital" }
"""


def test_ismrmrd_readouts_are_sorted_by_slice_and_line(tmp_path):
    kspace = random_kspace((2, 3, 16, 12))
    readouts = [line for pair in zip(lines_of(kspace[0], 0), lines_of(kspace[1], 1), strict=True) for line in pair]
    path = write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12, recon=(8, 12)), readouts[::-1])
    with open_volume(path) as volume:
        header = volume.header
        assert (header.num_slices, header.num_coils, header.height, header.width) == (2, 3, 16, 12)
        assert (header.recon_height, header.recon_width, header.orientation) == (8, 12, "AX")
        assert volume.read_target(0) is None
        assert volume.mask(0) is None
        for index in range(2):
            np.testing.assert_array_equal(volume.read_slice(index), kspace[index])


@pytest.mark.parametrize("flag", [19, 20, 23, 24, 26, 27, 28, 29, 30, 31])
def test_ismrmrd_readouts_that_are_no_image_are_skipped(tmp_path, flag):
    kspace = random_kspace((3, 16, 12))
    other = (random_kspace((3, 40), seed=1), {"kspace_encode_step_1": 3, "flags": 1 << (flag - 1)})
    with open_volume(write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), [other, *lines_of(kspace)])) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)


def test_ismrmrd_averages_are_averaged_and_later_repetitions_left_out(tmp_path):
    first, second, later = (random_kspace((3, 16, 12), seed) for seed in range(3))
    readouts = [
        *lines_of(first),
        *((samples, {**values, "average": 1}) for samples, values in lines_of(second)),
        *((samples, {**values, "repetition": 1}) for samples, values in lines_of(later)),
    ]
    with open_volume(write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), readouts)) as volume:
        np.testing.assert_allclose(volume.read_slice(0), (first + second) / 2, rtol=1e-6)


def test_ismrmrd_lines_acquired_backwards_are_turned_and_partial_echoes_centred(tmp_path):
    kspace = random_kspace((3, 16, 12))
    kspace[:, :4] = 0
    # The echo of the full readout lies at sample 8; without the first 4 samples it lies at 4, and in the order of a reversed readout at 7.
    readouts = [
        (samples[:, 4:], {**values, "center_sample": 4})
        if index % 2
        else (samples[:, :3:-1], {**values, "center_sample": 7, "flags": 1 << 21})
        for index, (samples, values) in enumerate(lines_of(kspace))
    ]
    with open_volume(write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), readouts)) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)


def test_ismrmrd_partial_fourier_is_padded_and_missing_lines_make_a_mask(tmp_path):
    kspace = random_kspace((3, 16, 12))
    readouts = [
        (samples, {**values, "kspace_encode_step_1": values["kspace_encode_step_1"] - 2}) for samples, values in lines_of(kspace)[2:]
    ]
    header = header_xml(16, 12, center=4, maximum=9)
    with open_volume(write_ismrmrd(tmp_path / "raw.h5", header, readouts)) as volume:
        assert (volume.header.padding_left, volume.header.padding_right) == (2, 12)
        assert volume.mask(0) is None
        np.testing.assert_array_equal(volume.read_slice(0)[..., 2:], kspace[..., 2:])
    with open_volume(write_ismrmrd(tmp_path / "raw.h5", header, readouts[::2])) as volume:
        assert volume.mask(0).sum() == 5


@pytest.mark.parametrize(
    ("values", "complaint"),
    [({"kspace_encode_step_1": 40}, "phase encodes"), ({"number_of_samples": 9}, "samples"), ({"active_channels": 2}, "coils")],
)
def test_ismrmrd_readouts_that_contradict_the_header_are_refused(tmp_path, values, complaint):
    readouts = lines_of(random_kspace((3, 16, 12)))
    readouts[5] = (readouts[5][0], {**readouts[5][1], **values})
    with pytest.raises(ScanError, match=f"raw.h5.*{complaint}"):
        open_volume(write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), readouts))


def test_ismrmrd_samples_that_are_shorter_than_their_header_says_are_refused(tmp_path):
    readouts = [(samples[:, :-1], {**values, "number_of_samples": 16}) for samples, values in lines_of(random_kspace((3, 16, 12)))]
    with pytest.raises(ScanError, match="a readout of 90 numbers"):
        open_volume(write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), readouts))


def twix_lines(kspace: np.ndarray, slice_: int = 0) -> list:
    return [(kspace[:, :, line], {"Lin": line, "Sli": slice_, "CenterLin": kspace.shape[-1] // 2}) for line in range(kspace.shape[-1])]


def test_twix_readouts_are_sorted_and_its_protocol_read(tmp_path):
    pytest.importorskip("twixtools")
    kspace = random_kspace((2, 3, 16, 12))
    noise = (random_kspace((3, 64), 1), {"flags": ("NOISEADJSCAN",)})
    path = write_twix(tmp_path / "meas.dat", PROTOCOL, [noise, *twix_lines(kspace[1], 1), *twix_lines(kspace[0], 0)])
    with open_volume(path) as volume:
        header = volume.header
        np.testing.assert_array_equal(volume.read_slice(0), kspace[0])
        np.testing.assert_array_equal(volume.read_slice(1), kspace[1])
    assert (header.height, header.width, header.recon_height, header.recon_width) == (16, 12, 8, 12)
    assert (header.anatomy, header.contrast, header.orientation, header.fov_mm[:2]) == ("spine", "T2", "SAG", (200, 150))
    assert header.field_strength == pytest.approx(2.89)
    assert header.center.startswith("site-")


@pytest.mark.parametrize(
    "flags",
    [
        *(("PHASCOR",), ("SLICE_ACCEL_PHASCOR",), ("NOISEADJSCAN",), ("RTFEEDBACK",), ("HPFEEDBACK",), ("REFPHASESTABSCAN",)),
        *(("PHASESTABSCAN",), ("RETRO_DUMMYSCAN",), ("B1_CONTROLLOOP",), ("PACE",), ("SLICE_ACCEL_REFSCAN",), ("PHASCOR", "PATREFSCAN")),
    ],
)
@pytest.mark.parametrize("values", [{}, {"Ave": 1}, {"Lin": 12}])
def test_twix_readouts_that_are_no_image_are_skipped(tmp_path, flags, values):
    pytest.importorskip("twixtools")
    # They have the samples and the coils of lines, and a line's counters, an average's, or those of the line behind the last.
    kspace, other = random_kspace((3, 16, 12)), random_kspace((3, 16), seed=1)
    no_image = (other, {"Lin": 3, "CenterLin": 6, **values, "flags": flags})
    with open_volume(write_twix(tmp_path / "meas.dat", PROTOCOL, [no_image, *twix_lines(kspace), no_image])) as volume:
        assert (volume.header.width, volume.header.num_slices) == (12, 1)
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert [finding for finding in volume.findings if finding.startswith("left out 2 ")]


@pytest.mark.parametrize(("oversampling", "width"), [("", 12), ("0.0", 12), ("0.5", 8), ("1.0", 6), ("0.2", 10), ("-1.0", 12)])
def test_twix_phase_oversampling_is_no_part_of_the_image(tmp_path, oversampling, width):
    pytest.importorskip("twixtools")
    protocol = f"{PROTOCOL}sKSpace.dPhaseOversamplingForDialog = {oversampling}\n" if oversampling else PROTOCOL
    with open_volume(write_twix(tmp_path / "meas.dat", protocol, twix_lines(random_kspace((3, 16, 12))))) as volume:
        assert (volume.header.width, volume.header.recon_width) == (12, width)
        assert (volume.header.height, volume.header.recon_height) == (16, 8)


def test_twix_readouts_that_disagree_on_the_centre_of_k_space_are_refused(tmp_path):
    pytest.importorskip("twixtools")
    readouts = twix_lines(random_kspace((3, 16, 12)))
    readouts[7][1]["CenterLin"] = 5
    with pytest.raises(ScanError, match=r"meas\.dat: center_step 5 to 6: all readouts must agree"):
        open_volume(write_twix(tmp_path / "meas.dat", PROTOCOL, readouts))


NORMALS = [
    *(((0.9, 0.3, 0.2), "SAG"), ((0.3, 0.9, -0.2), "COR"), ((-0.2, 0.3, 0.9), "AX")),
    *(((-1.0, 0.0, 0.0), "SAG"), ((0.0, -1.0, 0.0), "COR"), ((0.0, 0.0, -1.0), "AX"), ((0.0, 0.0, 0.0), "")),
]


@pytest.mark.parametrize(("normal", "orientation"), NORMALS)
def test_an_ismrmrd_slice_is_called_after_the_axis_that_it_is_normal_to(tmp_path, normal, orientation):
    # Components of a patient's system: from right to left, from front to back, from feet to head.
    readouts = [(samples, {**values, "slice_dir": normal}) for samples, values in lines_of(random_kspace((3, 16, 12)))]
    with open_volume(write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), readouts)) as volume:
        assert volume.header.orientation == orientation


@pytest.mark.parametrize(("normal", "orientation"), NORMALS)
def test_a_twix_slice_is_called_after_the_axis_that_it_is_normal_to(tmp_path, normal, orientation):
    pytest.importorskip("twixtools")
    axes = zip(("dSag", "dCor", "dTra"), normal, strict=True)
    # A component that is zero is not written.
    text = "".join(f"sSliceArray.asSlice[0].sNormal.{axis} = {value}\n" for axis, value in axes if value)
    protocol = f"\nsKSpace.lBaseResolution = 8\nsKSpace.lPhaseEncodingLines = 12\n{text}"
    with open_volume(write_twix(tmp_path / "meas.dat", protocol, twix_lines(random_kspace((3, 16, 12))))) as volume:
        assert volume.header.orientation == orientation


def test_the_protocols_word_for_the_orientation_comes_before_the_normal(tmp_path):
    readouts = [(samples, {**values, "slice_dir": (0.9, 0.3, 0.2)}) for samples, values in lines_of(random_kspace((3, 16, 12)))]
    with open_volume(write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12, protocol="pd cor"), readouts)) as volume:
        assert volume.header.orientation == "COR"


def test_the_ismrmrd_file_is_the_same_scan_as_the_fastmri_file(scanner_data):
    with open_volume(scanner_data / "brain_flash_16ch_cimax3T.h5") as volume:
        expected = volume.read_slice(0)
    with open_volume(scanner_data / "ismrmrd" / "brain_flash_16ch_cimax3T.h5") as volume:
        np.testing.assert_array_equal(volume.read_slice(0), expected)


def test_the_vb_twix_file_is_the_raw_file_of_the_phantom(scanner_data):
    pytest.importorskip("twixtools")
    with open_volume(scanner_data / "phantom_gre_4ch_trio3T.h5") as volume:
        expected = volume.read_slice(0)
    with open_volume(scanner_data / "siemens" / "trio_VB19_gre_phantom_4ch.dat") as volume:
        np.testing.assert_array_equal(volume.read_slice(0), expected)
        assert volume.header.field_strength == pytest.approx(2.89362)


def test_the_ve_twix_file_reconstructs_to_a_disc_without_oversampling(scanner_data):
    pytest.importorskip("twixtools")
    with open_volume(scanner_data / "siemens" / "skyra_VE11_gre_phantom_2ch.dat") as volume:
        header = volume.header
        image = rss_target(volume.read_slice(0), (header.recon_height, header.recon_width))
    assert (header.num_coils, header.height, header.width) == (2, 320, 160)
    assert image.shape == (160, 160)
    # A water disc of nearly the field of view's diameter: bright inside, dark in the corners.
    rows, columns = np.indices(image.shape) - 80
    radius = np.hypot(rows, columns)
    assert np.median(image[radius < 60]) > 5 * np.median(image[radius > 95])


@pytest.mark.parametrize("options", [{}, {"chunks": (5,)}, {"chunks": (4,), "compression": "gzip"}])
def test_ismrmrd_heads_are_read_from_any_layout_without_a_sample(tmp_path, options):
    kspace = random_kspace((3, 16, 12))
    path = write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), lines_of(kspace))
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=rows, **options)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)


def test_an_ismrmrd_readout_of_another_length_than_its_head_says_is_refused(tmp_path):
    kspace = random_kspace((3, 16, 12))
    readouts = [(np.tile(samples, (1, 1 + (index == 5))), values) for index, (samples, values) in enumerate(lines_of(kspace))]
    for _, values in readouts:
        values["number_of_samples"] = 16
    path = write_ismrmrd(tmp_path / "raw.h5", header_xml(16, 12), readouts)
    with pytest.raises(ScanError, match="its head declares 96"):
        open_volume(path)
