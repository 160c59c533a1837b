"""Small catalogs of slices that were measured at several times, with the truth beside them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SCHEMA, Catalog, SliceRow
from echotrain.data.catalog.store import commit_catalog
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import encode_lines, encode_packed
from echotrain.storage.open import open_store

Shape = tuple[int, int, int]
Draw = Callable[[SampleId, Shape, np.random.Generator], tuple[np.ndarray, np.ndarray]]


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


def noise(sample: SampleId, shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return what is like nothing else."""
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64), rng.random((16, 12), np.float32)


def moving_disc(sample: SampleId, shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright disc that goes round on a dimmer one, once in six frames, seen by smooth coils."""
    coils, height, width = shape
    y, x = (np.arange(n) / n - 0.5 for n in (height, width))
    y, x = y[:, None], x[None, :]
    angle = 2 * np.pi * ((sample.frame or 0) / 6 + int(sample.volume[1:]) / 5)
    image = 0.5 * (np.hypot(y, x) < 0.4) + 1.0 * (np.hypot(y - 0.2 * np.sin(angle), x - 0.2 * np.cos(angle)) < 0.12)
    turns = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(-((y - 0.5 * np.sin(turn)) ** 2) - (x - 0.5 * np.cos(turn)) ** 2 + 1j * turn * x) for turn in turns])
    images = (image * maps).astype(np.complex64)
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes).astype(np.complex64)
    return kspace, np.sqrt((np.abs(images) ** 2).sum(0)).astype(np.float32)


def write_frames(
    folder: Path,
    *,
    kind: str = "packed",
    shapes: tuple[Shape, ...] = ((3, 20, 24),),
    volumes: int = 4,
    slices: int = 2,
    frames: tuple[int, ...] = (6,),
    splits: tuple[str, ...] = ("train",),
    shuffled: bool = False,
    draw: Draw = noise,
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
        draw: Gives the k-space and the target of each frame.
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
                kspace, target = draw(sample, shape, rng)
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
                        recon_height=target.shape[0],
                        recon_width=target.shape[1],
                        padding_right=shape[2],
                        max_value=1.0 + number,
                        **shards.add(encoded),
                    )
                )
    if shuffled:
        rng.shuffle(rows)
    written.catalog = commit_catalog(store, Catalog.from_rows(rows).table, {"made_by": "tests"})
    return written
