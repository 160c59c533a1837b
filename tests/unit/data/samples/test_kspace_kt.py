"""Windows of frames: what arrives is what a reader of single frames would bring, and each frame is read once."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

from echotrain.config import from_dict, override, to_dict
from echotrain.data.config import StreamConfig
from echotrain.data.fetch import Fetcher
from echotrain.data.plan.consecutive import num_lanes
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_kt import KtData, window
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.sample_format import StepRows
from echotrain.errors import CatalogError, ConfigError, PayloadError
from echotrain.physics.kt_masks import KtMaskConfig, kt_mask
from tests.frame_catalogs import write_frames

MASK = KtMaskConfig(kinds=("uniform", "kt_gaussian", "kt_radial"), accelerations=(4, 8), acs_lines=4, random_start=True)
LINES = dataclasses.replace(MASK, kinds=("kt_uniform", "kt_gaussian"))
SHAPES = ((3, 20, 24), (5, 20, 24), (2, 21, 17))


def stream_of(written, *, batch_size=4, rank=0, world_size=1, seed=1, threads=3, **data):
    settings = KtData(catalog=written.catalog.root, **{"mask": MASK, "num_adjacent": 5, **data})
    options = {"seed": seed, "batch_size": batch_size, "rank": rank, "world_size": world_size}
    return PlannedStream(settings, **options, config=StreamConfig(threads=threads), catalog=written.catalog)


def frames_of(written, sample):
    """Return the samples of all frames of a sample's slice, in order."""
    return sorted((each for each in written.kspace if each[:3] == sample[:3]), key=lambda each: each.frame or 0)


def naive(written, sample, data, *, seed, epoch):
    """Return a sample's windowed k-space, masked, and its masks, each frame taken on its own."""
    frames = frames_of(written, sample)
    shape = written.kspace[sample].shape
    own = {"dataset": sample.dataset, "volume": sample.volume, "slice": None if epoch is None else sample.slice}
    masks = kt_mask(data.mask, (len(frames), *shape[1:]), seed=seed, epoch=epoch, **own).mask
    seen = window(sample.frame or 0, len(frames), data.num_adjacent, data.edges)
    return np.stack([written.kspace[frames[frame]] * masks[frame] for frame in seen]), np.stack([masks[frame] for frame in seen])


