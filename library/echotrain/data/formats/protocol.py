"""What a protocol's words say about anatomy, contrast, fat suppression, orientation and kind.

Three sources in order: a dataset's own attributes (MosaicMRI), fastMRI's acquisition codes, and the words of
a scanner protocol name. Only words of the vocabularies below come out; free text never does.
"""

import re
from dataclasses import dataclass, replace

from echotrain.data.formats.protocol_kinds import protocol_kinds
from echotrain.data.formats.vocabulary import Vocabulary, plain

__all__ = ["Protocol", "orientation_of", "parse_protocol", "vendor_name"]

# MosaicMRI counts shin bone and calf bone as the lower leg, thumbs and wrists as one, and pubalgia as the pelvis (AIF4S/mosaicmri).
_ANATOMIES = Vocabulary(
    {
        "brain": "brain, neuro, cranial, schaedel, gehirn, pituitary, sella, iac, internal auditory",
        "knee": "knee, knees, knie, patella, patellofemoral, meniscus, acl",
        "spine": "spine, wirbelsaeule, lspine, cspine, tspine, lumbar, cervical, thoracic, lumbosacral, lws, hws, bws, t-sp, c-sp, l-sp, "
        "lower back, low back, upper back, mid back, middle back",
        "shoulder": "shoulder, shoulders, schulter, rotator cuff, humeral head",
        "hip": "hip, hips, huefte, hueftgelenk, femoral head, femoral neck, acetabulum",
        "pelvis": "pelvis, pelvic, becken, pubalgia, athletic pubalgia, sports hernia, groin, sacrum, sacroiliac, si joint, si joints, isg",
        "prostate": "prostate, prostata",
        "ankle": "ankle, ankles, sprunggelenk, osg, achilles, hindfoot",
        "foot": "foot, feet, fuss, vorfuss, forefoot, midfoot, toe, toes",
        "wrist": "wrist, wrists, handgelenk, wrist hand, hand wrist, wrist and hand, hand and wrist, scaphoid, scapho lunate",
        "hand": "hand, hands",
        "elbow": "elbow, elbows, ellenbogen, radial head",
        "breast": "breast, mamma",
        "abdomen": "abdomen, liver, kidney, leber, niere",
        "heart": "heart, cardiac, herz",
        "neck": "neck, hals",
        "thigh": "thigh, thighs, oberschenkel, hamstring, hamstrings, quadriceps",
        "calf": "calf, calves, wade",
        "lower": "lower leg, tibia, fibula, tib fib, unterschenkel",
        "upper": "upper arm, humerus, forearm, oberarm, unterarm",
        "chest": "chest, thorax, lung, rib, ribs, sternum, thoracic outlet, thoracic wall",
        "face": "face, orbit, orbits, orbita, jaw, tmj",
        "fetus": "fetus, fetal, placenta",
        "finger": "finger, fingers, thumb, daumen",
        "scapula": "scapula, schulterblatt",
        "femur": "femur",
        "phantom": "phantom",
    }
)
# Words that say less: they count where no other does, so that a "lower extremity, knee" is a knee.
_REGIONS = Vocabulary(
    {
        "lower": "lower, leg, legs, lower extremity, lower ext, lower limb",
        "upper": "upper, arm, upper extremity, upper ext, upper limb",
        "brain": "head, kopf",
        "abdomen": "torso",
    }
)
# A class of three bones far apart says nothing of the one that is seen; the words of its protocol may. Two neighbours are their region.
_LABELS = {"scapula ribs femur": "", "ankle foot": "lower", "elbow hand": "upper"}
_FASTMRI = re.compile(r"(AX|COR|SAG)(FLAIR|T2STAR|STIR|T1|T2|PD)(PRE|POST)?(FS)?(?:_.*)?")
_CONTRAST = re.compile(r"(T1|T2|PD|STIR|FLAIR|T2STAR|T2_FLAIR|T1_FLAIR|DWI|SWI|DIXON|DESS)(_?POST)?(_?FS)?")
# Families of their own, of which fat suppression makes no other.
_UNDIVIDED = ("", "STIR", "DIXON", "DESS")
_ALWAYS_FAT_SUPPRESSED = ("STIR", "DIXON")

