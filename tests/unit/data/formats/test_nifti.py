"""NIfTI: one order and orientation whatever the file's axes are, and nothing read that is not there."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from echotrain.data.formats import ReadLimits
from echotrain.data.formats.image_volume import ImageVolume
from echotrain.data.formats.nifti import is_nifti
from echotrain.data.formats.open_images import holds_images, open_images
from echotrain.errors import ScanError
from tests.dicoms import random_images, write_nifti

# Of (right, front, up): slices coarsest along the last axis.
SPACING = (1.0, 1.5, 4.0)


def read(path: Path, **options) -> tuple[ImageVolume, np.ndarray]:
    with open_images(path, place=str(path), **options) as found:
        (volume,) = found.volumes
        places = itertools.product(range(volume.header.num_slices), range(volume.header.num_frames or 1))
        return volume, np.stack([volume.read_image(*place) for place in places])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "SPL", "PIR"])
def test_however_a_file_is_turned_its_slices_come_in_one_order_and_orientation(tmp_path: Path, codes: str, ending: str) -> None:
    values = random_images(5, 7, 4)
    upright = nibabel.Nifti1Image(values, np.diag([*SPACING, 1]))
    now, wanted = nibabel.io_orientation(upright.affine), nibabel.orientations.axcodes2ornt(codes)
    turned = upright.as_reoriented(nibabel.orientations.ornt_transform(now, wanted))
    path = tmp_path / f"scan{ending}"
    write_nifti(path, np.asarray(turned.dataobj), turned.affine)
    volume, images = read(path)
    assert holds_images(path)
    # Seen from the feet: the front is above, the patient's right on the left.
    assert np.array_equal(images, values[::-1, ::-1].transpose(2, 1, 0))
    header = volume.header
    assert (header.num_slices, header.height, header.width, header.spacing_mm) == (4, 7, 5, (1.5, 1.0, 4.0))
    assert (header.protocol.orientation, volume.findings) == ("AX", ())


@pytest.mark.parametrize(("coarse", "orientation"), [(0, "SAG"), (1, "COR"), (2, "AX")])
def test_slices_lie_along_the_coarsest_axis_and_up_is_up(tmp_path: Path, coarse: int, orientation: str) -> None:
    values = random_images(4, 5, 6)
    spacing = [1.0, 1.0, 1.0, 1.0]
    spacing[coarse] = 3.0
    path = tmp_path / "scan.nii"
    write_nifti(path, values, np.diag(spacing))
    volume, images = read(path)
    assert (volume.header.protocol.orientation, volume.header.num_slices) == (orientation, values.shape[coarse])
    expected = {"SAG": values[:, ::-1, ::-1].transpose(0, 2, 1), "COR": values[::-1, ::-1, ::-1].transpose(1, 2, 0)}
    assert np.array_equal(images, expected.get(orientation, values[::-1, ::-1].transpose(2, 1, 0)))


def test_a_fourth_axis_is_of_frames(tmp_path: Path) -> None:
    values = random_images(5, 6, 3, 4)
    path = tmp_path / "scan.nii.gz"
    write_nifti(path, values, np.diag([*SPACING, 1]))
    volume, images = read(path)
    assert (volume.header.num_slices, volume.header.num_frames) == (3, 4)
    assert "4 volumes of a fourth axis are frames of its slices" in volume.findings
    assert np.array_equal(images.reshape(3, 4, 6, 5), values[::-1, ::-1].transpose(2, 3, 1, 0))
    write_nifti(path, values[..., :1], np.diag([*SPACING, 1]))
    assert read(path)[0].header.num_frames is None


def test_slope_and_intercept_are_undone_and_a_slope_of_zero_means_none(tmp_path: Path) -> None:
    values = random_images(3, 4, 2)
    expected = values[::-1, ::-1].transpose(2, 1, 0).astype(np.float32)
    path = tmp_path / "scan.nii"
    for slope, intercept, wanted in ((0.5, -7, expected * 0.5 - 7), (0, 9, expected), (np.nan, np.nan, expected)):
        write_nifti(path, values, np.diag([*SPACING, 1]), scl_slope=slope, scl_inter=intercept)
        np.testing.assert_allclose(read(path)[1], wanted)


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<i2", ">i2", "u1", "<f8", "<i4", "<u2"])
def test_every_type_of_real_numbers_is_read(tmp_path: Path, kind: str) -> None:
    values = random_images(3, 4, 2).astype(np.uint8).astype(kind)
    header = nibabel.Nifti1Header(endianness=">" if kind.startswith(">") else "<")
    header.set_data_dtype(kind)
    path = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1]), header), path)
    assert np.array_equal(read(path)[1], values[::-1, ::-1].transpose(2, 1, 0).astype(np.float32))


def test_a_second_version_header_and_a_qform_alone_are_read(tmp_path: Path) -> None:
    values = random_images(3, 4, 2)
    path = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti2Image(values, np.diag([*SPACING, 1])), path)
    assert np.array_equal(read(path)[1], values[::-1, ::-1].transpose(2, 1, 0))
    image = nibabel.Nifti1Image(values, None)
    image.set_qform(np.diag([-1.0, -1.5, 4.0, 1]), 1)
    image.set_sform(None, 0)
    nibabel.save(image, path)
    assert np.array_equal(read(path)[1], values.transpose(2, 1, 0))


def test_a_file_that_says_no_orientation_is_taken_as_it_is_and_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    write_nifti(path, random_images(3, 4, 2), None, sform_code=0, qform_code=0)
    assert "says no orientation" in read(path)[0].findings[0]


def test_neither_the_files_name_nor_its_free_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "Doe_Jane_19610507_T2w.nii.gz"
    write_nifti(path, random_images(3, 4, 2), np.diag([*SPACING, 1]))
    volume, _ = read(path)
    assert volume.header.protocol.contrast == "T2"
    said = f"{volume.header}{volume.findings}".lower()
    assert not any(secret in said for secret in ("doe", "jane", "1961"))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "declares volume"),
        ({"dim": [3, 200, 200, 2, 1, 1, 1, 1]}, "which the file cannot hold"),
        ({"dim": [3, 0, 4, 2, 1, 1, 1, 1]}, "positive size"),
        ({"dim": [3, -3, 4, 2, 1, 1, 1, 1]}, "positive size"),
        ({"dim": [5, 3, 2, 2, 1, 2, 1, 1]}, "array of 5 axes"),
        ({"dim": [0, 3, 2, 2, 1, 1, 1, 1]}, "array of 0 axes"),
        ({"dim": [4, 1, 1, 1, 24, 1, 1, 1], "datatype": 128, "bitpix": 24}, "colours"),
        ({"datatype": 32, "bitpix": 64}, "complex"),
        ({"datatype": 1536, "bitpix": 128}, "more than 64 bits"),
        ({"datatype": 7777}, "unknown type"),
        ({"vox_offset": 1e9}, "cannot hold"),
        ({"vox_offset": 20}, "cannot hold"),
        ({"vox_offset": np.nan}, "cannot hold"),
        ({"scl_slope": 2, "scl_inter": np.inf}, "intercept of inf"),
        ({"sform_code": 1, "srow_x": [np.nan, 0, 0, 0]}, "not finite"),
        ({"sform_code": 1, "srow_x": [0, 0, 0, 0]}, "lie in a plane"),
        ({"magic": b"ni1"}, "no format of images"),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_what_cannot_be_is_refused_before_memory_is_taken(tmp_path: Path, ending: str, header, said) -> None:
    path = tmp_path / f"scan{ending}"
    write_nifti(path, random_images(3, 4, 2), np.diag([*SPACING, 1]), **header)
    if ending == ".nii.gz" and header.get("dim", [0])[1:3] == [200, 200]:
        said = "before its values do"
    with pytest.raises(ScanError, match=said):
        read(path, limits=ReadLimits(volume_bytes=1 << 40))


def test_cut_off_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    write_nifti(path, random_images(30, 40, 2), np.diag([*SPACING, 1]))
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:1000] + bytes(200) + content[1200:]):
        path.write_bytes(damaged)
        with pytest.raises(ScanError):
            read(path)
    path.write_bytes(gzip.compress(b"Doe Jane" * 100))
    assert not holds_images(path)
    assert not is_nifti(b"")
    assert not is_nifti(b"\x1f\x8b" + bytes(100))


def test_real_heads_are_upright(scanner_data: Path) -> None:
    volume, images = read(scanner_data / "volumes" / "colin27_ch2_1mm.nii.gz")
    assert images.shape == (181, 217, 181)
    middle = images[80] > 50
    # The head is narrower at the front, which is above, and its two sides are alike.
    rows = np.flatnonzero(middle.any(axis=1))
    front, back = middle[rows[0] + 20].sum(), middle[rows[-1] - 20].sum()
    assert front < back
    assert abs(int(middle[:, :90].sum()) - int(middle[:, -90:].sum())) < 0.1 * middle.sum()
    assert volume.header.protocol.orientation == "AX"
