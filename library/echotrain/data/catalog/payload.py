"""What rows hold besides what they say: k-space, an image, or both."""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import IMAGE_ONLY
from echotrain.errors import CatalogError

__all__ = ["Payload", "check_payload"]

Payload = Literal["kspace", "image"]


def check_payload(table: pa.Table, indices: NDArray[np.int64], payload: Payload) -> None:
    """Refuse rows that lack what will be read of them: left out in silence, nobody would know what a run has learnt from.

    Args:
        table: Catalog rows.
        indices: The rows that were selected.
        payload: What will be read.

    Raises:
        CatalogError: A row lacks it; the first is named.
    """
    # Null says nothing of k-space, and no image is of no known length.
    lacks = pc.equal(table["kind"], IMAGE_ONLY) if payload == "kspace" else pc.equal(table["target_nbytes"], 0)
    lacking = indices[pc.fill_null(lacks, payload == "image").to_numpy(zero_copy_only=False)[indices]]
    if not len(lacking):
        return
    first = table.select(["dataset", "volume", "slice", "frame"]).take(pa.array(lacking[:1])).to_pylist()[0]
    what, remedy = {
        "kspace": ("images without k-space", "Choose rows with k-space (by dataset, say), or learn from images: data.kind=image."),
        "image": ("k-space without an image", "Choose other rows, or prepare fully sampled scans, which give a target."),
    }[payload]
    raise CatalogError(f"{SampleId(**first)} and {len(lacking) - 1} more of {len(indices)} selected slices", f"are {what}", remedy)