_FAT_WORDS = ("fs", "fat sat", "fat sup~", "fatsaturat~", "fat saturat~", "spair", "spir", "mdixon", "dixon")
_WEIGHTS = {"PD": ("pd", "pdw"), "T2": ("t2", "t2w"), "T1": ("t1", "t1w")}
_SUPPRESSED = {name: ", ".join(f"{spelling} {fat}" for spelling in spellings for fat in _FAT_WORDS) for name, spellings in _WEIGHTS.items()}
# In the order in which they count. A dark-fluid TIRM is a FLAIR; a T2 of a gradient echo is a T2STAR.
_CONTRASTS = {
    "FLAIR": "flair, dark fluid",
    "STIR": "stir, tirm",
    "DESS": "dess, qdess, de3d",
    "T2STAR": "t2star, t2 star, t2*, swi, medic, me2d, me3d, mffe, t2 fl2d, t2 fl3d, t2 gre",
    "PD": f"pd, pdw, proton, {_SUPPRESSED['PD']}",
    "T2": f"t2, t2w, {_SUPPRESSED['T2']}",
    "T1": f"t1, t1w, t1 post, t1w post, mprage, mp2rage, {_SUPPRESSED['T1']}",
    "DWI": "dwi, ep2d diff",
    "DIXON": "dixon, mdixon, dixonw",
}
_CONTRAST_WORDS = Vocabulary(_CONTRASTS)
_FAT_SUPPRESSION = Vocabulary(
    {"fat": ", ".join((*_FAT_WORDS, *_SUPPRESSED.values(), "q fat sat, tirm, stir, fett sat, fettgesaettigt, water exc~, proset, dixonw"))}
)
_NO_FAT_SUPPRESSION = Vocabulary(
    {"none": ", ".join(f"{no} {fat}" for no in ("no", "non", "not", "without", "w/o", "wo", "ohne") for fat in _FAT_WORDS)}
)
# Water excitation, not the pronoun: joined to what stands before it, or between words of a sequence.
_WATER_EXCITATION = re.compile(
    r"(?<=[a-z0-9][_-])we(?![a-z0-9])|(?<![a-z0-9])(?:t1|t2|pd|[23]d|de3d|dess|fl[23]d|tse|vibe|medic|gre|flash)\s+we(?![a-z0-9])"
    r"|(?<![a-z0-9])we_(?=[a-z0-9])"
)
# After an injection, not after an operation: of a T1, and before nothing, or before words that say no other thing that was before.
_AFTER_INJECTION = re.compile(
    r"(?<![a-z0-9])t1w?[\W_]{0,3}(?:(?:fs|fat[\W_]{0,3}sat)[\W_]{1,3})?(?:post|\+[ _]?c)(?![a-z0-9])"
    r"(?=[\W_]{0,8}(?:$|(?:contrast|gad|gado|gadolinium|gd|km|mr|mri|mrt|fs|fat|ax|axial|tra|sag|sagittal|cor|coronal|[23]d)(?![a-z0-9])))"
)
_ORIENTATIONS = Vocabulary(
    {
        "AX": "ax, axial, tra, trans, transversal, transverse",
        "SAG": "sag, sagittal, sagital",
        "COR": "cor, coronal, koronar, coronar, kor",
    }
)
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
    """Anatomy, contrast, fat suppression, orientation and kinds, as ``VolumeHeader`` spells them; empty where unknown."""

    anatomy: str = ""
    contrast: str = ""
    fat_suppressed: bool | None = None
    orientation: str = ""
    kinds: tuple[str, ...] = ()


