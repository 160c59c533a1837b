"""fastMRI- and MosaicMRI-layout files."""

import numpy as np
import pytest

from echotrain.data.formats import open_volume
from echotrain.data.formats.protocol import parse_protocol
from echotrain.data.formats.target import rss_target
from tests.scans import header_xml, random_kspace, write_scan


def test_a_volume_comes_back_as_it_was_written(tmp_path):
    kspace = random_kspace((3, 4, 20, 16))
    target = np.stack([rss_target(coils, (10, 16)) for coils in kspace])
    path = write_scan(tmp_path / "file1000001.h5", kspace, header=header_xml(20, 16, recon=(10, 16)), target=target)
    with open_volume(path, dataset="knees") as volume:
        header = volume.header
        assert (header.num_slices, header.num_coils, header.height, header.width) == (3, 4, 20, 16)
        assert (header.recon_height, header.recon_width) == (10, 16)
        assert (header.dataset, header.volume, header.vendor, header.field_strength) == ("knees", "file1000001", "Siemens", 1.5)
        assert header.fov_mm == (20, 32, 4)
        for index in range(3):
            np.testing.assert_array_equal(volume.read_slice(index), kspace[index])
            np.testing.assert_array_equal(volume.read_target(index), target[index])


def test_contiguous_slices_can_be_read_by_their_offsets(tmp_path):
    kspace = random_kspace((3, 4, 20, 16))
    path = write_scan(tmp_path / "file1.h5", kspace)
    content = path.read_bytes()
    with open_volume(path) as volume:
        for index in range(3):
            offset, nbytes = volume.raw_slice_range(index)
            assert content[offset : offset + nbytes] == kspace[index].tobytes()
            offset, nbytes = volume.raw_target_range(index)
            assert content[offset : offset + nbytes] == volume.read_target(index).tobytes()


@pytest.mark.parametrize("options", [{"chunks": (1, 1, 20, 16)}, {"chunks": (1, 4, 8, 8), "compression": "gzip", "shuffle": True}])
def test_chunked_and_compressed_files_are_read_but_offer_no_offsets(tmp_path, options):
    kspace = random_kspace((2, 4, 20, 16))
    with open_volume(write_scan(tmp_path / "file1.h5", kspace, **options)) as volume:
        np.testing.assert_array_equal(volume.read_slice(1), kspace[1])
        assert volume.raw_slice_range(0) is None


def test_double_precision_is_read_as_complex64_and_offers_no_offsets(tmp_path):
    kspace = random_kspace((2, 4, 20, 16)).astype(np.complex128)
    with open_volume(write_scan(tmp_path / "file1.h5", kspace, target=None)) as volume:
        assert volume.read_slice(0).dtype == np.complex64
        assert volume.raw_slice_range(0) is None


def test_big_endian_samples_are_read_and_offer_no_offsets(tmp_path):
    kspace = random_kspace((2, 4, 20, 16))
    target = np.stack([rss_target(coils, (20, 16)) for coils in kspace])
    with open_volume(write_scan(tmp_path / "file1.h5", kspace.astype(">c8"), target=target.astype(">f4"))) as volume:
        for index in range(2):
            np.testing.assert_array_equal(volume.read_slice(index), kspace[index])
            np.testing.assert_array_equal(volume.read_target(index), target[index])
            assert volume.read_slice(index).dtype.isnative
            assert volume.raw_slice_range(index) is volume.raw_target_range(index) is None


def test_a_file_with_a_user_block_in_front_is_read_and_its_offsets_count_from_the_files_begin(tmp_path):
    import h5py

    kspace = random_kspace((2, 4, 20, 16))
    plain = write_scan(tmp_path / "plain.h5", kspace)
    path = tmp_path / "file1.h5"
    with h5py.File(path, "w", userblock_size=2048) as file, h5py.File(plain) as source:
        for name in source:
            source.copy(name, file)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read_slice(1), kspace[1])
        offset, nbytes = volume.raw_slice_range(1)
        assert path.read_bytes()[offset : offset + nbytes] == kspace[1].tobytes()


def test_single_coil_files_have_one_coil(tmp_path):
    kspace = random_kspace((2, 20, 16))
    with open_volume(write_scan(tmp_path / "file1.h5", kspace, target=None)) as volume:
        assert volume.header.num_coils == 1
        np.testing.assert_array_equal(volume.read_slice(1), kspace[1][None])