def check_batch(written, batch, data, *, seed=1, epoch=0):
    """Assert that a batch is what a reader of single frames makes of its rows."""
    kspace, mask, calibration, coil_mask = (each if data.num_adjacent > 1 else each[:, None] for each in batch.network_input())
    acquired = batch.acquired()
    for i, sample in enumerate(batch.ids):
        expected, masks = naive(written, sample, data, seed=seed, epoch=epoch)
        coils = expected.shape[1]
        np.testing.assert_array_equal(kspace[i, :, :coils].numpy(), expected)
        assert not kspace[i, :, coils:].any()
        np.testing.assert_array_equal(mask[i, :, 0].numpy(), masks)
        np.testing.assert_array_equal(acquired[i, :coils].numpy(), expected[data.num_adjacent // 2])
        assert coil_mask[i].tolist() == [[coil < coils for coil in range(kspace.shape[2])]] * data.num_adjacent
        assert (calibration[i] == 4).all()
        assert calibration[i].shape == ((data.num_adjacent,) if masks.shape[1] == 1 else (data.num_adjacent, 2))
        np.testing.assert_array_equal(batch.target[i].numpy(), written.target[sample])
        assert batch.max_value[i] == 1.0 + int(sample.volume[1:])
    assert len({kspace_of.tobytes() for kspace_of in batch.kspace.numpy()}) == len(batch.kspace)


@pytest.mark.parametrize(
    ("frame", "edges", "expected"),
    [
        (0, "clamp", [0, 0, 0, 1, 2]),
        (3, "clamp", [1, 2, 3, 4, 5]),
        (5, "clamp", [3, 4, 5, 5, 5]),
        (0, "circular", [4, 5, 0, 1, 2]),
        (5, "circular", [3, 4, 5, 0, 1]),
    ],
)
def test_a_window_repeats_the_last_frame_or_goes_round(frame, edges, expected):
    assert window(frame, 6, 5, edges) == expected


@pytest.mark.parametrize("edges", ["clamp", "circular"])
def test_windows_longer_than_a_slice_has_frames_are_filled(edges):
    assert window(0, 1, 5, edges) == [0, 0, 0, 0, 0]
    assert window(1, 2, 7, edges) == ([0, 0, 0, 1, 1, 1, 1] if edges == "clamp" else [0, 1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize("edges", ["clamp", "circular"])
@pytest.mark.parametrize("num_adjacent", [1, 3, 5])
@pytest.mark.parametrize("consecutive", [True, False])
def test_batches_are_what_a_reader_of_single_frames_makes(tmp_path, edges, num_adjacent, consecutive):
    written = write_frames(tmp_path, shapes=SHAPES, frames=(6, 0, 4, 1), volumes=5, shuffled=True)
    data = KtData(mask=MASK, num_adjacent=num_adjacent, edges=edges)
    stream = stream_of(written, num_adjacent=num_adjacent, edges=edges, consecutive=consecutive)
    steps = list(stream.steps(0))
    assert sum(step.num_global_samples for step in steps) == len(written.kspace)
    for step in steps:
        for batch in step.batches:
            check_batch(written, batch, data)
    seen = [sample for step in steps for batch in step.batches for sample in batch.ids]
    assert sorted(seen, key=str) == sorted(written.kspace, key=str)
    stream.close()


@pytest.mark.parametrize("num_adjacent", [1, 3])
def test_a_part_of_a_batch_holds_its_samples_windows_and_no_frame_more(tmp_path, num_adjacent):
    written = write_frames(tmp_path, shapes=SHAPES)
    stream = stream_of(written, batch_size=6, num_adjacent=num_adjacent)
    batches = [batch for step in stream.steps(0) for batch in step.batches]
    stream.close()
    assert max(len(batch.ids) for batch in batches) > 2
    for batch in batches:
        parts = [batch.part(start, min(start + 2, len(batch.ids))) for start in range(0, len(batch.ids), 2)]
        for whole, cut in zip(batch.network_input(), zip(*(part.network_input() for part in parts), strict=True), strict=True):
            assert torch.equal(whole, torch.cat(cut))
        assert torch.equal(batch.acquired(), torch.cat([part.acquired() for part in parts]))
        for name in ("ids", "roots", "anatomies"):
            assert getattr(batch, name) == sum((getattr(part, name) for part in parts), ())
        for name in ("target", "max_value", "weight"):
            assert torch.equal(getattr(batch, name), torch.cat([getattr(part, name) for part in parts]))
        assert all(len(part.kspace) == len(part.windows.unique()) for part in parts)


def test_masks_of_lines_and_of_points_do_not_share_a_batch(tmp_path):
    written = write_frames(tmp_path, volumes=8)
    steps = list(stream_of(written, batch_size=16).steps(0))
    for batch in (batch for step in steps for batch in step.batches):
        assert batch.mask.shape[2] in (1, 20)
    assert {batch.mask.shape[2] for step in steps for batch in step.batches} == {1, 20}
    assert max(len(step.batches) for step in steps) == 2


def test_payload_of_lines_gives_the_same_samples_after_the_mask_in_every_epoch(tmp_path):
    pair = [write_frames(tmp_path / kind, kind=kind, shapes=((3, 20, 24),)) for kind in ("lines", "packed")]
    for written, seed in zip(pair, (1, 1), strict=True):
        stream = stream_of(written, mask=LINES, batch_size=3, seed=seed)
        for epoch in (0, 1):
            for step in stream.steps(epoch):
                for batch in step.batches:
                    kspace, *_ = batch.network_input()
                    for i, sample in enumerate(batch.ids):
                        data = KtData(mask=LINES, num_adjacent=5)
                        np.testing.assert_array_equal(kspace[i].numpy(), naive(written, sample, data, seed=1, epoch=epoch)[0])
        for batch in stream.evaluation("train"):
            kspace, *_ = batch.network_input()
            for i, sample in enumerate(batch.ids):
                np.testing.assert_array_equal(kspace[i].numpy(), naive(written, sample, data, seed=1, epoch=None)[0])
        stream.close()


def reads_of(monkeypatch):
    """Return a list to which every read of a frame adds its row."""
    read, fetch, lock = [], SliceReader.read, threading.Lock()

    def counted(self, row, *rest):
        with lock:
            read.append(row.id)
        return fetch(self, row, *rest)

    monkeypatch.setattr(SliceReader, "read", counted)
    return read


def touched(written, samples, data):
    """Return the frames that some samples look at."""
    return {
        frames_of(written, sample)[frame]
        for sample in samples
        for frame in window(sample.frame or 0, len(frames_of(written, sample)), data.num_adjacent, data.edges)
    }


def run_epoch(written, monkeypatch, *, world_size=1, first_step=0, batch_size=4, **data):
    """Return, of each rank, the bytes that it fetched in an epoch, its samples, and the frames that it read."""
    told = []
    for rank in range(world_size):
        with monkeypatch.context() as patch:
            read = reads_of(patch)
            stream = stream_of(written, rank=rank, world_size=world_size, batch_size=batch_size, threads=5, **data)
            steps = list(stream.steps(0, first_step))
            stream.close()
        samples = [sample for step in steps for batch in step.batches for sample in batch.ids]
        told.append((sum(step.num_bytes for step in steps), samples, list(read)))
    return told


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return a catalog of 68 slices of 8 and 7 frames, enough for four lanes, which end within slices."""
    return write_frames(tmp_path_factory.mktemp("many"), shapes=((2, 10, 12),), volumes=17, slices=4, frames=(8, 7))


MANY = {"mask": KtMaskConfig(kinds=("kt_uniform",), accelerations=(4,), acs_lines=4)}


@pytest.mark.parametrize("edges", ["clamp", "circular"])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 4), (3, 4), (2, 8)])
def test_an_epoch_fetches_hardly_more_than_the_frames_that_it_touches(many, monkeypatch, world_size, batch_size, edges):
    """Ranks read their own lanes' frames; only where a lane ends within a slice are frames read twice."""
    assert num_lanes(68, batch_size) == 4
    told = run_epoch(many, monkeypatch, world_size=world_size, batch_size=batch_size, edges=edges, **MANY)
    assert sorted((sample for _, samples, _ in told for sample in samples), key=str) == sorted(many.kspace, key=str)
    total = sum(num_bytes for num_bytes, _, _ in told)
    assert total == sum(len(read) for _, _, read in told) * many.frame_nbytes
    assert total <= 1.05 * len(many.kspace) * many.frame_nbytes
    for _, samples, read in told:
        assert set(read) == touched(many, samples, KtData(num_adjacent=5, edges=edges))


@pytest.mark.parametrize("edges", ["clamp", "circular"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_resume_in_the_middle_of_slices_fetches_what_is_left_and_gives_the_same_samples(many, monkeypatch, world_size, edges):
    whole = run_epoch(many, monkeypatch, world_size=world_size, edges=edges, **MANY)
    rest = run_epoch(many, monkeypatch, world_size=world_size, edges=edges, first_step=61, **MANY)
    per_rank = 4 // world_size
    for (_, before, _), (num_bytes, samples, read) in zip(whole, rest, strict=True):
        assert samples == before[61 * per_rank :]
        wanted = touched(many, samples, KtData(num_adjacent=5, edges=edges))
        assert set(read) == wanted
        assert num_bytes <= 1.05 * len(wanted) * many.frame_nbytes


def test_without_consecutive_frames_windows_are_read_whole(many, monkeypatch):
    ((num_bytes, samples, _),) = run_epoch(many, monkeypatch, consecutive=False, **MANY)
    assert len(samples) == len(many.kspace)
    assert num_bytes > 3 * len(many.kspace) * many.frame_nbytes


def test_a_resumed_stream_gives_the_batches_of_the_whole_one(many):
    whole = [step.batches for step in stream_of(many, threads=5, **MANY).steps(3)]
    rest = [step.batches for step in stream_of(many, threads=1, **MANY).steps(3, first_step=77)]
    assert len(rest) == len(whole) - 77
    for one, other in zip(whole[77:], rest, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.ids == b.ids
            assert a.roots == b.roots
            for mine, theirs in zip(a.network_input(), b.network_input(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
            torch.testing.assert_close(a.target, b.target, rtol=0, atol=0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_takes_each_frame_once_over_all_ranks_and_reads_it_once(many, monkeypatch, world_size):
    seen, read = [], reads_of(monkeypatch)
    for rank in range(world_size):
        stream = stream_of(many, rank=rank, world_size=world_size, **MANY)
        for batch in stream.evaluation("train"):
            seen += batch.ids
            check_batch(many, batch, KtData(num_adjacent=5, **MANY), epoch=None)
        stream.close()
    assert sorted(seen, key=str) == sorted(many.kspace, key=str)
    assert len(read) <= len(many.kspace) + 4 * (world_size - 1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_every_frame_once_and_the_same_step_has_the_same_samples(tmp_path, world_size):
    written = write_frames(tmp_path, volumes=5, frames=(6, 5))
    alone = [set(batch.ids) for step in stream_of(written).steps(0) for batch in [_joined(step)]]
    shared = [set() for _ in alone]
    for rank in range(world_size):
        for number, step in enumerate(stream_of(written, rank=rank, world_size=world_size).steps(0)):
            for batch in step.batches:
                shared[number] |= {sample for sample, weight in zip(batch.ids, batch.weight, strict=True) if weight}
    assert shared == alone


def _joined(step):
    return dataclasses.make_dataclass("Joined", ["ids"])([sample for batch in step.batches for sample in batch.ids])


def test_a_sample_that_comes_twice_in_a_step_and_a_filler_share_frames(tmp_path, monkeypatch):
    written = write_frames(tmp_path, volumes=1, slices=1)
    rows = written.catalog.rows()
    read = reads_of(monkeypatch)
    fetcher = Fetcher(written.catalog, KtData(mask=LINES, num_adjacent=3).make_format(seed=1), config=StreamConfig(threads=4))
    (step,) = fetcher.fetch([StepRows([rows[2], rows[2], rows[3]], [1.0, 0.0, 1.0], 2)], epoch=0)
    fetcher.close()
    (batch,) = step.batches
    assert batch.windows.tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3]]
    assert batch.weight.tolist() == [1, 0, 1]
    assert sorted(frame.frame for frame in read) == [1, 2, 3, 4]
    check_batch(written, batch, KtData(mask=LINES, num_adjacent=3))


@pytest.mark.parametrize(("edges", "most"), [("clamp", 5), ("circular", 9)])
def test_the_store_holds_a_window_of_each_sample_at_most_and_going_round_both_ends_as_well(many, edges, most):
    formats = []
    data = KtData(catalog=many.catalog.root, num_adjacent=5, edges=edges, **MANY)
    make = data.make_format(seed=1)
    fetcher = Fetcher(many.catalog, lambda reading: formats.append(make(reading)) or formats[-1])
    stream = stream_of(many, edges=edges, **MANY)
    held = []
    for step in stream._epoch_rows(0, 0):
        formats[0].begin(step, epoch=0)
        held.append(len(formats[0]._store._frames))
    assert max(held) <= most * 4
    assert np.mean(held) > 4 * 4
    fetcher.close()
    stream.close()


def test_a_flipped_bit_is_found_by_every_sample_that_looks_at_the_frame_and_the_next_try_reads_again(tmp_path):
    written = write_frames(tmp_path, volumes=1, slices=1)
    row = written.catalog.rows()[3]
    shard = tmp_path / row.uri
    sound = shard.read_bytes()
    broken = bytearray(sound)
    broken[row.offset + 77] ^= 4
    shard.write_bytes(broken)
    stream = stream_of(written, batch_size=1, threads=4)
    for _ in range(2):
        with pytest.raises(PayloadError, match="checksum"):
            list(stream.steps(0))
    shard.write_bytes(sound)
    for step in stream.steps(0):
        for batch in step.batches:
            check_batch(written, batch, KtData(mask=MASK, num_adjacent=5))
    stream.close()


def test_an_abandoned_epoch_leaves_the_stream_usable(many):
    stream = stream_of(many, threads=2, **MANY)
    for epoch in range(3):
        steps = stream.steps(epoch)
        next(steps)
        steps.close()
    for number, step in enumerate(stream.steps(0)):
        for batch in step.batches:
            check_batch(many, batch, KtData(num_adjacent=5, **MANY))
        if number > 5:
            break
    stream.close()


def test_prefetch_counts_the_frames_that_it_holds(many):
    one = many.frame_nbytes
    data = KtData(num_adjacent=5, **MANY)
    rows, taken = many.catalog.rows(), []

    def steps():
        for row in rows:
            taken.append(row)
            yield StepRows([row], [1.0], 1)

    config = StreamConfig(threads=2, prefetch_mb=26 * one / 1e6)
    fetcher = Fetcher(many.catalog, data.make_format(seed=1), config=config)
    fetched = fetcher.fetch(steps(), epoch=0)
    next(fetched)
    # Six frames each: the fifth would be over, and is taken but waits.
    assert 4 <= len(taken) <= 6
    fetched.close()
    fetcher.close()


def test_a_missing_frame_is_an_error_before_a_run_and_where_it_is_looked_at(tmp_path):
    written = write_frames(tmp_path, volumes=3, slices=1)
    table = written.catalog.table.filter([(row.volume, row.frame) != ("P001", 5) for row in written.catalog.rows()])
    cut = dataclasses.replace(written, catalog=dataclasses.replace(written.catalog, table=table))
    message = r"cine/P001\[0\]: lacks frame 5 of the 6 that num_frames says"
    with pytest.raises(CatalogError, match=message):
        KtData(mask=MASK).check(table)
    with pytest.raises(CatalogError, match=message):
        list(stream_of(cut).steps(0))


def test_a_subset_of_frames_looks_at_those_that_it_lacks(tmp_path):
    written = write_frames(tmp_path, volumes=1, slices=1)
    data = KtData(mask=LINES, num_adjacent=3, subset="few")
    assert data.check(written.catalog.table.slice(2, 2)) == []
    with pytest.raises(CatalogError, match="lacks frame 0, 1, 4, 5"):
        dataclasses.replace(data, subset="").check(written.catalog.table.slice(2, 2))


def test_a_payload_of_lines_refuses_spokes_by_name_at_the_start_and_where_it_is_read(tmp_path):
    written = write_frames(tmp_path, kind="lines", volumes=1)
    message = r"payload 'lines', which cannot serve kt_radial"
    with pytest.raises(CatalogError, match=rf"cine/P000: lies in the {message}"):
        KtData(mask=MASK).check(written.catalog.table)
    assert KtData(mask=LINES).check(written.catalog.table) == []
    with pytest.raises(CatalogError, match=message):
        list(stream_of(written, mask=dataclasses.replace(MASK, kinds=("kt_radial",))).steps(0))


def test_a_mask_that_does_not_fit_some_matrix_is_refused_at_the_start(tmp_path):
    written = write_frames(tmp_path, shapes=SHAPES, volumes=3)
    with pytest.raises(ConfigError, match="acs_lines=18: is more than a matrix of 21x17"):
        KtData(mask=dataclasses.replace(LINES, kinds=("kt_uniform",), acs_lines=18)).check(written.catalog.table)


@pytest.mark.parametrize("value", [0, 4])
def test_a_window_without_a_centre_is_refused(value):
    with pytest.raises(ConfigError, match=f"data.num_adjacent={value}"):
        KtData(num_adjacent=value)


def test_settings_survive_as_plain_values_and_are_set_by_name():
    data = KtData(mask=MASK, num_adjacent=5, edges="circular")
    assert from_dict(KtData, to_dict(data)) == data
    changed = override(KtData(), ["mask.kinds=[kt_radial, uniform]", "mask.accelerations=[4, 24]", "edges=circular", "num_adjacent=3"])
    assert changed.mask.kinds == ("kt_radial", "uniform")
    assert changed.mask.accelerations == (4, 24)
    assert data.acceleration(next(iter(_rows()))) in (4, 8)


def _rows():
    from echotrain.data.catalog.rows import SliceRow

    common = {"patient": "p", "kind": "packed", "uri": "u", "offset": 0, "nbytes": 0, "num_slices": 1, "coils": 1, "padding_right": 40}
    yield SliceRow(dataset="d", volume="v", slice=0, frame=0, num_frames=2, height=30, width=40, recon_height=9, recon_width=9, **common)
