"""From rows to batches: slices of one matrix size together, coils padded with zeros."""

from collections.abc import Sequence

import numpy as np
import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SliceRow
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.slots import SlotPool
from echotrain.physics.masks import LineSampling

__all__ = ["empty_batch", "group_by_shape"]


def group_by_shape(rows: Sequence[SliceRow]) -> list[list[int]]:
    """Return the positions of rows that can share a batch, groups and members in order of appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault((row.height, row.width, row.recon_height, row.recon_width), []).append(position)
    return list(groups.values())


def empty_batch(
    rows: Sequence[SliceRow],
    samplings: Sequence[LineSampling],
    weights: Sequence[float],
    pool: SlotPool,
    *,
    seed: int = 0,
    epoch: int | None = None,
) -> Batch:
    """Return a batch that is complete but for the measured k-space and the targets, which are still to be filled in.

    Coils that a slice lacks are zero already.

    Args:
        rows: Of one matrix size.
        samplings: The mask of each.
        weights: 1 for a sample that counts, 0 for a filler.
        pool: Gives the memory.
        seed: The run's.
        epoch: Of training, None outside.
    """
    first, coils = rows[0], max(row.coils for row in rows)
    kspace = pool.empty((len(rows), coils, first.height, first.width), torch.complex64)
    for position, row in enumerate(rows):
        if row.coils < coils:
            kspace[position, row.coils :].zero_()
    # Built by NumPy, for the reason given in SlotPool.empty.
    masks = np.stack([sampling.mask for sampling in samplings])
    num_coils = np.array([row.coils for row in rows])
    num_low = np.array([sampling.num_low_frequencies for sampling in samplings], np.int64)
    ids = tuple(SampleId(row.dataset, row.volume, row.slice) for row in rows)
    return Batch(
        kspace=kspace,
        mask=torch.from_numpy(masks[:, None, None, :]),
        num_low_frequencies=torch.from_numpy(num_low),
        coil_mask=torch.from_numpy(np.arange(coils)[None, :] < num_coils[:, None]),
        target=pool.empty((len(rows), first.recon_height, first.recon_width), torch.float32),
        max_value=torch.from_numpy(np.array([row.max_value for row in rows], np.float32)),
        weight=torch.from_numpy(np.array(weights, np.float32)),
        ids=ids,
        anatomies=tuple(row.anatomy for row in rows),
        roots=tuple(sample.root(seed, epoch) for sample in ids),
    )
