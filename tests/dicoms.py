"""Small DICOM series and NIfTI volumes, written for tests, with a patient who must not survive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

MR_IMAGE, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
AXIAL = [1, 0, 0, 0, 1, 0]
SECRETS = ("Doe", "Jane", "MRN-77123", "19610507", "20240131", "Klinikum Testberg", "ACC-5566")


def dataset(uid: str, images: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> FileDataset:
    """Return an MR image, or several as frames, (y, x) or (frame, y, x) of uint16, of a patient with a name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MR_IMAGE, generate_uid(entropy_srcs=[uid, str(tags)])
    meta.TransferSyntaxUID = syntax
    written = {"is_implicit_VR": syntax == ImplicitVRLittleEndian, "is_little_endian": syntax != ExplicitVRBigEndian}
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128), **written)
    made.SOPClassUID, made.SOPInstanceUID = MR_IMAGE, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID, made.StudyInstanceUID = uid, generate_uid(entropy_srcs=["study", uid])
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Doe^Jane", "MRN-77123", "19610507", "F"
    made.StudyDate, made.InstitutionName, made.AccessionNumber = "20240131", "Klinikum Testberg", "ACC-5566"
    made.Modality, made.ImageType, made.Manufacturer, made.MagneticFieldStrength = "MR", ["ORIGINAL", "PRIMARY", "M"], "SIEMENS", "3"
    made.SeriesDescription, made.BodyPartExamined, made.PatientComments = "t2_tse_tra Doe", "KNEE", "Jane is afraid"
    made.Rows, made.Columns = images.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.PixelSpacing, made.SliceThickness = [0.5, 0.75], 3
    made.PixelData = images.tobytes() + bytes(images.nbytes % 2)
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    uid: str = "1.2.3.4.5.6",
    step: float = 3.0,
    change: Callable[[int, FileDataset], Any] = lambda index, made: None,
    axes: list[float] = AXIAL,
    prefix: str = "Doe_Jane_",
) -> list[Path]:
    """Write a volume (slice, y, x), a file per slice, in an order of names that says nothing; ``change`` may alter each file."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(axes[:3], axes[3:])
    paths = []
    for index, image in enumerate(volume):
        position = [float(value) for value in normal * step * index]
        made = dataset(uid, image, ImagePositionPatient=position, ImageOrientationPatient=axes, InstanceNumber=index)
        change(index, made)
        paths.append(folder / f"{prefix}{(7 * index) % 101:03d}.dcm")
        made.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced(path: Path, volume: np.ndarray, *, step: float = 2.0, order: list[int] | None = None) -> None:
    """Write a volume (slice, y, x) as frames of one file, in this order."""
    order = order or list(range(len(volume)))
    made = dataset("1.9.8.7", volume[order], NumberOfFrames=len(volume), SOPClassUID=ENHANCED_MR)
    del made.PixelSpacing, made.SliceThickness
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], step
    plane.ImageOrientationPatient = AXIAL
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for index in order:
        position, scale, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, step * index]
        scale.RescaleSlope, scale.RescaleIntercept = 1 + index, 10
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = Sequence([position]), Sequence([scale])
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None, **header: Any) -> None:
    """Write an array (x, y, z[, frame]) as it is, with the header's fields that are given; without an affine it says no places."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header["descrip"] = b"Doe Jane 19610507"
    nibabel.save(image, path)
    if header:
        import gzip

        opener = gzip.open if path.name.endswith(".gz") else open
        with opener(path, "rb") as file:
            content = bytearray(file.read())
        stored = nibabel.Nifti1Header(bytes(content[:348]), check=False)
        for name, value in header.items():
            stored[name] = value
        content[:348] = stored.binaryblock
        with opener(path, "wb") as file:
            file.write(content)


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    """Return uint16 values, up to 12 bits."""
    return np.random.default_rng(seed).integers(0, 4096, shape, dtype=np.uint16)
