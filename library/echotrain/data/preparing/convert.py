"""One scan to its part of a catalog: curated, encoded into shards, described by rows. Knows nothing of Ray.

What was done is written last, as a record under a key that stands for the source and every setting that shapes the
bytes. A record that is there is work that need not be done again; without one, whatever a killed attempt left behind
is written over.
"""

import dataclasses
import json
import logging
import math
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import xxhash

from echotrain.config import fingerprint, to_dict
from echotrain.data.catalog.containment import is_sound
from echotrain.data.catalog.rows import header_columns
from echotrain.data.catalog.signature import NO_PROJECTIONS, signature_of, slice_projections
from echotrain.data.formats import Deidentifier, ExaminedVolume, ReadLimits, open_volume
from echotrain.data.formats.deidentify import Witness, compile_safe_names
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import ALIGNMENT, EncodedSlice, PayloadDtype, checksum, encode_lines, encode_packed
from echotrain.data.preparing.curate import CurationConfig, Rejection, judge_slice, slice_defect, volume_defect
from echotrain.errors import ConfigError, EchotrainError, ScanError, printable
from echotrain.storage.bounded_read import read_json
from echotrain.storage.ranged_file import RangedFile
from echotrain.storage.store import Store

__all__ = [
    "ConvertConfig",
    "ScanRecord",
    "convert_scan",
    "plain_reason",
    "read_record",
    "reason_of",
    "record_key",
    "scan_key",
    "unreadable",
]

logger = logging.getLogger(__name__)

# Raised when the bytes or the rows that a source gives change.
_RECORD_FORMAT = 4
_BY_PLACE = "its header names no patient: one with all scans whose file or folder names the same subject"
# Relative; maxima went through single precision.
_ROUNDING = 1e-5
# What a reason may quote: words of the formats, which are the same in everybody's file.
_FORMAT_TEXT = """kspace data xml head traj dataset mask ismrmrd_header reconstruction_rss reconstruction_esc
spiral radial epi goldenangle cartesian other"""
_FORMAT_WORDS = frozenset(_FORMAT_TEXT.split())
# An apostrophe follows a letter, an opening quote does not, save that of bytes. What is not closed was cut off.
_QUOTED = re.compile(r"""(?s)(?<!\w)(b?)(['"])(.*?)(?:(?<!\\)\2(?!\w)|$)""")
# Sizes of images have fewer digits, identifiers and dates may have these; 65536 is our own limit of sizes.
_LONG_NUMBER = re.compile(r"(?!65536(?![\d_]))(?<![\d_])\d(?:_?\d){4,}")
# A row has about a kilobyte, a scan at most some ten thousand.
_LARGEST_RECORD = 64 << 20
# Fits the processor's cache.
_FLOATS_AT_ONCE = 128 << 10
_DTYPES: dict[str, PayloadDtype] = {"float32": "complex64", "float16": "float16"}


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What decides the bytes and the rows that a scan gives.

    Attributes:
        payload: ``raw`` leaves the bytes in the scanner's file and only says where they are, where they are contiguous; ``packed``
            writes slices whole; ``lines`` so that an equispaced mask reads only its lines.
        dtype: ``float16`` halves the bytes of ``packed`` and ``lines``, at 3e-8 NMSE.
        acs_fraction: Centre lines that ``lines`` holds twice; at least the centre fraction of the masks to come.
        dataset: Name of the collection; "" takes what the files say.
        curation: What is left out.
        index_only: With ``raw``: read headers and one slice of each scan. Of the others nothing is known: they are not curated by
            their content, duplicates go unnoticed, and bytes have no checksum to be held against.
        assume_full: Take fastMRI-layout files that have neither a header nor a mask as fully sampled.
        safe_names: Regular expressions of file names, without their endings, that name nobody and become volume ids as they are, where they
            are of letters, digits and ``_.+-``; with ``raw``, of folders below the source too. Public data sets' need none.
    """

    payload: Literal["raw", "packed", "lines"] = "packed"
    dtype: Literal["float32", "float16"] = "float32"
    acs_fraction: float = 0.08
    dataset: str = ""
    curation: CurationConfig = field(default_factory=CurationConfig)
    index_only: bool = False
    assume_full: bool = False
    safe_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        compile_safe_names(self.safe_names)
        if not 0 < self.acs_fraction <= 1:
            raise ConfigError(f"acs_fraction={self.acs_fraction}", "must lie in (0, 1]", "0.08 suits masks of 4x.")
        if self.payload == "raw" and self.dtype != "float32":
            raise ConfigError(f"dtype={self.dtype} with payload=raw", "raw bytes stay as they are", "Use payload=packed for float16.")
        if self.index_only and self.payload != "raw":
            raise ConfigError(f"index_only with payload={self.payload}", "only raw bytes can stay unread", "Use payload=raw.")


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """What became of one scan.

    Attributes:
        key: Of the source and the settings (``scan_key``).
        source: Pseudonym of the source's URI.
        name: The volume's id, or a pseudonym where the file could not be read.
        content: Hash of the k-space, the same in whatever file it lies; "" where it was not read.
        signature: What a constant factor does not change of it (``data.catalog.signature``); "" where it was not read.
        rows: Catalog columns of every kept slice, ``split`` still empty.
        rejections: What was left out.
        findings: What of the scan was taken, merged, corrected or taken on trust, a phrase each, free of names and identifiers.
        parts: Values of the records of a source that holds several volumes; then it has no rows and no rejections of its own.
        person, words, labels, born: Whom the header names (``deidentify.Person``); "" and empty where it names nobody.
    """

    key: str
    source: str
    name: str
    content: str = ""
    signature: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    person: str = ""
    words: list[list[str]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    born: str = ""

    @property
    def volumes(self) -> list[Self]:
        """The records of its volumes: itself, where it is one."""
        return [type(self).from_values(part) for part in self.parts] or [self]

    def to_values(self) -> dict[str, Any]:
        """Return the record as plain values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Build a record from what ``to_values`` gave, or what JSON made of it.

        Raises:
            ValueError: They are not a record's.
        """
        try:
            return cls(**{**values, "rejections": [Rejection(*rejection) for rejection in values["rejections"]]})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a record: {error}") from error


def scan_key(deidentifier: Deidentifier, uri: str, size: int, version: str, config: ConvertConfig) -> str:
    """Name the work of converting one version of one source with these settings."""
    return deidentifier.pseudonym("scan", uri, str(size), version, fingerprint(to_dict(config)), str(_RECORD_FORMAT))


def record_key(key: str) -> str:
    """Return the object in which a scan's record is kept."""
    return f"prepared/{key}.json"


