"""One source of images to its part of a catalog: every volume of it curated, encoded into shards, described by rows without k-space."""

import dataclasses
import json
import logging
import math
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from echotrain.data.catalog.rows import IMAGE_ONLY
from echotrain.data.formats import Deidentifier, ReadLimits
from echotrain.data.formats.deidentify import Person
from echotrain.data.formats.image_volume import ImageHeader, ImageVolume, Unusable
from echotrain.data.formats.open_images import holds_images, open_images
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import encode_image
from echotrain.data.preparing.convert import ConvertConfig, ScanRecord, convert_scan, plain_reason, reason_of, record_key, unreadable
from echotrain.data.preparing.curate import Rejection
from echotrain.errors import EchotrainError, ScanError
from echotrain.storage.ranged_file import RangedFile
from echotrain.storage.store import Store

__all__ = ["IMAGE_CONTENT", "convert_images", "convert_source"]

logger = logging.getLogger(__name__)

# What the hash of a volume's images begins with, which no hash of k-space does.
IMAGE_CONTENT = f"{IMAGE_ONLY}-"
_DATASET = "images"
_BY_PLACE = "its header names no patient: one with all scans whose file or folder names the same subject"


def convert_source(
    path: Path | RangedFile,
    *,
    uri: str,
    key: str,
    store: Store,
    config: ConvertConfig,
    deidentifier: Deidentifier,
    limits: ReadLimits | None = None,
) -> ScanRecord:
    """Convert a source of whichever kind it is; arguments, result and errors are those of ``convert_scan``."""
    is_images = isinstance(path, Path) and holds_images(path)
    convert = convert_images if is_images else convert_scan
    return convert(path, uri=uri, key=key, store=store, config=config, deidentifier=deidentifier, limits=limits)  # type: ignore[arg-type]


