"""Splits that a data set's authors made: its folders, a list of its files, or a list of its patients.

fastMRI, MosaicMRI and CMRxRecon are comparable to their papers only by these, so a given split is kept as it is, also where it leaks
(``data.catalog.leaks``). Scans are matched by their own names and places, before pseudonyms replace them.
"""

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from echotrain.data.formats.deidentify import Deidentifier, Identity
from echotrain.data.splits.lists import Entry, SplitList, read_split_list, split_named
from echotrain.errors import ConfigError

__all__ = ["GivenSplit", "GivenSplitConfig", "find_given_split", "split_of_folders", "splits_of_files", "splits_of_patients"]

# MosaicMRI's further tracks and fastMRI's challenge sets: held out by their organisers, and no part of the split that papers report.
_CHALLENGE = re.compile(r"(?:[a-z]+_)?(?:generali[sz]ation|transfer)_challenge|(?:multi|single)coil_challenge(?:_.*)?")
# fastMRI's archives: multicoil_train, knee_multicoil_train_batch_0, multicoil_test_full.
_COIL = re.compile(r"(?:[a-z0-9]+_){0,4}((?:multi|single)coil_)")
_PART = re.compile(r"_(?:full|v\d{1,2}|batch_?\d{1,4})$")
_PSEUDONYM = re.compile(r"patient-[0-9a-f]{12}")
_HOW = "Write folders, files=URI or patients=URI."
_NO_FOLDER = "is in no folder of the given split"
_NO_FILE = "the list of the given split has no entry for this file"
_CHALLENGE_SET = (
    "is of a challenge's own test set, which is no part of the train, val and test split; to evaluate on it, prepare its folder alone, "
    "with --split 0/0/100"
)


@dataclass(frozen=True, kw_only=True)
class GivenSplitConfig:
    """Where a given split is written.

    Attributes:
        kind: ``folders``: in the layout of the source; ``files`` or ``patients``: in a list of these.
        uri: Path or ``s3://`` URI of the list, CSV or JSON.
    """

    kind: Literal["folders", "files", "patients"]
    uri: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("folders", "files", "patients"):
            raise ConfigError(f"split-from {self.kind}", "is none of folders, files and patients", _HOW)
        if (self.kind == "folders") == bool(self.uri):
            raise ConfigError(f"split-from {self.kind}={self.uri}", "folders name no list, the others name one", _HOW)


@dataclass(frozen=True, kw_only=True)
class GivenSplit:
    """A given split by pseudonyms, as far as it concerns the scans of one source.

    Attributes:
        kind: As in its configuration.
        of_sources: Split by pseudonym of the scan's URI; of folders and files.
        of_patients: Split by pseudonym; of patients.
        left_out: Reason by pseudonym of the scan's URI, of scans known beforehand to have no split.
        notes: What whoever prepares should know, a sentence each, free of names and identifiers.
    """

    kind: str
    of_sources: Mapping[str, str] = field(default_factory=dict)
    of_patients: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def split_of(self, source: str, patient: str) -> str | None:
        """Return the split of a scan by its source's and its patient's pseudonyms; None where it has none."""
        return self.of_patients.get(patient) if self.kind == "patients" else self.of_sources.get(source)

    def reason(self, source: str, patient: str) -> str:
        """Return why a scan has no split."""
        if self.kind != "patients":
            return self.left_out.get(source, _NO_FILE)
        if patient.startswith("unnamed-"):
            return "names no patient, and the given split is by patients"
        return "the list of the given split has no entry for this patient"


def with_parts(given: GivenSplit, parts: Mapping[str, Iterable[str]]) -> GivenSplit:
    """Return a split that says of each volume of a source what it says of the source.

    Args:
        given: By sources, or by patients, who need nothing more.
        parts: Pseudonyms of the volumes by that of their source.
    """
    of_sources = {name: given.of_sources[source] for source, names in parts.items() if source in given.of_sources for name in names}
    return dataclasses.replace(given, of_sources={**given.of_sources, **of_sources})


def find_given_split(config: GivenSplitConfig, places: Mapping[str, str], deidentifier: Deidentifier) -> GivenSplit:
    """Read a given split for the scans of a source.

    Args:
        config: Where it is written.
        places: Path below the source by URI, of every scan.
        deidentifier: Makes the pseudonyms.

    Raises:
        ConfigError: It cannot be read, contradicts itself, or fits none of the scans.
        StorageError: The list's store failed.
    """
    if config.kind == "patients":
        return splits_of_patients(read_split_list(config.uri, "patients"), deidentifier)
    notes: tuple[str, ...] = ()
    if config.kind == "folders":
        splits = {uri: split_of_folders(place) for uri, place in places.items()}
        remedy = "Give the folder above them as SOURCE, or use --split-from files=LIST."
    else:
        listed = read_split_list(config.uri, "files")
        found = splits_of_files(listed.entries, places)
        splits = {uri: (found[uri].split, "") if uri in found else (None, _NO_FILE) for uri in places}
        notes = _notes_on(listed, len({entry.number for entry in found.values()}), "file")
        remedy = "Name files, their stems or their paths below SOURCE."
    if not any(split for split, _ in splits.values()):
        raise ConfigError(f"the split from {config.kind} {config.uri}".rstrip(), f"fits none of the {len(places)} scans", remedy)
    names = {uri: deidentifier.pseudonym("source", uri) for uri in places}
    return GivenSplit(
        kind=config.kind,
        of_sources={names[uri]: split for uri, (split, _) in splits.items() if split},
        left_out={names[uri]: reason for uri, (split, reason) in splits.items() if not split},
        notes=notes,
    )


