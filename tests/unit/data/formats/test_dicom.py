"""DICOM: what makes a volume, what values its pixels have, and what is refused before memory is taken."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from echotrain.data.formats import ReadLimits
from echotrain.data.formats.image_volume import OpenedImages
from echotrain.data.formats.open_images import holds_images, open_images
from tests.dicoms import AXIAL, SECRETS, dataset, random_images, write_enhanced, write_series


def opened(path: Path, **options) -> OpenedImages:
    with open_images(path, place=str(path), **options) as found:
        return found


def images_of(path: Path) -> np.ndarray:
    (volume,) = opened(path).volumes
    return np.stack([volume.read_image(index, 0) for index in range(volume.header.num_slices)])


def reasons(path: Path, **options) -> list[str]:
    found = opened(path, **options)
    assert not found.volumes
    return [unusable.reason for unusable in found.unusable]


def test_a_series_is_a_volume_in_the_order_of_its_places_whatever_its_files_are_called(tmp_path: Path) -> None:
    volume = random_images(15, 9, 7)
    write_series(tmp_path, volume)
    assert np.array_equal(images_of(tmp_path), volume.astype(np.float32))
    header = opened(tmp_path).volumes[0].header
    assert (header.num_slices, header.num_frames, header.height, header.width) == (15, None, 9, 7)
    assert header.spacing_mm == (0.5, 0.75, 3.0)
    assert (header.protocol.orientation, header.protocol.anatomy, header.protocol.contrast) == ("AX", "knee", "T2")
    assert (header.vendor, header.field_strength, header.sex) == ("Siemens", 3.0, "F")


@pytest.mark.parametrize(("axes", "orientation"), [([0, 1, 0, 0, 0, -1], "SAG"), ([1, 0, 0, 0, 0, -1], "COR"), ([-1, 0, 0, 0, 1, 0], "AX")])
def test_slices_go_along_their_normal_and_say_how_they_lie(tmp_path: Path, axes, orientation) -> None:
    volume = random_images(4, 5, 6)
    write_series(tmp_path, volume, axes=axes)
    assert np.array_equal(images_of(tmp_path), volume)
    assert opened(tmp_path).volumes[0].header.protocol.orientation == orientation


def test_nothing_that_names_the_patient_is_said_of_a_volume(tmp_path: Path) -> None:
    write_series(tmp_path / "Doe_Jane", random_images(3, 9, 7))
    (volume,) = opened(tmp_path / "Doe_Jane").volumes
    said = f"{dataclasses.asdict(volume.header)} {volume.findings}"
    assert not any(secret.lower() in said.lower() for secret in SECRETS)
    assert volume.header.patient.startswith("patient-")
    assert volume.identity.patient_id == "MRN-77123"


def test_frames_of_one_file_are_slices_by_their_places_each_on_its_own_scale(tmp_path: Path) -> None:
    volume = random_images(5, 6, 9)
    write_enhanced(tmp_path / "enhanced.dcm", volume, order=[3, 0, 4, 1, 2])
    slopes = np.arange(1, 6, dtype=np.float32)[:, None, None]
    np.testing.assert_allclose(images_of(tmp_path / "enhanced.dcm"), volume * slopes + 10)
    assert opened(tmp_path / "enhanced.dcm").volumes[0].findings == ("its slices are written on several scales, which are undone",)


def test_frames_without_places_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "frames.dcm"
    dataset("1.2.3", random_images(3, 6, 5), NumberOfFrames=3, ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=AXIAL).save_as(path)
    assert "an image without ImagePositionPatient" in reasons(path)[0]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_uncompressed_way_of_writing_gives_the_same_values(tmp_path: Path, syntax) -> None:
    volume = random_images(3, 7, 5)
    folder = tmp_path / "series"
    folder.mkdir()
    for index, image in enumerate(volume):
        made = dataset("1.2", image, syntax=syntax, ImagePositionPatient=[0, 0, index], ImageOrientationPatient=AXIAL)
        made.PixelData = image.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
        made["PixelData"].VR = "OW"
        made.save_as(folder / f"{index}.dcm")
    assert np.array_equal(images_of(folder), volume)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"RescaleSlope": "0.5", "RescaleIntercept": "-3"}, lambda v: v * 0.5 - 3),
        ({"BitsStored": 12, "HighBit": 11}, lambda v: v & 0xFFF),
        ({"PixelRepresentation": 1}, lambda v: v.astype(np.int16).astype(float)),
        ({"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11}, lambda v: ((v & 0xFFF) ^ 0x800) - 2048.0),
        ({"PhotometricInterpretation": "MONOCHROME1"}, lambda v: 65535.0 - v),
        ({"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}, lambda v: 4095.0 - (v & 0xFFF)),
        ({"PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": 1}, lambda v: -1.0 - v.astype(np.int16)),
    ],
)
def test_values_are_what_the_header_says_of_the_stored_bits(tmp_path: Path, tags, expected) -> None:
    volume = np.random.default_rng(0).integers(0, 65536, (2, 5, 6), dtype=np.uint16)
    write_series(tmp_path, volume, change=lambda _, made: [setattr(made, *tag) for tag in tags.items()])
    np.testing.assert_allclose(images_of(tmp_path), np.asarray(expected(volume.astype(np.int64).astype(np.uint16).astype(np.int64)), float))


def test_bytes_of_a_single_odd_image_are_padded_and_read(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 5), dtype=np.uint8)
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    made = dataset("1.2", image, **bits, ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=AXIAL)
    made["PixelData"].VR = "OB"
    made.save_as(tmp_path / "odd.dcm")
    assert np.array_equal(images_of(tmp_path / "odd.dcm")[0], image)


def on(which: int, **tags):
    return lambda index, made: [setattr(made, *tag) for tag in tags.items()] if which in (index, -1) else None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (on(2, ImagePositionPatient=[0, 0, 7.5]), "spaced unevenly"),
        (on(4, ImagePositionPatient=[0, 0, 15]), "lacks slices: 1 gaps"),
        (on(2, ImagePositionPatient=[0, 0, 3]), "has 1 more than one at a place: echoes, phases or copies"),
        (on(2, ImagePositionPatient=[5, 0, 6]), "shifted against each other"),
        (on(1, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "several orientations"),
        (on(1, PixelSpacing=[0.5, 0.5]), "2 pixel sizes"),
        (on(1, SliceThickness=4), "2 thicknesses"),
        (on(-1, SOPInstanceUID="1.2.3"), "holds 4 images twice"),
        (on(-1, ImageType=["DERIVED", "SECONDARY"]), "derived"),
        (on(3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "is a localizer"),
        (on(-1, SeriesDescription="3-plane localizer"), "is a localizer"),
        (on(-1, ImageType=["ORIGINAL", "PRIMARY", "P"]), "no magnitudes"),
        (on(-1, Modality="CT"), "another modality"),
        (on(-1, BurnedInAnnotation="YES"), "burned into"),
        (on(2, PatientID="another"), "several patients"),
        (on(-1, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not at right angles"),
        (on(-1, PixelSpacing=[0, 0]), "pixels without a size"),
    ],
)
def test_a_series_that_makes_no_continuous_volume_is_left_out_with_the_reason(tmp_path: Path, change, said) -> None:
    write_series(tmp_path, random_images(5, 6, 7), change=change)
    (reason,) = reasons(tmp_path)
    assert said in reason
    assert not any(secret.lower() in reason.lower() for secret in SECRETS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (on(-1, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour"),
        (on(-1, Rows=4096, Columns=4096), "are declared and"),
        (on(-1, Rows=5), "are declared and"),
        (on(-1, Rows=2**15, Columns=2**15), "declares"),
        (on(-1, Rows=0), "an image of 0 x 7"),
        (on(-1, BitsStored=20), "20 bits of 16"),
        (on(-1, HighBit=14), "must be the lowest"),
        (on(-1, NumberOfFrames=2**31 - 1), "frames"),
        (on(-1, RescaleSlope="1e400"), "without RescaleSlope"),
        (lambda _, made: delattr(made, "PixelData"), "no image of whole numbers"),
        (lambda _, made: delattr(made, "ImagePositionPatient"), "without ImagePositionPatient"),
    ],
)
def test_files_that_are_no_grey_image_or_claim_what_they_have_not_are_counted_with_the_reason(tmp_path: Path, change, said) -> None:
    def changed(index, made):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(index, made)

    write_series(tmp_path, random_images(2, 6, 7), change=changed)
    (reason,) = reasons(tmp_path, limits=ReadLimits(slice_bytes=1 << 30))
    assert said in reason
    assert reason.startswith("2 of its files ")


@pytest.mark.parametrize(
    ("syntax", "said"),
    [(JPEGBaseline8Bit, "JPEG baseline"), (RLELossless, "RLE"), ("1.2.840.10008.1.2.1.99", "deflated"), ("1.2.9", "not known")],
)
def test_compressed_pixels_are_refused_by_the_name_of_how_they_are(tmp_path: Path, syntax, said) -> None:
    (path,) = write_series(tmp_path, random_images(1, 6, 7))
    content = path.read_bytes()
    uid = str(syntax).encode()
    old = b"1.2.840.10008.1.2.1\x00"
    assert content.count(old) == 1
    path.write_bytes(
        content.replace(b"UI\x14\x00" + old, b"UI" + (len(uid) + len(uid) % 2).to_bytes(2, "little") + uid + bytes(len(uid) % 2))
    )
    assert said in reasons(path)[0]


def test_a_truncated_file_is_no_image_and_one_that_shrinks_is_found_when_it_is_read(tmp_path: Path) -> None:
    paths = write_series(tmp_path, random_images(2, 6, 7))
    volume = opened(tmp_path).volumes[0]
    paths[0].write_bytes(paths[0].read_bytes()[:-10])
    with pytest.raises(Exception, match="changed while it was read"):
        volume.read_image(0, 0)
    assert any("are there" in unusable.reason for unusable in opened(tmp_path).unusable)


def test_what_a_library_says_of_a_damaged_header_is_not_passed_on(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, random_images(1, 6, 7), change=on(-1, RescaleSlope="1.234567"))
    path.write_bytes(path.read_bytes().replace(b"1.234567", b"Doe^Jane"))
    (reason,) = reasons(path)
    assert "must be readable as DICOM" in reason
    assert "Doe" not in reason


def test_a_file_of_noise_ends_in_a_reason_and_not_in_a_crash(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, random_images(1, 6, 7))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for at in rng.integers(140, len(content) - 84, 6):
            damaged[at] = int(rng.integers(256))
        path.write_bytes(damaged)
        found = opened(path)
        assert len(found.volumes) + len(found.unusable) >= 1
        assert not any(secret.lower() in unusable.reason.lower() for unusable in found.unusable for secret in SECRETS)


def test_a_folder_of_several_series_gives_each_and_says_what_else_it_holds(tmp_path: Path) -> None:
    first, second = random_images(3, 6, 7), random_images(4, 5, 5, seed=1)
    write_series(tmp_path, first, uid="1.2.1", prefix="a")
    write_series(tmp_path, second, uid="1.2.2", prefix="b")
    write_series(tmp_path, first, uid="1.2.3", prefix="c", change=on(-1, ImageType=["DERIVED"]))
    (tmp_path / "note.dcm").write_text("Doe Jane")
    (tmp_path / "other.txt").write_text("Doe Jane")
    found = opened(tmp_path)
    assert [volume.part for volume in found.volumes] == ["1.2.1", "1.2.2"]
    assert len({volume.header.patient for volume in found.volumes}) == 1
    assert len({volume.header.volume for volume in found.volumes}) == 2
    assert len(found.unusable) == 2


def test_real_images_are_read_or_left_out_with_the_reason(scanner_data: Path) -> None:
    folder = scanner_data / "dicom"
    image = images_of(folder / "trio3T_phantom_0060.0001.dcm")
    assert image.shape == (1, 256, 256)
    assert 0 <= image.min() < image.max() < 4096
    assert "derived" in reasons(folder / "pydicom_MR_small.dcm")[0]
    assert holds_images(folder / "pydicom_MR_small.dcm")
    assert sum("at a place" in reason for reason in reasons(folder)) == 1
