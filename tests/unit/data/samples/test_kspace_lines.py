"""Batches: one matrix size each, coils padded with zeros that a mask tells apart."""

import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SliceRow
from echotrain.data.samples.kspace_lines import empty_batch, group_by_shape
from echotrain.data.samples.slots import SlotPool
from echotrain.physics.masks import MaskConfig, line_mask


def row(number: int, coils: int, width: int, recon: int = 8) -> SliceRow:
    return SliceRow(
        dataset="d", volume=f"v{number}", slice=number, num_slices=9, patient="p", coils=coils, height=10, width=width,
        recon_height=recon, recon_width=recon, padding_right=width, max_value=number / 2, kind="raw", uri="x", offset=0, nbytes=0,
    )  # fmt: skip


def test_rows_are_grouped_by_matrix_and_image_size_in_order_of_appearance() -> None:
    rows = [row(0, 4, 20), row(1, 8, 22), row(2, 6, 20), row(3, 4, 20, recon=6), row(4, 1, 22)]
    assert group_by_shape(rows) == [[0, 2], [1, 4], [3]]


def test_a_batch_says_everything_about_its_samples_but_the_measured_bytes() -> None:
    rows = [row(1, 2, 40), row(2, 5, 40)]
    config = MaskConfig(kind="random")
    samplings = [line_mask(config, 40, seed=0, dataset="d", volume=r.volume, epoch=0, padding_left=3, padding_right=38) for r in rows]
    pool = SlotPool()
    stale = pool.empty((2, 5, 10, 40), torch.complex64).fill_(7)
    del stale
    batch = empty_batch(rows, samplings, [1.0, 0.0], pool)
    assert batch.kspace.shape == (2, 5, 10, 40)
    assert batch.target.shape == (2, 8, 8)
    assert batch.coil_mask.tolist() == [[True, True, False, False, False], [True] * 5]
    assert not batch.kspace[0, 2:].any()
    assert batch.mask.shape == (2, 1, 1, 40)
    assert not batch.mask[..., :3].any()
    assert not batch.mask[..., 38:].any()
    for i, sampling in enumerate(samplings):
        assert batch.mask[i, 0, 0].tolist() == sampling.mask.tolist()
        assert batch.num_low_frequencies[i] == sampling.num_low_frequencies
    assert batch.max_value.tolist() == [0.5, 1.0]
    assert batch.weight.tolist() == [1.0, 0.0]
    assert batch.ids == (SampleId("d", "v1", 1), SampleId("d", "v2", 2))