def convert_images(
    path: Path,
    *,
    uri: str,
    key: str,
    store: Store,
    config: ConvertConfig,
    deidentifier: Deidentifier,
    limits: ReadLimits | None = None,
) -> ScanRecord:
    """Curate and encode all volumes of a source, write their shards, then one record of them, whose parts are a record each.

    Images always go into shards, as float32, whatever the payload of k-space is to be.
    """
    source = deidentifier.pseudonym("source", uri)
    # A folder may be called by a word that reasons are made of, and no reader says its name.
    name = path.name if path.is_file() else ""
    try:
        if config.index_only:
            raise ScanError("a source of images", "is always copied into shards; prepare it without index-only", "Prepare it apart.")
        with open_images(path, deidentifier=deidentifier, limits=limits, place=uri) as opened:
            is_alone = len(opened.volumes) == 1
            parts = []
            for number, volume in enumerate(opened.volumes):
                own = source if is_alone else deidentifier.pseudonym("source", uri, volume.part)
                parts.append(_with_person(_convert(volume, own, key, number, store, config), deidentifier.person(volume.identity)))
            parts += [_left_out(unusable, name, uri, key, deidentifier) for unusable in opened.unusable]
    except ScanError as error:
        return unreadable(reason_of(error, name), uri, key, source, store, deidentifier)
    except EchotrainError:
        raise
    except Exception as error:  # A stranger's file may break a library in a way nobody foresaw; it must not end the job.
        # Where, but not the message: it may hold what the header says.
        logger.error("%s breaks its reader (%s):\n%s", source, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return unreadable(f"breaks its reader ({type(error).__name__})", uri, key, source, store, deidentifier)
    record = ScanRecord(key=key, source=source, name=source, parts=[part.to_values() for part in parts])
    store.write(record_key(key), json.dumps(record.to_values()).encode())
    return record


def _with_person(record: ScanRecord, person: Person) -> ScanRecord:
    words = [list(word) for word in person.words]
    return dataclasses.replace(record, person=person.person, words=words, labels=list(person.labels), born=person.born)


def _left_out(unusable: Unusable, name: str, uri: str, key: str, deidentifier: Deidentifier) -> ScanRecord:
    return ScanRecord(
        key=key,
        source=deidentifier.pseudonym("source", uri, unusable.part),
        name=deidentifier.pseudonym("unreadable", uri, unusable.part),
        rejections=[Rejection(None, plain_reason(unusable.reason, name))],
    )


def _convert(volume: ImageVolume, source: str, key: str, number: int, store: Store, config: ConvertConfig) -> ScanRecord:
    header = volume.header
    defect = _volume_defect(header, config)
    if defect:
        return ScanRecord(key=key, source=source, name=header.volume, rejections=[Rejection(None, defect)])
    findings = [*volume.findings, *([_BY_PLACE] if volume.is_by_place else [])]
    lowest, defects = _examined(volume)
    if lowest < 0:
        findings.append("its smallest value is negative: every value is raised by it, so that black is 0")
    raised = min(lowest, 0.0)
    rows: list[dict[str, Any]] = []
    content = xxhash.xxh3_128(repr((header.num_slices, header.num_frames, header.height, header.width)).encode())
    largest, squares = 0.0, 0.0
    with ShardWriter(store, f"shards/{key}-{number:05d}") as shards:
        for index, frame in _places(header):
            if (index, frame) in defects:
                continue
            image = volume.read_image(index, frame) - np.float32(raised)
            content.update(image.data)
            largest, squares = max(largest, float(image.max())), squares + float(np.square(image, dtype=np.float64).sum())
            rows.append({"slice": index, "frame": None if header.num_frames is None else frame, **shards.add(encode_image(image))})
    of_all = {**_columns(header, config), "max_value": largest, "norm": math.sqrt(squares)}
    return ScanRecord(
        key=key,
        source=source,
        name=header.volume,
        content=f"{IMAGE_CONTENT}{content.hexdigest()}",
        rows=[{**of_all, "split": "", **row} for row in rows],
        rejections=_rejections(header, defects),
        findings=findings,
    )


def _volume_defect(header: ImageHeader, config: ConvertConfig) -> str:
    kinds = header.protocol.kinds
    if "localizers" in kinds:
        return "is a localizer by its name"
    named = [kind for kind in kinds if kind in config.curation.leave_out]
    if named:
        return f"of a kind that is left out by the protocol's name: {', '.join(named)}"
    if header.num_slices < config.curation.min_slices:
        return f"{header.num_slices} slices, fewer than {config.curation.min_slices}"
    return ""


def _examined(volume: ImageVolume) -> tuple[float, dict[tuple[int, int], str]]:
    """Return the smallest value of the images that are of use, and why the others are of none, by slice and frame."""
    lowest, defects = math.inf, {}
    for place in _places(volume.header):
        image = volume.read_image(*place)
        least, largest = float(image.min()), float(image.max())
        if not (math.isfinite(least) and math.isfinite(largest)):
            defects[place] = "holds NaN or infinity"
        elif least == largest:
            defects[place] = "is blank"
        else:
            lowest = min(lowest, least)
    return lowest, defects


def _rejections(header: ImageHeader, defects: dict[tuple[int, int], str]) -> list[Rejection]:
    """Return why slices are left out: once for each reason that a slice's frames have."""
    reasons: dict[tuple[int, str], list[int]] = {}
    for (index, frame), reason in defects.items():
        reasons.setdefault((index, reason), []).append(frame)
    whole = header.num_frames or 1
    return [
        Rejection(index, f"its image {reason}" if len(frames) == whole else f"{len(frames)} of {whole} images: {reason}")
        for (index, reason), frames in reasons.items()
    ]


def _places(header: ImageHeader) -> list[tuple[int, int]]:
    return [(index, frame) for index in range(header.num_slices) for frame in range(header.num_frames or 1)]


def _columns(header: ImageHeader, config: ConvertConfig) -> dict[str, Any]:
    """Return the columns that a volume's header decides; of k-space they say that there is none."""
    between_rows, between_columns, between_slices = (size or None for size in header.spacing_mm)
    protocol = header.protocol
    return {
        **{name: getattr(header, name) for name in _OF_HEADER},
        **{name: getattr(protocol, name) for name in ("anatomy", "contrast", "fat_suppressed", "orientation")},
        **{"dataset": config.dataset or _DATASET, "acquisition": "", "modality": None, "coils": 0},
        **{"recon_height": header.height, "recon_width": header.width, "padding_left": 0, "padding_right": header.width},
        "fov_readout_mm": between_rows and between_rows * header.height,
        "fov_phase_mm": between_columns and between_columns * header.width,
        "thickness_mm": between_slices,
    }


_OF_HEADER = (
    "volume", "patient", "vendor", "field_strength", "center", "sex", "weight_bin_kg", "num_slices", "num_frames", "height", "width",
)  # fmt: skip
