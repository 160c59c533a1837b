"""What a protocol's words say about anatomy, contrast, fat suppression and orientation.

Three sources in order: a dataset's own attributes (MosaicMRI), fastMRI's acquisition codes, and the words of
a scanner protocol name. Only words of the vocabularies below come out; free text never does.
"""

import re
from dataclasses import dataclass, replace

__all__ = ["Protocol", "orientation_of", "parse_protocol", "vendor_name"]

_ANATOMY_WORDS = {
    "brain": "brain head neuro cranial schaedel",
    "knee": "knee knie",
    "spine": "spine lspine cspine tspine lumbar cervical thoracic lws hws bws",
    "shoulder": "shoulder schulter",
    "hip": "hip",
    "pelvis": "pelvis pelvic",
    "prostate": "prostate",
    "ankle": "ankle",
    "foot": "foot",
    "wrist": "wrist",
    "hand": "hand",
    "elbow": "elbow",
    "breast": "breast",
    "abdomen": "abdomen liver kidney torso",
    "heart": "heart cardiac",
    "neck": "neck",
    "thigh": "thigh",
    "calf": "calf",
    "lower": "lower leg tibia",
    "upper": "upper arm",
    "chest": "chest thorax lung",
    "face": "face orbit orbits jaw tmj",
    "fetus": "fetus fetal placenta",
    "finger": "finger thumb",
    "phantom": "phantom",
}
_ANATOMIES = {word: name for name, words in _ANATOMY_WORDS.items() for word in words.split()}
_FASTMRI = re.compile(r"(AX|COR|SAG)(FLAIR|T2STAR|STIR|T1|T2|PD)(PRE|POST)?(FS)?(?:_.*)?")
_CONTRAST = re.compile(r"(T1|T2|PD|STIR|FLAIR|T2STAR|T2_FLAIR|T1_FLAIR|DWI|SWI|DIXON)(_POST)?(_FS)?")
_WORD_CONTRASTS = (
    ("STIR", {"stir", "tirm"}),
    ("FLAIR", {"flair"}),
    ("T2STAR", {"t2star", "t2*", "swi", "medic"}),
    ("PD", {"pd", "pdw", "proton"}),
    ("T2", {"t2", "t2w"}),
    ("T1", {"t1", "t1w", "mprage"}),
)
_FAT_WORDS = {"fs", "fatsat", "fatsup", "spair", "spir", "tirm", "stir", "we", "dixonw"}
_ORIENTATIONS = {
    "ax": "AX",
    "tra": "AX",
    "axial": "AX",
    "transversal": "AX",
    "sag": "SAG",
    "sagittal": "SAG",
    "cor": "COR",
    "coronal": "COR",
}
_VENDORS = {
    "siemens": "Siemens",
    "ge": "GE",
    "philips": "Philips",
    "canon": "Canon",
    "toshiba": "Canon",
    "united": "UIH",
    "uih": "UIH",
    "hitachi": "Hitachi",
    "bruker": "Bruker",
    "simulated": "simulated",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Anatomy, contrast, fat suppression and orientation, as ``VolumeHeader`` spells them; empty where unknown."""

    anatomy: str = ""
    contrast: str = ""
    fat_suppressed: bool | None = None
    orientation: str = ""


def parse_protocol(*, anatomy: str = "", contrast: str = "", acquisition: str = "", words: str = "") -> Protocol:
    """Read a protocol from the best source for each property.

    Args:
        anatomy: A dataset's attribute, already known to be a single harmless word.
        contrast: Likewise.
        acquisition: fastMRI's code, ``CORPDFS_FBK`` or ``AXT1POST``.
        words: Protocol name and study description, free text.
    """
    sources = (_from_attributes(anatomy, contrast), _from_acquisition(acquisition), _from_words(f"{words} {acquisition}"))
    merged = Protocol()
    for source in sources:
        # Contrast and fat suppression are one statement: T2 of one source must not meet the FS of another.
        if not merged.contrast and source.contrast:
            merged = replace(merged, contrast=source.contrast, fat_suppressed=source.fat_suppressed)
        merged = replace(merged, anatomy=merged.anatomy or source.anatomy, orientation=merged.orientation or source.orientation)
    return merged


def vendor_name(text: str) -> str:
    """Return a vendor's one spelling, or "" for one that is not known."""
    words = re.split(r"\W+", text.casefold())
    return next((name for word, name in _VENDORS.items() if word in words), "")


def _from_attributes(anatomy: str, contrast: str) -> Protocol:
    words = [word for word in re.split(r"[^a-z0-9]+", anatomy.casefold()) if word]
    name = next((_ANATOMIES[word] for word in words if word in _ANATOMIES), "")
    match = _CONTRAST.fullmatch(contrast.upper().replace("-", "_").replace(" ", "_"))
    fat_suppressed = None if match is None else (match[3] is not None or match[1] == "STIR")
    return Protocol(anatomy=name, contrast="" if match is None else match[0], fat_suppressed=fat_suppressed)


def _from_acquisition(code: str) -> Protocol:
    match = _FASTMRI.fullmatch(code.upper())
    if match is None:
        return Protocol()
    orientation, contrast, injection, fat = match[1], match[2], match[3], match[4]
    # The public knee data are coronal PD with the suffix of the site's reconstruction, the brain data axial.
    is_knee = orientation == "COR" and contrast == "PD"
    fat_suppressed = fat is not None or contrast == "STIR" if (is_knee or fat or contrast == "STIR") else None
    name = contrast + ("_POST" if injection == "POST" else "") + ("_FS" if fat else "")
    return Protocol(
        anatomy="knee" if is_knee else "brain" if orientation == "AX" else "",
        contrast=name,
        fat_suppressed=fat_suppressed,
        orientation=orientation,
    )


def _from_words(text: str) -> Protocol:
    words = [word for word in re.split(r"[^a-z0-9*]+", text.casefold()) if word]
    contrast = next((name for name, spellings in _WORD_CONTRASTS if spellings.intersection(words)), "")
    is_fat_suppressed = bool(_FAT_WORDS.intersection(words))
    return Protocol(
        anatomy=next((_ANATOMIES[word] for word in words if word in _ANATOMIES), ""),
        contrast=contrast + ("_FS" if is_fat_suppressed and contrast not in ("", "STIR") else ""),
        fat_suppressed=True if is_fat_suppressed else None,
        orientation=next((_ORIENTATIONS[word] for word in words if word in _ORIENTATIONS), ""),
    )


def orientation_of(normal: tuple[float, ...]) -> str:
    """Return the orientation of a slice by its normal (sagittal, coronal, transversal component), "" for a null vector."""
    largest = max(range(3), key=lambda axis: abs(normal[axis]))
    return ("SAG", "COR", "AX")[largest] if abs(normal[largest]) > 0 else ""