def parse_protocol(*, anatomy: str = "", contrast: str = "", acquisition: str = "", words: str = "", name: str = "") -> Protocol:
    """Read a protocol from the best source for each property.

    Args:
        anatomy: A dataset's attribute, in any spelling.
        contrast: Likewise.
        acquisition: fastMRI's code, ``CORPDFS_FBK`` or ``AXT1POST``.
        words: Protocol name and study description, free text.
        name: The protocol's name alone: what a scan is for is not asked of a study.
    """
    sources = (_from_attributes(anatomy, contrast), _from_acquisition(acquisition), _from_words(f"{words} {acquisition}"))
    merged = Protocol()
    for source in sources:
        # Contrast and fat suppression are one statement: T2 of one source must not meet the FS of another.
        if not merged.contrast and source.contrast:
            merged = replace(merged, contrast=source.contrast, fat_suppressed=source.fat_suppressed)
        merged = replace(merged, anatomy=merged.anatomy or source.anatomy, orientation=merged.orientation or source.orientation)
    if not merged.contrast:
        # There is none to meet: the first that speaks of fat is right.
        said = (source.fat_suppressed for source in sources)
        merged = replace(merged, fat_suppressed=next((is_suppressed for is_suppressed in said if is_suppressed is not None), None))
    return replace(merged, kinds=protocol_kinds(name, words))


def vendor_name(text: str) -> str:
    """Return a vendor's one spelling, or "" for one that is not known."""
    words = re.split(r"\W+", text.casefold())
    return next((name for word, name in _VENDORS.items() if word in words), "")


def _from_attributes(anatomy: str, contrast: str) -> Protocol:
    label = " ".join(re.findall(r"[a-z0-9]+", plain(anatomy)))
    name = _LABELS[label] if label in _LABELS else _anatomy_of(plain(anatomy))
    match = _CONTRAST.fullmatch(re.sub(r"[-\s]", "_", contrast.strip().upper()).replace("T2*", "T2STAR"))
    if match is None:
        return replace(_contrast_of(plain(contrast)), anatomy=name)
    has_suffix = match[3] is not None and match[1] not in _UNDIVIDED
    return Protocol(
        anatomy=name,
        contrast=match[1] + ("_POST" if match[2] else "") + ("_FS" if has_suffix else ""),
        fat_suppressed=match[3] is not None or match[1] in _ALWAYS_FAT_SUPPRESSED,
    )


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
    words = plain(text)
    return replace(_contrast_of(words), anatomy=_anatomy_of(words), orientation=_ORIENTATIONS.first(words))


def _anatomy_of(text: str) -> str:
    return _ANATOMIES.first(text) or _REGIONS.first(text)


def _contrast_of(text: str) -> Protocol:
    """Return the contrast and the fat suppression of a ``plain`` text."""
    said = set(_CONTRAST_WORDS.said(text))
    contrast = next((name for name in _CONTRASTS if name in said), "")
    if contrast == "FLAIR" and "T1" in said and "T2" not in said:
        contrast = "T1_FLAIR"
    is_negated = bool(_NO_FAT_SUPPRESSION.said(text))
    fat = _NO_FAT_SUPPRESSION.without(text)
    if contrast.endswith("FLAIR"):
        # The inversion nulls water there, not fat.
        fat = re.sub(r"tirm|stir", " ", fat)
    if "in-out-phase" in protocol_kinds(text):
        fat = fat.replace("dixon", " ")
    is_suppressed = bool(_FAT_SUPPRESSION.said(fat) or _WATER_EXCITATION.search(fat))
    if contrast == "T1" and _AFTER_INJECTION.search(text):
        contrast = "T1_POST"
    return Protocol(
        contrast=contrast + ("_FS" if is_suppressed and contrast not in _UNDIVIDED else ""),
        fat_suppressed=True if is_suppressed else False if is_negated else None,
    )


def orientation_of(normal: tuple[float, ...]) -> str:
    """Return the orientation of a slice by its normal (sagittal, coronal, transversal component), "" for a null vector."""
    largest = max(range(3), key=lambda axis: abs(normal[axis]))
    return ("SAG", "COR", "AX")[largest] if abs(normal[largest]) > 0 else ""
