"""What is no Cartesian scan of single slices, line by line: refused as what it is."""

import numpy as np
import pytest

from echotrain.data.formats import open_volume
from echotrain.errors import ScanError
from tests.raw_scans import HEIGHT, PROTOCOL, WIDTH, flag, header, reversed_readout, with_values, write
from tests.scans import lines_of, object_kspace, random_kspace, write_ismrmrd, write_scan, write_twix


def test_an_echo_planar_scan_is_refused_as_one(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    to_and_fro = [
        (samples[:, ::-1], {**values, "flags": flag(22), "center_sample": HEIGHT // 2 - 1}) if line % 2 else (samples, values)
        for line, (samples, values) in enumerate(lines_of(kspace))
    ]
    with open_volume(write(tmp_path, to_and_fro)) as volume:  # a bipolar readout of single lines is none
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
    navigator = [(samples, {**values, "flags": flag(24)}) for samples, values in to_and_fro[:3]]
    with pytest.raises(ScanError, match="phase-correction lines: an echo-planar scan"):
        open_volume(write(tmp_path, navigator + to_and_fro))
    with pytest.raises(ScanError, match="in echo trains: an echo-planar scan"):
        open_volume(write(tmp_path, to_and_fro, "<echoTrainLength>48</echoTrainLength>"))


@pytest.mark.parametrize("trajectory", ["radial", "spiral", "epi", "goldenangle", "other"])
def test_other_trajectories_are_refused_by_name(tmp_path, trajectory):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    with pytest.raises(ScanError, match=trajectory):
        open_volume(write(tmp_path, lines_of(kspace), trajectory=trajectory))


def test_multiband_is_refused(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    band = "<parallelImaging><multiband><multiband_factor>2</multiband_factor></multiband></parallelImaging>"
    with pytest.raises(ScanError, match="multiband factor 2"):
        open_volume(write(tmp_path, lines_of(kspace), band))


def test_multiband_that_only_a_converters_parameter_states_is_refused(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    parameter = "<userParameterLong><name>MultiBandFactor</name><value>{}</value></userParameterLong>"
    for factor in (1, 2):
        xml = header().replace(b"</ismrmrdHeader>", f"<userParameters>{parameter.format(factor)}</userParameters></ismrmrdHeader>".encode())
        path = write_ismrmrd(tmp_path / "raw.h5", xml, lines_of(kspace))
        if factor == 1:
            open_volume(path).close()
        else:
            with pytest.raises(ScanError, match="multiband factor 2"):
                open_volume(path)


def test_slices_that_run_on_in_the_counter_of_lines_are_no_wider_matrix(tmp_path):
    pytest.importorskip("twixtools")
    kspace = object_kspace((2, 3, HEIGHT, WIDTH))
    lines = [samples for coils in kspace for samples, _ in lines_of(coils)]
    raw = [(samples, {"kspace_encode_step_1": line}) for line, samples in enumerate(lines)]
    with pytest.raises(ScanError, match=r"2 centres of k-space among lines 0 to 95"):
        open_volume(write(tmp_path, raw))
    twix = [(samples, {"Lin": line, "CenterLin": WIDTH // 2}) for line, samples in enumerate(lines)]
    with pytest.raises(ScanError, match=r"2 centres of k-space"):
        open_volume(write_twix(tmp_path / "a.dat", PROTOCOL, twix))


def test_of_bipolar_echoes_the_first_is_a_scan_of_lines(tmp_path):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    backwards = [
        (reversed_readout(samples, HEIGHT // 2), {**values, "flags": flag(22), "contrast": 1}) for samples, values in lines_of(kspace * 2)
    ]
    with open_volume(write(tmp_path, [*lines_of(kspace), *backwards], "<echoTrainLength>2</echoTrainLength>")) as volume:
        np.testing.assert_array_equal(volume.read_slice(0), kspace)
        assert "took echo 1 of 2, the other echoes are left out" in volume.findings


def test_a_noise_slice_hides_no_echo_planar_scan_no_spokes_and_no_corner(tmp_path):
    kspace = object_kspace((4, 3, HEIGHT, WIDTH))
    spokes = np.repeat(kspace[..., WIDTH // 2, None], WIDTH, axis=-1)
    ghost = kspace.copy()
    ghost[..., 1::2] = ghost[:, :, ::-1, 1::2].copy()
    corner = np.fft.ifftshift(kspace, axes=(-2, -1))
    cases = ((ghost, "every second line runs backwards"), (corner, "zero frequency at row"), (spokes, "passes through the centre"))
    for bad, reason in cases:
        for empty in ([2], [0, 3], [1, 2, 3]):
            scan = bad.copy()
            scan[empty] = 1e-3 * np.abs(kspace).max() * random_kspace(scan[empty].shape)
            with pytest.raises(ScanError, match=reason):
                open_volume(write_scan(tmp_path / "a.h5", scan, target=None))


def test_the_words_of_pulseqs_console_count_for_nothing(tmp_path):
    pytest.importorskip("twixtools")
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = [(kspace[:, :, line], {"Lin": line, "CenterLin": 0}) for line in range(WIDTH)]
    words = "sKSpace.ucDimension = 4\nsKSpace.lPartitions = 8\nsFastImaging.lEPIFactor = 2\nsKSpace.ucTrajectory = 2\n"
    words += "sSliceAcceleration.lMultiBandFactor = 2\nsKSpace.dPhaseOversamplingForDialog = 0.5\n"
    with open_volume(write_twix(tmp_path / "a.dat", '\ntSequenceFileName = "pulseq"\n' + words, readouts)) as volume:
        assert (volume.num_partitions, volume.header.recon_width) == (1, WIDTH)
        np.testing.assert_array_equal(volume.read_slice(0), kspace)


@pytest.mark.parametrize("begin", [HEIGHT // 2, 0])
def test_readouts_that_all_pass_through_the_centre_are_no_lines(tmp_path, begin):
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    spokes = np.repeat(kspace[:, :, WIDTH // 2, None], WIDTH, axis=2) * np.exp(1j * np.arange(WIDTH)).astype(np.complex64)
    spokes = np.roll(spokes, begin - HEIGHT // 2, axis=1) + 1e-3 * np.abs(kspace).max() * random_kspace(spokes.shape)
    with pytest.raises(ScanError, match=r"passes through the centre of k-space: a radial or spiral scan"):
        open_volume(write(tmp_path, with_values(lines_of(spokes), center_sample=begin)))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sKSpace.ucTrajectory = 0x2", "radial"),
        ("sKSpace.ucTrajectory = 4", "spiral"),
        ("sKSpace.ucTrajectory = 8", "PROPELLER"),
        ("sFastImaging.lEPIFactor = 64", "echo-planar, 64 lines"),
        ("sSliceAcceleration.lMultiBandFactor = 3", "multiband factor 3"),
    ],
)
def test_twix_protocols_that_are_no_lines_of_single_slices_are_refused(tmp_path, line, reason):
    pytest.importorskip("twixtools")
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = [(kspace[:, :, step], {"Lin": step, "CenterLin": WIDTH // 2}) for step in range(WIDTH)]
    with open_volume(write_twix(tmp_path / "a.dat", PROTOCOL, readouts)) as volume:
        assert volume.num_partitions == 1
    with pytest.raises(ScanError, match=reason):
        open_volume(write_twix(tmp_path / "a.dat", f"{PROTOCOL}{line}\n", readouts))


def test_partitions_are_a_3d_encode_where_protocol_or_counters_say_so(tmp_path):
    pytest.importorskip("twixtools")
    kspace = object_kspace((1, 3, HEIGHT, WIDTH))[0]
    readouts = [(kspace[:, :, step], {"Lin": step, "CenterLin": WIDTH // 2}) for step in range(WIDTH)]
    for extra, expected in (
        ("sKSpace.ucDimension = 2\nsKSpace.lPartitions = 16\n", 1),
        ("sKSpace.ucDimension = 4\nsKSpace.lPartitions = 16\n", 16),
    ):
        with open_volume(write_twix(tmp_path / "a.dat", PROTOCOL + extra, readouts)) as volume:
            assert volume.num_partitions == expected
    counted = [(samples, {**values, "Par": par}) for par in range(3) for samples, values in readouts]
    with open_volume(write_twix(tmp_path / "a.dat", PROTOCOL, counted)) as volume:
        assert volume.num_partitions == 3


@pytest.mark.parametrize(
    "begin",
    [
        (3).to_bytes(2, "little") + (37).to_bytes(4, "little") + b"<?xml version='1.0'?><ismrmrdHeader/>",
        (1).to_bytes(2, "little") + b"default.xml".ljust(1024, b"\x00"),
        (1).to_bytes(2, "little") + b"simplefft".ljust(1024, b"\x00"),
        (2).to_bytes(2, "little") + (31).to_bytes(4, "little") + b"<configuration></configuration>",
        (2).to_bytes(2, "little") + (4).to_bytes(4, "little") + b"null",
        b"yardl\x01\x00\x00\x00",
    ],
    ids=["header", "configuration", "configuration by name", "configuration text", "no configuration", "MRD 2"],
)
def test_a_stream_is_named_as_one(tmp_path, begin):
    path = tmp_path / "scan.mrd"
    path.write_bytes(begin + bytes(5000))
    with pytest.raises(ScanError, match=r"scan\.mrd: an MRD stream.*Convert"):
        open_volume(path)
