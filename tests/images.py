"""Catalogs whose rows have images alone, or both, and the truth beside them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from echotrain.data.catalog.rows import Catalog, SliceRow
from echotrain.data.catalog.store import commit_catalog
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import encode_image
from echotrain.storage.open import open_store


def write_images(folder: Path, volumes: Sequence[np.ndarray], *, splits: Sequence[str] = ("train",)) -> Catalog:
    """Write volumes (slice, y, x), each of a patient of its own, in the splits in turn; return the committed catalog."""
    rows, store = [], open_store(str(folder))
    with ShardWriter(store, "shards/images", max_bytes=20_000) as shards:
        for number, volume in enumerate(volumes):
            shape = dict(zip(("height", "width"), volume.shape[1:], strict=True))
            rows += [
                SliceRow(
                    dataset="images",
                    volume=f"volume{number}",
                    slice=index,
                    num_slices=len(volume),
                    patient=f"p{number}",
                    split=splits[number % len(splits)],
                    anatomy=("brain", "knee")[number % 2],
                    coils=0,
                    padding_right=volume.shape[2],
                    max_value=float(volume.max()),
                    **shape,
                    **{f"recon_{name}": size for name, size in shape.items()},
                    **shards.add(encode_image(image)),
                )
                for index, image in enumerate(volume)
            ]
    return commit_catalog(store, Catalog.from_rows(rows).table, {"made_by": "tests"})


def random_volumes(*shapes: tuple[int, int, int], seed: int = 0) -> list[np.ndarray]:
    """Return volumes of noise above a slope, none of whose slices has the range of another."""
    rng = np.random.default_rng(seed)
    return [(rng.random(shape) * rng.uniform(1, 9) + np.arange(shape[0])[:, None, None]).astype(np.float32) for shape in shapes]
