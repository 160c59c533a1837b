"""Names that public data sets and the project's own simulation give to files, folders, protocols and themselves.

They are given by whoever published a data set, so they say nothing about a person, and masks seeded by file name, challenge
exports and official splits need them. Every pattern is matched in whole.

Sources: fastMRI's knee, brain, prostate and breast releases; AIF4S/mosaicmri (its notebooks name ``meas_MID00415_FID121697_COR_T1.h5``);
CMRxRecon 2023 to 2025 (``P001/cine_sax.mat``, and ``P001_cine_sax.h5`` as PromptMR's conversion writes it).
"""

import re
from collections.abc import Sequence

__all__ = [
    "acquisition_code",
    "collection_name",
    "is_plain_folder",
    "is_public_folder",
    "is_public_stem",
    "is_repeated_stem",
    "modality_of_stem",
    "own_numbers",
    "subject_of",
    "subject_of_stem",
    "with_subject",
]

_FASTMRI_CODE = r"(?:AX|COR|SAG)(?:FLAIR|T2STAR|STIR|T1|T2|PD|DIFF)(?:PRE|POST)?(?:FS)?"
_CMRXRECON_KIND = (
    r"(?:cine_(?:sax|lax(?:_[234]ch)?|lvot|rvot|ot)|aorta_(?:sag|tra)|tagging|T1map|T1mappost|T2map|T2smap|T1rho|T1w|T2w|blackblood"
    r"|flow2d|perfusion|lge_(?:sax|lax(?:_[234]ch)?))"
)
_CMRXRECON_NAME = rf"{_CMRXRECON_KIND}(?:_(?:kus|mask)_(?:Uniform|ktUniform|ktGaussian|ktRadial)\d{{1,2}}|_mask)?"
_STEMS = re.compile(
    "|".join(
        (
            r"file10\d{5}",
            rf"file_brain_{_FASTMRI_CODE}_\d{{3}}(?:_[26]\d{{6}})?",
            rf"file_prostate_{_FASTMRI_CODE}_\d{{3,4}}",
            r"fastMRI_breast_\d{3}_[12]",
            rf"P\d{{3}}|(?:P\d{{3}}_)?{_CMRXRECON_NAME}",
            r"simulated_(?:brain|knee|spine)_\d{3,4}_\d{1,3}_(?:t1|t2|pd|pd_fs|flair|stir)",
        )
    ),
    re.ASCII,
)
# MosaicMRI keeps the scanner's name of a measurement, whose end is what somebody typed at the console: it has to be words of a protocol.
_MOSAIC = re.compile(r"meas_MID\d{4,6}_FID\d{4,7}_([A-Za-z0-9]+(?:[_+-][A-Za-z0-9]+)*)", re.ASCII)
_PROTOCOL_TEXT = """
ax axial tra transversal cor coronal sag sagittal obl oblique t1 t2 t1w t2w pd pdw stir tirm flair t2star medic dixon
dess vibe trufi haste space mprage tse se gre fl2d fl3d 2d 3d fs fatsat fat sat spair spir we wo w post pre gd contrast
iso hr lr left right lt rt li re l r bilat bilateral both long short knee hip pelvis ankle foot feet hand wrist thumb
finger fingers elbow shoulder humerus forearm femur thigh tibia fibula tibfib tib fib calf leg arm upper lower extremity
spine cspine tspine lspine c t s lumbar cervical thoracic sacrum si joint joints scapula clavicle sternum brachial
plexus athletic pubalgia hamstring quad quads achilles forefoot midfoot hindfoot toe toes mars semac warp fast quick
blade radial loc scout localizer ideal opp in out phase inphase outphase water
"""
_PROTOCOL_WORDS = frozenset(_PROTOCOL_TEXT.split())
_SMALL_NUMBER = re.compile(r"p?\d{1,2}", re.ASCII)
# Three small numbers in a row are a date, in whatever order.
_MAX_NUMBERS = 2
_CMRXRECON_STEM = re.compile(rf"(?:(P\d{{3}})_)?{_CMRXRECON_NAME}", re.ASCII)
_CMRXRECON_MODALITY = re.compile(rf"(?:P\d{{3}}_)?({_CMRXRECON_KIND})(?:_.*)?", re.ASCII)
_CMRXRECON_SUBJECT = re.compile(r"P\d{3}", re.ASCII)
# CMRxRecon counts its subjects anew in every set and centre.
_COUNTED_IN = re.compile(r"(?:Training|Validation|Test)Set|Center\d{3}", re.ASCII)
# BIDS's and what studies call a subject's folder. A label needs a number: ``patients`` and ``case_reports`` are no subject.
_SUBJECT_WORD = r"(?:sub|subj|subject|pat|patient|case|participant|volunteer|proband)"
_SUBJECT_FOLDER = re.compile(rf"P\d{{3}}|(?i:sub-[a-z0-9]+|{_SUBJECT_WORD}[-_ ]?[a-z]{{0,4}}\d+)", re.ASCII)
_SUBJECT_IN_STEM = re.compile(rf"((?i:sub-[a-z0-9]+|{_SUBJECT_WORD}[-_ ]?\d+))(?:[_.].*)?", re.ASCII)
# Numbers that the authors or the scanner gave, by which headers of a public data set may call their patients.
_OWN_NUMBERS = re.compile(
    rf"P(\d{{3}})(?:_.*)?|file_brain_{_FASTMRI_CODE}_(\d{{3}})(?:_([26]\d{{6}}))?|file_prostate_{_FASTMRI_CODE}_(\d{{3,4}})"
    r"|fastMRI_breast_(\d{3})_[12]|meas_MID(\d{4,6})_FID\d{4,7}_.*",
    re.ASCII,
)
_STORAGE_TEXT = """raw data dataset datasets scans scan mri mr kspace h5 hdf5 ismrmrd twix public study studies multicoil singlecoil train
val test fastmri mosaicmri cmrxrecon brain prostate breast cardiac heart abdomen liver source sources input inputs files archive store"""
_STORAGE_WORDS = frozenset(_STORAGE_TEXT.split()) | _PROTOCOL_WORDS
_STORAGE_NUMBER = re.compile(r"v?\d{1,2}|20\d\d", re.ASCII)
_FOLDERS = re.compile(
    "|".join(
        (
            r"(?:(?:knee|brain|prostate|breast)_)?(?:multicoil|singlecoil)_(?:train|val|test|challenge)(?:_v2|_full|_batch_\d{1,2})?",
            r"fastMRI_(?:prostate_(?:T2|DIFF)|breast)_IDS_\d{3}_\d{3}",
            r"train|val|test|training|validation|knee|brain|prostate|breast|ankle|T1_FS|scans",
            r"anatomy_(?:transfer|generalization)_challenge|contrast_generalization_challenge",
            r"(?:ChallengeData|MultiCoil|SingleCoil|Cine|Mapping|Aorta|Tagging|BlackBlood|Flow2d|LGE|Perfusion|T1rho|T1w|T2w)",
            r"(?:Training|Validation|Test)Set|FullSample|(?:UnderSample|Mask)_Task\w{1,4}|AccFactor\d{2}|Center\d{3}|P\d{3}",
            r"(?:Siemens|UIH|GE|Philips)_\d{2,3}T_[A-Za-z0-9]{1,20}",
        )
    ),
    re.ASCII,
)
_ACQUISITIONS = re.compile(
    rf"{_FASTMRI_CODE}(?:_FBK(?:REPEAT)?)?|SIM_(?:AX|COR|SAG)(?:T1|T2|PD|FLAIR|STIR)(?:_FS)?|(?i:{_CMRXRECON_NAME})", re.ASCII
)
_COLLECTIONS = re.compile(
    r"(?:fastmri|mosaicmri|mosaic|cmrxrecon|simulated|skm-tea|calgary-campinas|stanford|ocmr|m4raw)"
    r"(?:[-_ ]?(?:knee|brain|prostate|breast|cine|20\d\d|(?:multi|single)coil))*",
    re.IGNORECASE | re.ASCII,
)


