"""Small catalogs of slices that were measured at several times, with the truth beside them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SCHEMA, Catalog, SliceRow
from echotrain.data.catalog.store import commit_catalog
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import encode_lines, encode_packed
from echotrain.storage.open import open_store


@dataclass
class WrittenFrames:
    """A committed catalog and what its frames hold."""

    catalog: Catalog
    kspace: dict[SampleId, np.ndarray] = field(default_factory=dict)
    target: dict[SampleId, np.ndarray] = field(default_factory=dict)

    @property
    def frame_nbytes(self) -> int:
        """Bytes of one frame's k-space and target, where all are alike."""
        (row, *_) = self.catalog.rows()
        return row.nbytes + row.target_nbytes


def write_frames(
    folder: Path,
    *,
    kind: str = "packed",
    shapes: tuple[tuple[int, int, int], ...] = ((3, 20, 24),),
    volumes: int = 4,
    slices: int = 2,
    frames: tuple[int, ...] = (6,),
    splits: tuple[str, ...] = ("train",),
    shuffled: bool = False,
) -> WrittenFrames:
    """Write volumes whose slices have frames, of the shapes (coil, ky, kx) and numbers of frames in turn; 0 frames: measured once.

    Args:
        folder: The catalog's.
        kind: Of the payload.
        shapes: In turn over volumes.
        volumes: How many.
        slices: Of each.
        frames: In turn over volumes.
        splits: In turn over volumes.
        shuffled: Have the catalog's rows in no order.
    """
    rng = np.random.default_rng(5)
    written = WrittenFrames(Catalog(SCHEMA.empty_table()))
    rows: list[SliceRow] = []
    store = open_store(str(folder))
    with ShardWriter(store, "shards/test", max_bytes=200_000) as shards:
        for number in range(volumes):
            shape, num_frames = shapes[number % len(shapes)], frames[number % len(frames)]
            for index, frame in np.ndindex(slices, max(num_frames, 1)):
                sample = SampleId("cine", f"P{number:03d}", index, frame if num_frames else None)
                kspace = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
                target = rng.random((16, 12), np.float32)
                encoded = encode_packed(kspace, target) if kind == "packed" else encode_lines(kspace, target, "complex64", acs_lines=4)
                written.kspace[sample], written.target[sample] = kspace, target
                rows.append(
                    SliceRow(
                        **sample._asdict(),
                        num_slices=slices,
                        num_frames=num_frames or None,
                        patient=f"p{number}",
                        split=splits[number % len(splits)],
                        anatomy="heart",
                        coils=shape[0],
                        height=shape[1],
                        width=shape[2],
                        recon_height=16,
                        recon_width=12,
                        padding_right=shape[2],
                        max_value=1.0 + number,
                        **shards.add(encoded),
                    )
                )
    if shuffled:
        rng.shuffle(rows)
    written.catalog = commit_catalog(store, Catalog.from_rows(rows).table, {"made_by": "tests"})
    return written
