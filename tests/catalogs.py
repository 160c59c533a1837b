"""Small catalogs for tests: written by the library's own writer, with the truth beside them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from echotrain.data.catalog.rows import SCHEMA, Catalog, SliceRow
from echotrain.data.catalog.store import commit_catalog
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import checksum, encode_lines, encode_packed
from echotrain.storage.open import open_store

Shape = tuple[int, int, int]


@dataclass
class Written:
    """A committed catalog and what its slices hold, by (volume, slice)."""

    catalog: Catalog
    kspace: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    target: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)


def write_catalog(
    folder: Path,
    *,
    kind: str = "packed",
    dtype: str = "complex64",
    shapes: tuple[Shape, ...] = ((4, 24, 20),),
    volumes: int = 6,
    slices: int = 3,
    splits: tuple[str, ...] = ("train",),
    anatomies: tuple[str, ...] = ("knee", "brain"),
    max_shard_bytes: int = 20_000,
    unmeasured: tuple[tuple[int, int], ...] = ((0, 0),),
) -> Written:
    """Write ``volumes`` volumes of ``slices`` slices, of the shapes (coil, ky, kx) in turn, each of its own patient.

    Of the volumes in turn, so many lines on the left and on the right were never measured: ``unmeasured``.
    """
    rng = np.random.default_rng(5)
    written = Written(Catalog(SCHEMA.empty_table()))
    rows: list[SliceRow] = []
    store = open_store(str(folder))
    with ShardWriter(store, "shards/test", max_bytes=max_shard_bytes) as shards:
        for number in range(volumes):
            shape = shapes[number % len(shapes)]
            volume = f"file{number:03d}"
            kspace = (rng.normal(size=(slices, *shape)) + 1j * rng.normal(size=(slices, *shape))).astype(np.complex64)
            target = rng.random((slices, 16, 12), np.float32)
            left, right = unmeasured[number % len(unmeasured)][0], shape[2] - unmeasured[number % len(unmeasured)][1]
            kspace[..., :left], kspace[..., right:] = 0, 0
            if kind == "raw":
                payload = _write_hdf5(folder / f"{volume}.h5", kspace, target)
            else:
                payload = [shards.add(_encode(kind, dtype, k, t)) for k, t in zip(kspace, target, strict=True)]
            for index in range(slices):
                written.kspace[volume, index] = kspace[index]
                written.target[volume, index] = target[index]
                rows.append(
                    SliceRow(
                        dataset="test",
                        volume=volume,
                        slice=index,
                        num_slices=slices,
                        patient=f"p{number}",
                        split=splits[number % len(splits)],
                        anatomy=anatomies[number % len(anatomies)],
                        contrast="PD",
                        coils=shape[0],
                        height=shape[1],
                        width=shape[2],
                        recon_height=16,
                        recon_width=12,
                        padding_left=left,
                        padding_right=right,
                        max_value=float(target.max()),
                        **payload[index],
                    )
                )
    written.catalog = commit_catalog(store, Catalog.from_rows(rows).table, {"made_by": "tests"})
    return written


def _encode(kind: str, dtype: str, kspace: np.ndarray, target: np.ndarray) -> Any:
    return encode_packed(kspace, target, dtype) if kind == "packed" else encode_lines(kspace, target, dtype, acs_lines=4)


def _write_hdf5(path: Path, kspace: np.ndarray, target: np.ndarray) -> list[dict[str, Any]]:
    with h5py.File(path, "w") as file:
        offsets = [file.create_dataset(name, data=data).id.get_offset() for name, data in (("kspace", kspace), ("rss", target))]
    return [
        {
            "kind": "raw",
            "uri": path.name,
            "offset": offsets[0] + i * kspace[i].nbytes,
            "nbytes": kspace[i].nbytes,
            "checksum": checksum(kspace[i].tobytes()),
            "target_uri": path.name,
            "target_offset": offsets[1] + i * target[i].nbytes,
            "target_nbytes": target[i].nbytes,
            "target_checksum": checksum(target[i].tobytes()),
        }
        for i in range(len(kspace))
    ]