def is_public_stem(stem: str) -> bool:
    """Say whether a file's name, without its ending, is one that a public data set or the project's simulation gives."""
    if _STEMS.fullmatch(stem):
        return True
    found = _MOSAIC.fullmatch(stem)
    if found is None:
        return False
    words = re.split(r"[_+-]", found[1].casefold())
    in_a_row = "".join("1" if word.isdigit() else " " for word in words).split()
    return all(_is_protocol_word(word) for word in words) and all(len(numbers) <= _MAX_NUMBERS for numbers in in_a_row)


def is_public_folder(name: str) -> bool:
    """Say whether a folder is called as the folders of public data sets are."""
    return _FOLDERS.fullmatch(name) is not None


def is_plain_folder(name: str) -> bool:
    """Say whether a folder that a user chose is called by what it holds, ``raw`` or ``knee-scans_2024``, in words that name nobody."""
    words = re.split(r"[-_. ]", name.casefold())
    numbers = [word for word in words if _STORAGE_NUMBER.fullmatch(word)]
    is_plain = all(re.sub(r"(?<=[a-z])\d{1,2}$", "", word) in _STORAGE_WORDS or _STORAGE_NUMBER.fullmatch(word) for word in words)
    return is_public_folder(name) or (is_plain and len(numbers) <= 1)


