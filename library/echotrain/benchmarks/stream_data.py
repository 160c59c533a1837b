"""Slices to stream: the same ones as fastMRI HDF5 files, as shards of either precision, and line by line."""

import contextlib
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from echotrain.data.catalog.rows import Catalog, SliceRow, header_columns
from echotrain.data.catalog.store import commit_catalog
from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.target import rss_target
from echotrain.data.formats.write import write_fastmri
from echotrain.data.formats.xml_header import header_xml
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import checksum, encode_lines, encode_packed
from echotrain.data.preparing.convert import ConvertConfig, convert_scan
from echotrain.log import track
from echotrain.storage.open import open_store

__all__ = ["BUCKET", "PASSES", "SMALL", "StreamData", "StreamShapes", "index_hdf5", "write_stream_data"]

BUCKET = "bench"

_SLICES = 16
# The catalogs of shards name every slice this often: an epoch is long against its start, as real ones are, with little written.
PASSES = 4
# As many as R = 4 at 8% samples fully.
_ACS_LINES = 26


@dataclass(frozen=True, kw_only=True)
class StreamShapes:
    """What volumes take turns in.

    Attributes:
        kspace: Shapes (coils, height, width) of slices.
        image: Side of every target.
    """

    kspace: tuple[tuple[int, int, int], ...] = ((8, 640, 320), (16, 320, 320), (12, 320, 320), (10, 640, 320))
    image: int = 320

    @property
    def largest(self) -> tuple[int, ...]:
        """The shape that holds all of them."""
        return tuple(max(sizes) for sizes in zip(*self.kspace, strict=True))


SMALL = StreamShapes(kspace=((4, 96, 64), (6, 64, 64)), image=64)


@dataclass(frozen=True, kw_only=True)
class StreamData:
    """Where the slices lie.

    Attributes:
        folder: To be served; its one bucket is ``BUCKET``, and the HDF5 files are in ``scans`` there.
        raw, packed, half, lines: Keys of the four catalogs below the bucket; the first one points into the HDF5 files.
        num_slices: On disk.
        num_bytes: k-space and targets at full precision.
    """

    folder: Path
    raw: str = "."
    packed: str = "packed"
    half: str = "half"
    lines: str = "lines"
    num_slices: int
    num_bytes: int

    @property
    def bucket(self) -> Path:
        """The bucket's folder."""
        return self.folder / BUCKET

    @property
    def scans(self) -> Path:
        """The HDF5 files' folder."""
        return self.bucket / "scans"


def write_stream_data(folder: Path, gigabytes: float, shapes: StreamShapes) -> StreamData:
    """Write noise of 8 to 16 coils in all four forms.

    Args:
        folder: Empty.
        gigabytes: Size at full precision, two volumes at least; the four forms together take about 3.6 times that.
        shapes: Of the volumes.
    """
    volume_nbytes = float(np.mean([8 * np.prod(shape) for shape in shapes.kspace])) * _SLICES
    num_volumes = max(2, round(gigabytes * 1e9 / volume_nbytes))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(*shapes.largest, 2)).astype(np.float32).view(np.complex64)[..., 0]
    bucket = open_store(str(folder / BUCKET))
    rows: dict[str, list[SliceRow]] = {"packed": [], "half": [], "lines": []}
    sums: dict[tuple[str, int], tuple[int, int]] = {}
    num_bytes = 0
    with contextlib.ExitStack() as stack:
        stores = {name: open_store(f"{bucket.uri}/{name}") for name in rows}
        shards = {name: stack.enter_context(ShardWriter(store, f"shards/{name}")) for name, store in stores.items()}
        for number in track(range(num_volumes), "Writing slices to stream"):
            header = _header(number, shapes)
            kspace, target = _volume(noise, header)
            write_fastmri(
                folder / BUCKET / "scans" / f"{header.volume}.h5",
                header=header_xml(header, protocol="bench"),
                kspace=kspace,
                target=target,
                attributes={"max": header.max_value, "norm": 1.0, "patient_id": header.patient, "acquisition": "CORPD_FBK"},
            )
            num_bytes += kspace.nbytes + target.nbytes
            for index in range(_SLICES):
                sums[header.volume, index] = (checksum(kspace[index]), checksum(target[index]))
                encoded = {
                    "packed": encode_packed(kspace[index], target[index]),
                    "half": encode_packed(kspace[index], target[index], "float16"),
                    "lines": encode_lines(kspace[index], target[index], acs_lines=_ACS_LINES),
                }
                for name, one in encoded.items():
                    columns = {**header_columns(header), "split": "train", **shards[name].add(one)}
                    rows[name] += [SliceRow(**columns, slice=index + _SLICES * again) for again in range(PASSES)]
    for name, store in stores.items():
        commit_catalog(store, Catalog.from_rows(rows[name]).table, {"made_by": "bench"})
    indexed = [(row, *sums[row.volume, row.slice]) for row in index_hdf5(folder / BUCKET)]
    raw = [replace(row, checksum=of_kspace, target_checksum=of_target) for row, of_kspace, of_target in indexed]
    commit_catalog(bucket, Catalog.from_rows(raw).table, {"made_by": "bench"})
    return StreamData(folder=folder, num_slices=num_volumes * _SLICES, num_bytes=num_bytes)


def index_hdf5(root: Path) -> list[SliceRow]:
    """Index the HDF5 files in ``scans`` below ``root`` as shards of their own, as ``prepare --payload raw --index-only`` does."""
    config = ConvertConfig(payload="raw", index_only=True, dataset=BUCKET)
    with tempfile.TemporaryDirectory(prefix="echotrain-bench-") as scratch:
        store, rows = open_store(scratch), []
        for path in sorted((root / "scans").glob("*.h5")):
            record = convert_scan(path, uri=f"scans/{path.name}", key=path.stem, store=store, config=config, deidentifier=Deidentifier())
            rows += [SliceRow(**{**row, "split": "train"}) for row in record.rows]
    return rows


def _header(number: int, shapes: StreamShapes) -> VolumeHeader:
    coils, height, width = shapes.kspace[number % len(shapes.kspace)]
    return VolumeHeader(
        dataset=BUCKET,
        volume=f"file10{number:05d}",
        patient=f"p{number}",
        anatomy="knee",
        contrast="PD",
        num_slices=_SLICES,
        num_coils=coils,
        height=height,
        width=width,
        recon_height=shapes.image,
        recon_width=shapes.image,
        fov_mm=(160.0, 160.0, 3.0),
        padding_right=width,
        # Of noise of unit variance in every sample.
        max_value=4.0 * math.sqrt(2 * coils),
    )


def _volume(noise: np.ndarray, header: VolumeHeader) -> tuple[np.ndarray, np.ndarray]:
    """Return different noise for each slice without drawing each anew, and its image, which does not change when k-space is rolled."""
    source = np.ascontiguousarray(noise[: header.num_coils, : header.height, : header.width])
    kspace = np.stack([np.roll(source, 7 * index, axis=2) for index in range(header.num_slices)])
    image = rss_target(source, (header.recon_height, header.recon_width))
    return kspace, np.repeat(image[None], header.num_slices, axis=0)
