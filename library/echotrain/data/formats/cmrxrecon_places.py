"""What the folders of CMRxRecon say of a file in them, and which of its files are known to be bad.

2025: ``MultiCoil/{Modality}/{Set}/FullSample/{Center}/{Vendor}/P001/cine_sax.mat``; 2023 and 2024 likewise, without centre and vendor, for
all are of one scanner; 2023 has ``SingleCoil`` beside it. Only words of the data set come out, never a folder's own.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from echotrain.data.formats.public_names import modality_of_stem, subject_of_stem

__all__ = ["BadParts", "Place", "bad_parts", "place_of"]

_YEAR = re.compile(r"(?i:cmrx(?:recon)?|miccaichallenge)[-_ ]?(?:20)?(2[3-5])(?!\d)", re.ASCII)
_CENTER, _SET, _SUBJECT = (
    re.compile(r"Center\d{3}", re.ASCII),
    re.compile(r"(?:Training|Validation|Test)Set"),
    re.compile(r"P\d{3}", re.ASCII),
)
_VENDOR = re.compile(r"(Siemens|UIH|GE|Philips)_(\d)(\d{1,2})T_\w+", re.ASCII)
_MODALITIES = ("Cine", "Mapping", "Aorta", "Tagging", "BlackBlood", "Flow2d", "LGE", "Perfusion", "T1rho", "T1w", "T2w")
# Of the years before 2025 only one has these.
_ONLY_2024 = ("Aorta", "Tagging")
# Both years were measured on one MAGNETOM Vida.
_ONE_SCANNER = {2023: ("Siemens", 3.0), 2024: ("Siemens", 3.0)}


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a file's place says.

    Attributes:
        year: Of the challenge, 0 where nothing says.
        modality: ``cine_sax``, as the file is called; where it is called otherwise its folder's word, such as ``Cine``; else "".
        group: ``TrainingSet``, ``ValidationSet``, ``TestSet`` or "".
        subject: ``P001``, or "".
        center: ``Center001``, or "".
        vendor: As ``VolumeHeader`` has it, or "".
        field_strength: Tesla, 0 where nothing says.
    """

    year: int = 0
    modality: str = ""
    group: str = ""
    subject: str = ""
    center: str = ""
    vendor: str = ""
    field_strength: float = 0.0


@dataclass(frozen=True, kw_only=True)
class BadParts:
    """What of a file is known to be bad.

    Attributes:
        is_whole: All of it.
        last_frames: How many at the end.
        slices: Which, in the file's order; -1 is the last.
    """

    is_whole: bool = False
    last_frames: int = 0
    slices: tuple[int, ...] = ()


# Source: PromptMR+'s preparation, which names synapse.org syn61491109: they hold only background, or are of very bad quality.
_BAD_2024 = {
    **dict.fromkeys(("P077_aorta_sag", "P105_tagging", "P065_aorta_sag", "P117_aorta_tra"), BadParts(is_whole=True)),
    "P087_tagging": BadParts(last_frames=3, slices=(-1,)),
    "P105_aorta_tra": BadParts(last_frames=12),
    "P109_cine_sax": BadParts(last_frames=3),
    "P100_cine_sax": BadParts(last_frames=4, slices=(1,)),
}


def place_of(location: str, dataset: str = "") -> Place:
    """Read a location, a path or a URI.

    Args:
        location: Of the file.
        dataset: What the user calls the collection, which may say the year.
    """
    path = PurePosixPath(location)
    folders = path.parts[:-1]
    center, vendor = _last(_CENTER, folders), _last(_VENDOR, folders)
    modality = next((folder for folder in folders if folder in _MODALITIES), "")
    year = _year(folders, dataset, has_centers=bool(center and vendor), modality=modality)
    maker, field_strength = _ONE_SCANNER.get(year, ("", 0.0))
    if vendor:
        found = _VENDOR.fullmatch(vendor)
        maker, field_strength = (found[1], float(f"{found[2]}.{found[3]}")) if found else (maker, field_strength)
    return Place(
        year=year,
        modality=modality_of_stem(path.stem) or modality,
        group=_last(_SET, folders),
        subject=subject_of_stem(path.stem) or _last(_SUBJECT, folders),
        center=center,
        vendor=maker,
        field_strength=field_strength,
    )


def bad_parts(place: Place) -> BadParts | None:
    """Return what is known to be bad of a file, None where nothing is, or where its place does not say that it is of that data set."""
    if place.year != 2024 or place.group != "TrainingSet":
        return None
    return _BAD_2024.get(f"{place.subject}_{place.modality}")


def _year(folders: tuple[str, ...], dataset: str, *, has_centers: bool, modality: str) -> int:
    """Return the year; folders of centres and vendors are 2025's alone, whatever a folder above them is called."""
    if has_centers:
        return 2025
    named = set(_years((*folders, dataset)))
    if len(named) == 1:
        return named.pop()
    return 2024 if modality in _ONLY_2024 else 0


def _years(names: tuple[str, ...]) -> Iterator[int]:
    for name in names:
        yield from (2000 + int(found) for found in _YEAR.findall(name))


def _last(pattern: re.Pattern[str], folders: Sequence[str]) -> str:
    return next((folder for folder in reversed(folders) if pattern.fullmatch(folder)), "")