def is_repeated_stem(stem: str) -> bool:
    """Say whether a public data set calls files of several subjects or folders so, as CMRxRecon does."""
    return _CMRXRECON_STEM.fullmatch(stem) is not None


def modality_of_stem(stem: str) -> str:
    """Return what a file of CMRxRecon is of by its name (``cine_sax`` of ``P001_cine_sax_kus_Uniform8``), or "" for any other name."""
    found = _CMRXRECON_MODALITY.fullmatch(stem) if is_repeated_stem(stem) else None
    return found[1] if found else ""


def subject_of_stem(text: str) -> str:
    """Return the subject in a stem of CMRxRecon (``P001`` of ``P001_cine_sax``), or "" for any other text."""
    found = _CMRXRECON_STEM.fullmatch(text)
    return (found[1] or "") if found else ""


def subject_of(folders: Sequence[str], stem: str) -> tuple[str, ...]:
    """Return whose scan a file is by its own name or its folders: a label such as ``P001`` or ``sub-01``, and what it counts in.

    In doubt two scans are one subject's: ``T1/sub-01`` and ``T2/sub-01`` are, and so are two sites' that count alike. CMRxRecon's
    sets and centres count apart, which its authors say. Of nested labels the outermost counts: a case of a subject is that subject's.

    Args:
        folders: From the root on.
        stem: The file's name without its ending.

    Returns:
        Sets and centres, then the label, folded; empty where nothing names a subject.
    """
    in_stem = _SUBJECT_IN_STEM.fullmatch(stem)
    own = subject_of_stem(stem) or (stem if _CMRXRECON_SUBJECT.fullmatch(stem) else "") or (in_stem[1] if in_stem else "")
    label = next((folder for folder in folders if _SUBJECT_FOLDER.fullmatch(folder)), own)
    if not label:
        return ()
    counted_in = [folder for folder in folders if _COUNTED_IN.fullmatch(folder)] if _CMRXRECON_SUBJECT.fullmatch(label) else []
    return (*(folder.casefold() for folder in counted_in), label.casefold())


def with_subject(folders: Sequence[str], stem: str) -> str:
    """Return a CMRxRecon stem with the subject of its folder, ``P001_cine_sax`` of ``P001/cine_sax``; any other as it is."""
    found = _CMRXRECON_STEM.fullmatch(stem)
    subject = next((folder for folder in reversed(folders) if _CMRXRECON_SUBJECT.fullmatch(folder)), "")
    return f"{subject}_{stem}" if found and not found[1] and subject else stem


def own_numbers(name: str) -> frozenset[str]:
    """Return the numbers, and the name itself, by which a public data set's authors call a scan and may call its patient.

    They are without leading zeros. fastMRI's knees are left out: their numbers are as long as a hospital's.
    """
    found = _OWN_NUMBERS.fullmatch(name)
    numbers = {number.lstrip("0") for number in found.groups() if number} if found else set()
    return frozenset(
        numbers | {f"p{number.zfill(3)}" for number in numbers if name.startswith("P")} | ({name.casefold()} if found else set())
    )


def acquisition_code(text: str) -> str:
    """Return fastMRI's acquisition codes, CMRxRecon's names and the simulation's own as they are; "" for any other text."""
    return text if _ACQUISITIONS.fullmatch(text) else ""


def collection_name(text: str) -> str:
    """Return the name of a known collection as it is; "" for any other text."""
    return text if len(text) <= 64 and _COLLECTIONS.fullmatch(text) else ""


def _is_protocol_word(word: str) -> bool:
    return word in _PROTOCOL_WORDS or _SMALL_NUMBER.fullmatch(word) is not None
