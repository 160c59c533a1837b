"""Fetching: what arrives is what was written, in the order of the plan, in memory that is used again."""

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from echotrain.data.config import StreamConfig
from echotrain.data.fetch import Fetcher
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.sample_format import StepRows
from echotrain.data.samples.slots import SlotPool
from echotrain.errors import CatalogError, ObjectMissingError, PayloadError
from echotrain.physics.masks import MaskConfig
from tests.catalogs import Written, write_catalog

R4 = MaskConfig(kind="equispaced", accelerations=(4,), center_fractions=(0.2,))


def stream_of(folder: Path, **options) -> PlannedStream:
    data = LinesData(catalog=str(folder), mask=options.pop("mask", R4))
    return PlannedStream(data, **{"seed": 1, "batch_size": 2, "config": StreamConfig(threads=3), **options})


def check(written: Written, batch, tolerance: float = 0.0, *, is_masked: bool = False) -> None:
    for i, sample in enumerate(batch.ids):
        truth = written.kspace[sample.volume, sample.slice]
        coils = len(truth)
        assert batch.coil_mask[i].tolist() == [c < coils for c in range(batch.kspace.shape[1])]
        assert not batch.kspace[i, coils:].any()
        got = batch.kspace[i, :coils].numpy()
        factor = batch.mask[i, 0].numpy() if is_masked else 1
        np.testing.assert_allclose(got * factor, truth * factor, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(batch.target[i].numpy(), written.target[sample.volume, sample.slice])


@pytest.mark.parametrize("kind", ["raw", "packed"])
def test_whole_slices_arrive_bit_exact(tmp_path: Path, kind: str) -> None:
    written = write_catalog(tmp_path, kind=kind)
    for step in stream_of(tmp_path).steps(0):
        for batch in step.batches:
            check(written, batch)


@pytest.mark.parametrize(("kind", "is_masked"), [("packed", False), ("lines", True)])
def test_half_precision_arrives_as_complex64(tmp_path: Path, kind: str, is_masked: bool) -> None:
    written = write_catalog(tmp_path, kind=kind, dtype="float16")
    for step in stream_of(tmp_path).steps(0):
        assert step.batches[0].kspace.dtype == torch.complex64
        check(written, step.batches[0], 2e-3, is_masked=is_masked)


def test_lines_fetch_what_the_mask_acquires_and_equal_the_masked_slice(tmp_path: Path) -> None:
    shape = (6, 128, 160)
    written = write_catalog(tmp_path / "lines", kind="lines", shapes=(shape,))
    stream = stream_of(tmp_path / "lines", mask=MaskConfig(kind="equispaced", accelerations=(4,), center_fractions=(0.02,)))
    whole = 6 * 128 * 160 * 8
    for step in stream.steps(0):
        check(written, step.batches[0], is_masked=True)
        acquired = step.batches[0].mask.float().mean()
        assert step.num_bytes < len(step.batches[0].ids) * whole * 0.30
        zero = ~step.batches[0].mask[:, 0, 0]
        assert (step.batches[0].kspace.abs().sum((1, 2))[zero] == 0).float().mean() > 0.95
        assert 0.24 < acquired < 0.30


def test_lines_and_packed_give_the_same_samples_after_the_mask(tmp_path: Path) -> None:
    for kind in ("lines", "packed"):
        write_catalog(tmp_path / kind, kind=kind)
    for mask in (R4, MaskConfig(kind="random")):
        pair = [stream_of(tmp_path / kind, mask=mask) for kind in ("lines", "packed")]
        for one, two in zip(*(stream.steps(3) for stream in pair), strict=True):
            a, b = one.batches[0], two.batches[0]
            assert a.ids == b.ids
            torch.testing.assert_close(a.mask, b.mask, rtol=0, atol=0)
            torch.testing.assert_close(a.kspace * a.mask, b.kspace * b.mask, rtol=0, atol=0)


def test_matrix_sizes_make_batches_of_their_own_and_coils_are_padded(tmp_path: Path) -> None:
    written = write_catalog(tmp_path, shapes=((4, 24, 20), (7, 24, 20), (2, 24, 28)))
    steps = list(stream_of(tmp_path, batch_size=10).steps(0))
    assert [step.num_global_samples for step in steps] == [10, 8]
    for step in steps:
        assert {tuple(batch.kspace.shape[1:]) for batch in step.batches} == {(7, 24, 20), (2, 24, 28)}
        assert sum(len(batch.ids) for batch in step.batches) == step.num_global_samples
        for batch in step.batches:
            check(written, batch)


def test_steps_are_the_same_every_time_and_resume_in_the_middle(tmp_path: Path) -> None:
    write_catalog(tmp_path)
    whole = [step.batches[0] for step in stream_of(tmp_path, config=StreamConfig(threads=5)).steps(2)]
    again = [step.batches[0] for step in stream_of(tmp_path, config=StreamConfig(threads=1, prefetch_steps=1)).steps(2, first_step=4)]
    assert [batch.ids for batch in whole[4:]] == [batch.ids for batch in again]
    for a, b in zip(whole[4:], again, strict=True):
        torch.testing.assert_close(a.kspace * a.mask, b.kspace * b.mask, rtol=0, atol=0)
        torch.testing.assert_close(a.mask, b.mask)


def test_masks_change_from_epoch_to_epoch_but_not_in_evaluation(tmp_path: Path) -> None:
    write_catalog(tmp_path, splits=("train", "val"), shapes=((4, 24, 200),))
    mask = MaskConfig(kind="random")

    def masks(batches) -> dict:
        return {sample: batch.mask[i].tolist() for batch in batches for i, sample in enumerate(batch.ids)}

    train = [masks(step.batches[0] for step in stream_of(tmp_path, mask=mask).steps(epoch)) for epoch in (0, 1)]
    assert all(train[0][sample] != train[1][sample] for sample in train[0])
    val = masks(stream_of(tmp_path, mask=mask).evaluation())
    assert val == masks(stream_of(tmp_path, mask=mask, seed=99).evaluation())
    assert len({str(lines) for sample, lines in val.items() if sample.volume == "file001"}) == 1


def test_what_is_drawn_for_a_slice_changes_with_run_and_epoch_but_not_in_evaluation(tmp_path: Path) -> None:
    write_catalog(tmp_path, splits=("train", "val"))

    def draws(batches) -> dict:
        return {
            sample: (torch.rand((), generator=one).item(), torch.rand((), generator=other).item())
            for batch in batches
            for sample, one, other in zip(batch.ids, batch.generators("noise"), batch.generators("time"), strict=True)
        }

    def training(epoch: int, **options) -> dict:
        return draws(batch for step in stream_of(tmp_path, **options).steps(epoch) for batch in step.batches)

    first = training(0)
    assert first == training(0, batch_size=3)
    drawn = [value for found in (first, training(1), training(0, seed=99)) for pair in found.values() for value in pair]
    assert len(set(drawn)) == len(drawn) == 6 * len(first)
    evaluated = draws(stream_of(tmp_path).evaluation())
    assert evaluated == draws(stream_of(tmp_path, seed=99).evaluation())
    assert len(set(evaluated.values())) == len(evaluated)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_every_slice_exactly_once(tmp_path: Path, world_size: int) -> None:
    write_catalog(tmp_path, splits=("train", "val"), volumes=5)
    trained, evaluated, fillers = [], [], 0
    for rank in range(world_size):
        stream = stream_of(tmp_path, batch_size=3, rank=rank, world_size=world_size)
        steps = list(stream.steps(0))
        assert len(steps) == stream.num_steps(0) == 3
        for step in steps:
            for batch in step.batches:
                trained += [sample for sample, weight in zip(batch.ids, batch.weight, strict=True) if weight]
                fillers += int((batch.weight == 0).sum())
        for batch in stream.evaluation():
            evaluated += list(batch.ids)
            assert batch.weight.all()
    assert len(trained) == len(set(trained)) == 9
    assert fillers == (3 if world_size == 4 else 0)
    assert len(evaluated) == len(set(evaluated)) == 6


def test_slots_are_used_again_once_nothing_looks_into_them() -> None:
    pool = SlotPool()
    for _ in range(20):
        tensor = pool.empty((3, 100, 1000), torch.complex64)
        view = tensor[1:].real
        del tensor
        view.fill_(1)
        del view
        gc.collect()
    assert pool.num_allocated == 1
    kept = [pool.empty((3, 100, 1000), torch.complex64) for _ in range(3)]
    assert pool.num_allocated == 3
    assert len({tensor.data_ptr() for tensor in kept}) == 3


def test_idle_slots_are_kept_only_up_to_their_bound() -> None:
    one = 3 * 100 * 1000 * 8
    pool = SlotPool(max_idle_bytes=int(2.5 * one))
    for number in range(1, 4):
        kept = [pool.empty((3, 100, 1000), torch.complex64) for _ in range(5)]
        kept.clear()
        gc.collect()
        # Of five, two are left for the next round.
        assert pool.num_allocated == 5 + 3 * (number - 1)


def test_a_stream_uses_few_slots_for_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_catalog(tmp_path, volumes=40)
    pools = []
    monkeypatch.setattr("echotrain.data.fetch.SlotPool", lambda **options: pools.append(SlotPool(**options)) or pools[-1])
    stream = stream_of(tmp_path, config=StreamConfig(threads=2, prefetch_steps=2))
    for step in stream.steps(0):
        del step
    assert stream.num_steps(0) == 60
    assert [pool.num_allocated <= 12 for pool in pools] == [True]


def test_prefetch_is_bounded_by_bytes(tmp_path: Path) -> None:
    written = write_catalog(tmp_path)
    taken = []

    def steps() -> Iterator[StepRows]:
        for row in written.catalog.rows():
            taken.append(row)
            yield StepRows([row], [1.0], 1)

    one = (4 * 24 * 20 * 8 + 16 * 12 * 4) / 1e6
    fetcher = Fetcher(written.catalog, LinesData(mask=R4).make_format(seed=0), config=StreamConfig(threads=2, prefetch_mb=2.5 * one))
    fetched = fetcher.fetch(steps(), epoch=0)
    next(fetched)
    assert len(taken) == 3  # two under way, and the one that had no room
    assert len(list(fetched)) == 17
    fetcher.close()


def test_a_flipped_bit_is_found_and_named(tmp_path: Path) -> None:
    written = write_catalog(tmp_path, kind="packed", max_shard_bytes=1 << 30)
    row = written.catalog.rows()[4]
    shard = tmp_path / row.uri
    data = bytearray(shard.read_bytes())
    data[row.offset + 777] ^= 4
    shard.write_bytes(data)
    with pytest.raises(PayloadError, match=rf"{row.uri} at byte {row.offset}: .*checksum"):
        list(stream_of(tmp_path).steps(0))


@pytest.mark.parametrize("block", ["head", "acs", "group", "target"])
def test_a_flipped_bit_in_any_block_of_lines_is_found(tmp_path: Path, block: str) -> None:
    written = write_catalog(tmp_path, kind="lines", dtype="float16", max_shard_bytes=1 << 30)
    row = written.catalog.rows()[4]
    at = {"head": row.offset, "acs": row.offset + 200, "group": row.offset + row.nbytes - 1, "target": row.target_offset + 5}[block]
    shard = tmp_path / row.uri
    data = bytearray(shard.read_bytes())
    data[at] ^= 1
    shard.write_bytes(data)
    with pytest.raises(PayloadError, match="checksum"):
        list(stream_of(tmp_path, mask=MaskConfig(kind="random")).steps(0))


def test_a_truncated_shard_and_a_vanished_one_are_named(tmp_path: Path) -> None:
    written = write_catalog(tmp_path, max_shard_bytes=1 << 30)
    row = written.catalog.rows()[-1]
    shard = tmp_path / row.uri
    shard.write_bytes(shard.read_bytes()[:-2000])
    with pytest.raises(PayloadError, match="ends before"):
        list(stream_of(tmp_path).steps(0))
    shard.unlink()
    with pytest.raises(ObjectMissingError, match=row.uri):
        list(stream_of(tmp_path).steps(0))


def test_a_row_without_a_target_is_refused(tmp_path: Path) -> None:
    written = write_catalog(tmp_path)
    table = written.catalog.table
    column = table.schema.get_field_index("target_nbytes")
    stream = PlannedStream(
        LinesData(catalog=str(tmp_path), mask=R4),
        seed=0,
        batch_size=1,
        catalog=type(written.catalog)(table.set_column(column, "target_nbytes", [[0] * table.num_rows]).cast(table.schema), str(tmp_path)),
    )
    with pytest.raises(CatalogError, match="target_nbytes=0"):
        next(stream.steps(0))


def test_an_abandoned_epoch_leaves_the_stream_usable(tmp_path: Path) -> None:
    written = write_catalog(tmp_path)
    stream = stream_of(tmp_path)
    steps = stream.steps(0)
    next(steps)
    steps.close()
    for step in stream.steps(1):
        check(written, step.batches[0])
    stream.close()


def test_the_next_epochs_rows_are_ready_but_none_of_its_payload_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_catalog(tmp_path)
    stream = stream_of(tmp_path)
    read = []
    fetch = SliceReader.read
    monkeypatch.setattr(SliceReader, "read", lambda self, row, *rest: read.append(row) or fetch(self, row, *rest))
    ids = [[step.batches[0].ids for step in stream.steps(epoch)] for epoch in (0, 1)]
    assert len(read) == 2 * len(written.kspace)
    fresh = [step.batches[0].ids for step in stream_of(tmp_path).steps(1)]
    assert ids[1] == fresh != ids[0]
    later = [step.batches[0].ids for step in stream.steps(5, first_step=3)]
    assert later == [step.batches[0].ids for step in stream_of(tmp_path).steps(5)][3:]
    stream.close()