def read_record(store: Store, key: str) -> ScanRecord | None:
    """Return a finished scan's record; None where there is none that can be used."""
    if store.size(record_key(key)) is None:
        return None
    try:
        return ScanRecord.from_values(read_json(store, record_key(key), _LARGEST_RECORD))
    except ValueError:
        logger.warning("%s/%s is damaged; the scan is prepared again", store.uri, record_key(key))
        return None


def convert_scan(
    path: Path | RangedFile,
    *,
    uri: str,
    key: str,
    store: Store,
    config: ConvertConfig,
    deidentifier: Deidentifier,
    limits: ReadLimits | None = None,
) -> ScanRecord:
    """Curate and encode one scan, write its shards, then its record.

    Args:
        path: The scan on this machine; an object in a store where only headers are wanted.
        uri: Where it lies for everybody; ``raw`` rows point there.
        key: From ``scan_key``.
        store: Where the catalog will be.
        config: Settings.
        deidentifier: Makes pseudonyms.
        limits: Memory limits.

    Returns:
        The record. A scan that cannot be read gives one with a rejection, which is not stored: reading it again is quick.

    Raises:
        StorageError: The store failed; nothing of the scan counts as done.
    """
    source, witness = deidentifier.pseudonym("source", uri), Witness(deidentifier, uri)
    try:
        with open_volume(
            path,
            dataset=config.dataset,
            deidentifier=witness,
            limits=limits,
            location=uri,
            assume_full=config.assume_full,
            num_samples=1 if config.index_only else 3,
        ) as volume:
            record = _convert(volume, uri, key, source, store, config)
            if config.payload == "raw" and record.rows and volume.in_place_defect:
                record.findings.append(f"copied into shards: {volume.in_place_defect}")
            elif config.payload == "raw" and record.rows and not _may_be_named(volume, uri):
                record.findings.append("copied into shards, because its file's name or folder is not known to be safe to write down")
        named = deidentifier.person(witness.identity)
        words = [list(word) for word in named.words]
        record = dataclasses.replace(record, person=named.person, words=words, labels=list(named.labels), born=named.born)
        record = dataclasses.replace(record, findings=[_without_long_numbers(finding) for finding in record.findings])
        if record.rows and witness.is_by_place:
            record.findings.append(_BY_PLACE)
    except ScanError as error:
        return unreadable(reason_of(error, path.name), uri, key, source, store, deidentifier)
    except EchotrainError:
        raise
    except Exception as error:  # A stranger's file may break a library in a way nobody foresaw; it must not end the job.
        # Where, but not the message: it may hold the path, which may name the patient.
        logger.error("%s breaks its reader (%s):\n%s", source, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return unreadable(f"breaks its reader ({type(error).__name__})", uri, key, source, store, deidentifier)
    store.write(record_key(key), json.dumps(record.to_values()).encode())
    return record


def unreadable(reason: str, uri: str, key: str, source: str, store: Store, deidentifier: Deidentifier) -> ScanRecord:
    """Return the record of a source that gave nothing, once whatever was begun of it is gone."""
    for leftover in list(store.list(f"shards/{key}-")):
        store.delete(leftover.key)
    # The file may be named after its patient, and there is no header to tell.
    return ScanRecord(key=key, source=source, name=deidentifier.pseudonym("unreadable", uri), rejections=[Rejection(None, reason)])


def reason_of(error: ScanError, name: str) -> str:
    """Return an error as a reason: without the file's name, paths, long numbers, and quotes from the file, save a format's own words."""
    value = error.value.removeprefix(name).lstrip(": ") or "the file"
    return f"{plain_reason(value, name)}: {plain_reason(error.limit, name)}"


def plain_reason(text: str, name: str) -> str:
    """Return a text as a part of a reason, without a file's name, where there is one, and what else ``reason_of`` leaves out."""
    text = text.replace(name, "the file") if name else text
    text = _QUOTED.sub(lambda found: found[0] if found[3] in _FORMAT_WORDS else f"{found[2]}…{found[2]}", text)
    return printable(_without_long_numbers(re.sub(r"(?<![\w.])(?:\w+:)?/[^\s'\"]+", "…", text)))


def _without_long_numbers(text: str) -> str:
    return _LONG_NUMBER.sub("…", text)


def _convert(volume: ExaminedVolume, uri: str, key: str, source: str, store: Store, config: ConvertConfig) -> ScanRecord:
    header = volume.header
    defect = volume_defect(volume, config.curation)
    if defect is not None:
        return ScanRecord(key=key, source=source, name=header.volume, rejections=[Rejection(None, defect)], findings=list(volume.findings))
    if config.index_only:
        return _indexed(volume, uri, key, source)
    rows: list[dict[str, Any]] = []
    rejections = []
    content = xxhash.xxh3_128(repr((header.num_slices, header.num_coils, header.height, header.width)).encode())
    projections = NO_PROJECTIONS
    largest, squares = 0.0, 0.0
    with ShardWriter(store, f"shards/{key}") as shards:
        for index in range(header.num_images):
            slice_, frame = header.place(index)
            kspace = np.ascontiguousarray(volume.read_slice(index))
            _hash(content, kspace)
            judged = judge_slice(kspace, header, volume.energies.get(index))
            if judged.defect is not None:
                rejections.append(Rejection(slice_, judged.defect, frame))
                continue
            projections = projections + slice_projections(kspace, index)
            own = volume.read_target(index)
            target = volume.computed_target(index) if own is None else own
            largest, squares = max(largest, float(target.max())), squares + float(np.square(target, dtype=np.float64).sum())
            columns = _raw_columns(volume, index, kspace, target, own is not None, uri, shards) if config.payload == "raw" else None
            columns = columns or shards.add(_encode(kspace, target, config))
            measured = {"padding_left": judged.measured[0], "padding_right": judged.measured[1]}
            rows.append({"slice": slice_, "frame": frame, **columns, **measured})
    of_all = header_columns(dataclasses.replace(header, max_value=largest, norm=math.sqrt(squares)))
    return ScanRecord(
        key=key,
        source=source,
        name=header.volume,
        content=content.hexdigest(),
        signature=signature_of(projections, len(rows)),
        rows=[{**of_all, "split": "", **row} for row in rows],
        rejections=rejections,
        findings=list(volume.findings),
    )


def _hash(content: xxhash.xxh3_128, kspace: np.ndarray) -> None:
    """Add a contiguous k-space to a hash, piece by piece; formats differ in the signs of their zeros, so -0.0 counts as 0.0."""
    numbers = kspace.reshape(-1).view(np.float32)
    scratch = np.empty(min(_FLOATS_AT_ONCE, numbers.size), np.float32)
    for start in range(0, numbers.size, _FLOATS_AT_ONCE):
        piece = numbers[start : start + _FLOATS_AT_ONCE]
        # Adding zero turns -0.0 into 0.0.
        content.update(np.add(piece, np.float32(0), out=scratch[: piece.size]).data)


def _indexed(volume: ExaminedVolume, uri: str, key: str, source: str) -> ScanRecord:
    """Describe a volume by its header, its file's layout and what a few of its slices show."""
    header = volume.header
    places = [(volume.raw_slice_range(index), volume.raw_target_range(index)) for index in range(header.num_images)]
    rows = [
        {
            **header_columns(header),
            **dict(zip(("slice", "frame"), header.place(index), strict=True)),
            **{"split": "", "kind": "raw", "dtype": "complex64", "acs_lines": 0},
            **{"uri": uri, "offset": kspace.offset, "nbytes": kspace.nbytes, "checksum": None},
            **{"target_uri": uri, "target_offset": target.offset, "target_nbytes": target.nbytes, "target_checksum": None},
        }
        for index, (kspace, target) in enumerate(places)
        if kspace is not None and target is not None
    ]
    reason = _index_defect(volume, uri, len(rows))
    if reason is not None:
        rejection = Rejection(None, f"{reason}; prepare it without index-only")
        return ScanRecord(key=key, source=source, name=header.volume, rejections=[rejection], findings=list(volume.findings))
    return ScanRecord(key=key, source=source, name=header.volume, rows=rows, findings=list(volume.findings))


def _may_be_named(volume: ExaminedVolume, uri: str) -> bool:
    """Say whether a catalog may say where the file lies: it names nobody, and whoever reads the catalog takes it for a file's name."""
    return volume.is_location_safe and is_sound(uri)


def _index_defect(volume: ExaminedVolume, uri: str, num_places: int) -> str | None:
    """Return why headers do not describe a volume, judged by its layout and by the slices that were examined; None where they do."""
    header, largest = volume.header, 0.0
    if volume.in_place_defect:
        return volume.in_place_defect
    for index in volume.examined:
        kspace = volume.read_slice(index)
        defect = slice_defect(kspace, header, volume.energies.get(index))
        if defect is not None:
            return f"slice {index}: {defect}"
        target = volume.read_target(index)
        if target is None:
            return "the stored targets are not of the k-space beside them, or there are none"
        largest = max(largest, float(target.max()))
    if num_places < header.num_images:
        return "k-space or target do not lie in the file as plain bytes"
    if not is_sound(uri):
        return "the file's name or folder holds signs that no catalog may hold"
    if not volume.is_location_safe:
        return "the file's name or folder is not known to be safe to write down (--safe-names says which are)"
    if not header.max_value > 0:
        return "the header has no maximum of the target"
    if not header.max_value >= largest * (1 - _ROUNDING):
        return f"the header's maximum of the target, {header.max_value:.4g}, is below the {largest:.4g} of one of its slices"
    return None


def _encode(kspace: np.ndarray, target: np.ndarray, config: ConvertConfig) -> EncodedSlice:
    dtype = _DTYPES[config.dtype]
    if config.payload == "lines":
        return encode_lines(kspace, target, dtype, acs_lines=math.ceil(config.acs_fraction * kspace.shape[-1]))
    return encode_packed(kspace, target, dtype)


def _raw_columns(
    volume: ExaminedVolume, index: int, kspace: np.ndarray, target: np.ndarray, is_own: bool, uri: str, shards: ShardWriter
) -> Mapping[str, Any] | None:
    """Return columns that point into the scanner's file, or None where it cannot serve as a shard."""
    where = volume.raw_slice_range(index)
    if where is None or not _may_be_named(volume, uri):
        return None
    columns = {"kind": "raw", "uri": uri, "offset": where.offset, "nbytes": where.nbytes, "dtype": "complex64", "acs_lines": 0}
    columns["checksum"] = checksum(kspace)
    of_target = volume.raw_target_range(index) if is_own else None
    if of_target is not None:
        own = {"target_uri": uri, "target_offset": of_target.offset, "target_nbytes": of_target.nbytes}
        return columns | own | {"target_checksum": checksum(np.ascontiguousarray(target))}
    # Only the target is missing from the file: it alone goes into a shard.
    image = np.ascontiguousarray(target).reshape(-1).view(np.uint8)
    of_shard = {"offset": 0, "target_offset": 0, "target_nbytes": image.size, "target_checksum": checksum(image)}
    padding = np.zeros(-image.size % ALIGNMENT, np.uint8)
    added = shards.add(EncodedSlice(parts=(image, padding), columns=of_shard))
    return columns | {name: value for name, value in added.items() if name.startswith("target_")}