def split_of_folders(place: str) -> tuple[str | None, str]:
    """Return the split that the folders of a path say, or None and why there is none.

    Args:
        place: Path below the source; the file's own name says nothing.

    Raises:
        ConfigError: Two of the folders say different splits.
    """
    folders = [folder.casefold() for folder in PurePosixPath(place).parts[:-1]]
    if any(_CHALLENGE.fullmatch(folder) for folder in folders):
        return None, _CHALLENGE_SET
    words = [_word_of(folder) for folder in folders]
    said = [(word, split) for word in words if (split := split_named(_PART.sub("", word).rpartition("coil_")[2]))]
    if len({split for _, split in said}) > 1:
        nested = "/…/".join(word for word, _ in said)
        raise ConfigError(f"folders {nested}", "say different splits of one scan", "Move it, or use --split-from files=LIST.")
    return (said[0][1], "") if said else (None, _NO_FOLDER)


def _word_of(folder: str) -> str:
    """Return what may name a split: all of a folder, or what follows a collection's name, ``multicoil_val`` of ``knee_multicoil_val``."""
    coil = _COIL.match(folder)
    return folder if coil is None else folder[coil.start(1) :]


def splits_of_files(entries: Mapping[str, Entry], places: Mapping[str, str]) -> dict[str, Entry]:
    """Return what a list says of the scans that it names.

    Args:
        entries: By a file's name, or the end of its path below the source, or its whole URI; with or without ending.
        places: Path below the source by URI, of every scan.

    Raises:
        ConfigError: An entry fits two scans, or two entries put one scan into different splits.
    """
    wanted = {_normal(key): entry for key, entry in entries.items()}
    whole = _whole_paths(places)
    # What is the whole path of a scan means none that lies deeper.
    spelled = {uri: {text for text in _spellings(uri, place) if uri in whole.get(text, (uri,))} for uri, place in places.items()}
    count = Counter(text for spellings in spelled.values() for text in spellings)
    found: dict[str, Entry] = {}
    for uri, spellings in spelled.items():
        fitting = sorted((wanted[text].number, text) for text in spellings if text in wanted)
        for number, text in fitting:
            if count[text] > 1:
                raise ConfigError(f"entry {number} of the split list", f"fits {count[text]} scans", "Write their paths below SOURCE.")
        said = {wanted[text].split for _, text in fitting}
        if len(said) > 1:
            numbers = " and ".join(str(number) for number, _ in fitting)
            raise ConfigError(
                f"entries {numbers} of the split list", f"put one scan into {' and '.join(sorted(said))}", "Keep one of them."
            )
        if fitting:
            found[uri] = wanted[fitting[0][1]]
    return found


def _whole_paths(places: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the URIs that a whole path means: of its own file, else of every file that it is the path of but for the ending."""
    stems: dict[str, set[str]] = {}
    for uri, place in places.items():
        stems.setdefault(_normal(str(PurePosixPath(place).with_suffix(""))), set()).add(uri)
    return stems | {_normal(text): {uri} for uri, place in places.items() for text in (uri, place)}


def splits_of_patients(listed: SplitList, deidentifier: Deidentifier) -> GivenSplit:
    """Return what a list says of patients, by the pseudonyms that their scans will have.

    Args:
        listed: By ids as scans' headers have them, or by pseudonyms of this salt, as a catalog has them.
        deidentifier: Makes the pseudonyms.

    Raises:
        ConfigError: Two spellings of one id are put into different splits.
    """
    known: dict[str, Entry] = {}
    num_blank = 0
    for key, entry in listed.entries.items():
        patient = key if _PSEUDONYM.fullmatch(key) else deidentifier.patient(Identity(patient_id=key), "")
        if patient.startswith("unnamed-"):
            num_blank += 1
            continue
        earlier = known.setdefault(patient, entry)
        if earlier.split != entry.split:
            raise ConfigError(
                f"entries {earlier.number} and {entry.number} of the split list",
                f"put one patient into {earlier.split} and {entry.split}",
                "Keep one of them.",
            )
    notes = _notes_on(listed, None, "patient")
    if num_blank:
        notes += (f"{num_blank} entries of the split list are ids that anonymisers leave to anybody; they were passed over.",)
    return GivenSplit(kind="patients", of_patients={patient: entry.split for patient, entry in known.items()}, notes=notes)


def _notes_on(listed: SplitList, num_fitting: int | None, what: str) -> tuple[str, ...]:
    notes = []
    if listed.num_repeated:
        notes.append(f"{listed.num_repeated} entries of the split list say again what an earlier one says.")
    if num_fitting is not None and num_fitting < len(listed.entries):
        notes.append(f"{len(listed.entries) - num_fitting} of the split list's {len(listed.entries)} entries fit no {what} of this source.")
    return tuple(notes)


def _spellings(uri: str, place: str) -> set[str]:
    """Return every way to name a scan."""
    parts = PurePosixPath(_normal(place)).parts
    ends = ["/".join(parts[at:]) for at in range(len(parts))]
    return {_normal(uri), _normal(place), *ends, *(str(PurePosixPath(end).with_suffix("")) for end in ends)}


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\\", "/")).removeprefix("./")