@pytest.mark.parametrize(
    ("width", "center", "maximum", "expected"),
    [(368, 184, 367, (0, 368)), (368, 164, 331, (20, 352)), (320, 140, 299, (20, 320)), (15, 8, 14, (0, 14))],
)
def test_measured_lines_follow_fastmris_formula(tmp_path, width, center, maximum, expected):
    header = header_xml(4, width, center=center, maximum=maximum)
    kspace = random_kspace((1, 1, 4, width))
    # Padding is zero; of an odd matrix the formula leaves out a line that was measured.
    kspace[..., : max(expected[0] - 1, 0)], kspace[..., expected[1] + 1 :] = 0, 0
    with open_volume(write_scan(tmp_path / "file1.h5", kspace, header=header)) as volume:
        assert (volume.header.padding_left, volume.header.padding_right) == expected


def test_the_mask_of_a_test_file_is_read(tmp_path):
    import h5py

    mask = np.arange(24) % 4 == 0
    path = write_scan(tmp_path / "file1.h5", random_kspace((2, 3, 32, 24)) * mask, target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = mask
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.mask(0), mask)
        assert volume.read_target(0) is None


def test_a_target_wider_than_the_kspace_is_ignored(tmp_path):
    # fastMRI's FLAIR volumes of 203 columns come with interpolated targets of 320.
    with open_volume(write_scan(tmp_path / "file1.h5", target=np.ones((2, 32, 40), np.float32))) as volume:
        assert volume.read_target(0) is None
        assert volume.header.recon_width == 24


def test_attributes_of_the_dataset_come_before_the_protocol_name(tmp_path):
    header = header_xml(32, 24, protocol="t1 tse cor knee")
    path = write_scan(tmp_path / "a.h5", header=header, attributes={"anatomy": "shoulder", "contrast": "PD_FS", "max": 2.0, "norm": 3.0})
    with open_volume(path) as volume:
        header = volume.header
    assert (header.anatomy, header.contrast, header.fat_suppressed, header.orientation) == ("shoulder", "PD_FS", True, "COR")
    assert (header.max_value, header.norm) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("acquisition", "anatomy", "contrast", "fat_suppressed", "orientation"),
    [
        ("CORPD_FBK", "knee", "PD", False, "COR"),
        ("CORPDFS_FBK", "knee", "PD_FS", True, "COR"),
        ("AXT1", "brain", "T1", None, "AX"),
        ("AXT1PRE", "brain", "T1", None, "AX"),
        ("AXT1POST", "brain", "T1_POST", None, "AX"),
        ("AXT2", "brain", "T2", None, "AX"),
        ("AXFLAIR", "brain", "FLAIR", None, "AX"),
    ],
)
def test_fastmris_acquisition_codes_are_understood(acquisition, anatomy, contrast, fat_suppressed, orientation):
    found = parse_protocol(acquisition=acquisition)
    assert (found.anatomy, found.contrast, found.fat_suppressed, found.orientation) == (anatomy, contrast, fat_suppressed, orientation)


@pytest.mark.parametrize(
    ("words", "anatomy", "contrast", "fat_suppressed", "orientation"),
    [
        ("t2_tse_sag LSpine", "spine", "T2", None, "SAG"),
        ("pd_tse_fs_cor knee", "knee", "PD_FS", True, "COR"),
        ("stir ax pelvis", "pelvis", "STIR", True, "AX"),
        ("Jane Doe's follow-up", "", "", None, ""),
    ],
)
def test_protocol_names_give_only_words_of_the_vocabulary(words, anatomy, contrast, fat_suppressed, orientation):
    found = parse_protocol(words=words)
    assert (found.anatomy, found.contrast, found.fat_suppressed, found.orientation) == (anatomy, contrast, fat_suppressed, orientation)


@pytest.mark.parametrize("name", ["brain_flash_16ch_cimax3T", "brain_t2_4ch", "phantom_gre_4ch_trio3T"])
def test_real_targets_are_the_rss_of_the_real_kspace(scanner_data, name):
    with open_volume(scanner_data / f"{name}.h5") as volume:
        target, header = volume.read_target(0), volume.header
        ours = rss_target(volume.read_slice(0), (header.recon_height, header.recon_width))
        assert header.max_value == pytest.approx(float(target.max()), rel=1e-6)
        assert header.norm == pytest.approx(float(np.linalg.norm(target)), rel=1e-5)
    assert ((ours - target) ** 2).sum() / (target**2).sum() < 1e-12
