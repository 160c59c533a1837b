"""A catalog in other people's loops: every sample once, in no epoch the last one's order, wherever it is resumed."""

import collections
import dataclasses
import gc
import itertools
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from echotrain.data.catalog.leaks import Leaks
from echotrain.data.catalog.rows import Catalog
from echotrain.data.config import StreamConfig
from echotrain.data.plan.balance import BalanceConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.image import ImageData
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.torch_dataset import CatalogDataset, CatalogLoader, LoaderProcessesError, collate
from echotrain.data.torch_samples import Names, sample_of
from echotrain.errors import CatalogError, CheckpointError, ConfigError, PayloadError
from echotrain.physics.masks import MaskConfig
from tests.catalogs import write_catalog
from tests.simulated import write_cine_catalog

MASK = MaskConfig(kind="random", accelerations=(2,), center_fractions=(0.1,))
# Of 15 training samples, no number of ranks but 1, 3 and 5 has as many each.
VOLUMES, SLICES = 7, 3


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a catalog of five volumes to train on and two held out."""
    splits = ("train",) * 5 + ("val", "val")
    folder = tmp_path_factory.mktemp("own_loop")
    return write_catalog(folder, volumes=VOLUMES, slices=SLICES, splits=splits, shapes=((3, 24, 40), (2, 20, 41)))


@pytest.fixture
def made(written):
    """Return what makes a dataset of the catalog; all are closed at the end."""
    datasets = []

    def make(world: int = 1, rank: int = 0, **options) -> CatalogDataset:
        data = options.pop("data", LinesData(catalog=written.catalog.root, mask=MASK))
        catalog = options.pop("catalog", written.catalog)
        datasets.append(CatalogDataset(data, rank=rank, world_size=world, config=StreamConfig(threads=2), catalog=catalog, **options))
        return datasets[-1]

    yield make
    for dataset in datasets:
        dataset.close()


def key(sample) -> tuple:
    """Return what tells a sample from others, the lines of its mask among it; of a batch, its only one's."""
    name = sample.fname if isinstance(sample.fname, str) else sample.fname[0]
    return name, int(sample.slice_num), sample.mask.numpy().tobytes()


def names(samples) -> list:
    return [(sample.fname, sample.slice_num) for sample in samples]


def in_step(datasets) -> list:
    """Take samples from all ranks by turns; every rank has as many."""
    return list(itertools.chain(*zip(*datasets, strict=True)))


@pytest.mark.parametrize("world", [1, 2, 4, 5])
def test_all_ranks_together_have_each_sample_once_and_each_as_many(made, world) -> None:
    samples = in_step([made(world, rank) for rank in range(world)])
    real = names(sample for sample in samples if sample.weight)
    assert len(set(real)) == len(real) == 15
    assert len(samples) == -(-15 // world) * world
    assert all(len(made(world, rank)) == len(samples) // world for rank in range(world))


@pytest.mark.parametrize("by", [(), (("anatomy",),)])
@pytest.mark.parametrize("world", [1, 2])
def test_samples_are_those_of_a_run_of_that_seed_in_its_order(made, written, world, by) -> None:
    data = LinesData(catalog=written.catalog.root, mask=MASK, balance=BalanceConfig(by=by, strength=1.0))
    for rank in range(world):
        stream = PlannedStream(data, seed=4, batch_size=world, rank=rank, world_size=world, catalog=written.catalog)
        batches = [batch for step in stream.steps(0) for batch in step.batches]
        for sample, batch in zip(made(world, rank, seed=4, data=data), batches, strict=True):
            assert sample.fname == f"{batch.ids[0].volume}.h5"
            assert torch.equal(torch.view_as_complex(sample.masked_kspace), batch.acquired()[0])
            assert torch.equal(sample.target, batch.target[0])
            assert sample.weight == batch.weight.item()
        stream.close()


def test_every_iteration_is_another_epoch_and_set_epoch_names_one(made) -> None:
    dataset = made()
    first, second = list(dataset), list(dataset)
    assert sorted(names(first)) == sorted(names(second))
    assert names(first) != names(second)
    masks = [dict(zip(names(samples), map(key, samples), strict=True)) for samples in (first, second)]
    assert sum(masks[0][name] == masks[1][name] for name in masks[0]) < 3
    dataset.set_epoch(0)
    assert list(map(key, dataset)) == list(map(key, first))
    assert list(map(key, dataset)) == list(map(key, second))
    other = made()
    other.set_epoch(1)
    assert list(map(key, other)) == list(map(key, second))


def test_an_epoch_that_was_left_is_not_begun_again_but_by_name(made) -> None:
    whole, dataset = made(), made()
    epochs = [list(map(key, whole)) for _ in range(2)]
    assert [key(sample) for sample in itertools.islice(dataset, 4)] == epochs[0][:4]
    assert list(map(key, dataset)) == epochs[1]
    dataset.set_epoch(0)
    next(iter(dataset))
    dataset.set_epoch(0)
    assert list(map(key, dataset)) == epochs[0]
    # An iterator of which nothing was taken has begun nothing.
    iter(dataset)
    dataset.set_epoch(1)
    waiting = iter(dataset)
    assert list(map(key, dataset)) == epochs[1]
    del waiting


@pytest.mark.parametrize("taken", range(16))
def test_a_resume_at_any_sample_has_the_rest_of_the_epoch_and_then_the_next(made, taken) -> None:
    whole = made()
    expected = [list(map(key, whole)) for _ in range(2)]
    before = made()
    had = [key(sample) for sample in itertools.islice(before, taken)]
    state = before.state_dict()
    after = made()
    after.load_state_dict(state)
    after.set_epoch(state["epoch"])  # As a loop that counts epochs does; the place stays.
    assert had + list(map(key, after)) == expected[0]
    assert list(map(key, after)) == expected[1]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 4), (4, 2)])
def test_a_resume_by_another_number_of_ranks_has_each_sample_once(made, before, after) -> None:
    for turns in (1, 2, 3):
        datasets = [made(before, rank) for rank in range(before)]
        ranks = [iter(dataset) for dataset in datasets]
        had = [next(rank) for _ in range(turns) for rank in ranks]
        states = [dataset.state_dict() for dataset in datasets]
        assert len({str(state) for state in states}) == 1
        others = [made(after, rank) for rank in range(after)]
        for other in others:
            other.load_state_dict(states[0])
        samples = had + in_step(others)
        real = [key(sample) for sample in samples if sample.weight]
        assert collections.Counter(real) == collections.Counter(map(key, made()))


def test_a_complete_epoch_that_is_resumed_gives_the_next_one_and_by_name_nothing(made) -> None:
    whole = made()
    epochs = [list(map(key, whole)) for _ in range(2)]
    dataset = made()
    list(itertools.islice(dataset, 15))
    state = dataset.state_dict()
    assert state["position"] == 15
    after = made()
    after.load_state_dict(state)
    assert list(map(key, after)) == epochs[1]
    after.load_state_dict(state)
    after.set_epoch(0)
    assert list(after) == []
    assert list(map(key, after)) == epochs[1]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_a_loader_of_torchdata_resumes_at_any_batch(made) -> None:
    def loader() -> StatefulDataLoader:
        return StatefulDataLoader(made(), batch_size=1, collate_fn=collate)

    whole = loader()
    expected = [list(map(key, whole)) for _ in range(2)]
    for taken in (0, 1, 7, 14, 15):
        before = loader()
        batches = iter(before)
        had = [key(next(batches)) for _ in range(taken)]
        state = before.state_dict()
        after = loader()
        after.load_state_dict(state)
        rest = list(map(key, after))
        assert had + rest == expected[0] if taken < 15 else rest == expected[1]
        assert taken == 15 or list(map(key, after)) == expected[1]


def test_our_loader_makes_batches_and_resumes_at_any(made) -> None:
    loader = CatalogLoader(made())
    assert len(loader) == 15
    batches = iter(loader)
    had = [key(next(batches)) for _ in range(4)]
    after = CatalogLoader(made())
    after.load_state_dict(loader.state_dict())
    assert had + list(map(key, after)) == list(map(key, made()))
    for other in (CatalogLoader(made(2, 0)), CatalogLoader(made(), batch_size=2)):
        with pytest.raises(CheckpointError, match="a place within an epoch by 1 ranks in batches of 1: is none for"):
            other.load_state_dict(loader.state_dict())
    list(batches)
    complete = loader.state_dict()
    assert (complete["epoch"], complete["position"]) == (1, 0)
    CatalogLoader(made(2, 0)).load_state_dict(complete)
    with pytest.raises(ConfigError, match="batch_size=0: must be positive"):
        CatalogLoader(made(), batch_size=0)


def test_a_state_of_other_samples_is_refused(made, written, tmp_path) -> None:
    state = made().state_dict()
    other_mask = LinesData(catalog=written.catalog.root, mask=MaskConfig(kind="magic"))
    others = [made(seed=1), made(split="val"), made(data=other_mask)]
    grown = write_catalog(tmp_path, volumes=VOLUMES, slices=SLICES).catalog
    others.append(made(data=LinesData(catalog=grown.root, mask=MASK), catalog=grown))
    # As many rows as there were, others or in another order, and nothing but themselves to tell them by.
    rows = written.catalog.rows()
    swapped = [dataclasses.replace(row, split={"file000": "val", "file005": "train"}.get(row.volume, row.split)) for row in rows]
    for chosen in (swapped, [*rows[1::-1], *rows[2:]]):
        others.append(made(catalog=dataclasses.replace(written.catalog, table=Catalog.from_rows(chosen).table)))
    for other in others:
        with pytest.raises(CheckpointError, match="a place in other samples"):
            other.load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"a place in other samples \(\w+, 14 of them;"):
        made().load_state_dict({**state, "num_samples": 14})
    # Where the catalog lies does not count.
    made(data=LinesData(catalog="elsewhere", mask=MASK, trusted=("/data",))).load_state_dict(state)


def test_held_out_volumes_are_whole_on_one_rank_in_order_and_fillers_repeat_its_own(written, made) -> None:
    lone = list(made(split="val"))
    assert names(lone) == [(f"file00{number}.h5", index) for number in (5, 6) for index in range(SLICES)]
    rows = [row for row in written.catalog.rows() if (row.volume, row.slice) != ("file006", 2)]
    shorter = Catalog.from_rows(rows, written.catalog.root)
    ranks = [list(made(2, rank, split="val", catalog=shorter)) for rank in range(2)]
    assert [sample.weight for sample in ranks[0]] == [1, 1, 1]
    assert [sample.weight for sample in ranks[1]] == [1, 1, 0]
    assert names(ranks[1]) == [("file006.h5", 0), ("file006.h5", 1), ("file006.h5", 1)]
    for again in (made(split="val", seed=9), made(split="val")):
        assert list(map(key, again)) == list(map(key, lone)) == list(map(key, again))
    with pytest.raises(ConfigError, match="2 held-out volumes for 3 ranks"):
        len(made(3, 0, split="val"))


def test_an_evaluation_resumes_on_as_many_ranks_alone(made) -> None:
    before = made(2, 0, split="val")
    had = [key(next(iter(before)))]
    after = made(2, 0, split="val")
    after.load_state_dict(before.state_dict())
    assert had + list(map(key, after)) == list(map(key, made(2, 0, split="val")))
    with pytest.raises(CheckpointError, match="evaluation by 2 ranks"):
        made(1, 0, split="val").load_state_dict(before.state_dict())
    made(1, 0, split="val").load_state_dict(made(2, 0, split="val").state_dict())


def test_a_test_split_needs_nothing_to_train_on(tmp_path) -> None:
    catalog = write_catalog(tmp_path, volumes=2, splits=("test",)).catalog
    assert len(list(CatalogDataset(catalog.root, split="test"))) == 6
    with pytest.raises(CatalogError):
        CatalogDataset(catalog.root)
    with pytest.raises(ConfigError, match="split='trian'"):
        CatalogDataset(catalog.root, split="trian")


def test_an_opened_dataset_goes_to_a_process_that_is_not_forked_which_is_refused(made, monkeypatch) -> None:
    dataset = made()
    next(iter(dataset))
    there = pickle.loads(pickle.dumps(dataset))
    monkeypatch.setattr("echotrain.data.torch_dataset.get_worker_info", lambda: True)
    with pytest.raises(LoaderProcessesError):
        iter(there)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_processes_of_a_loader_are_refused(made, num_workers) -> None:
    with pytest.raises(LoaderProcessesError, match="num_workers above 0: hands the dataset to processes"):
        next(iter(DataLoader(made(), num_workers=num_workers)))


def test_an_old_iterator_is_not_gone_on_with(made) -> None:
    dataset = made()
    old = iter(dataset)
    next(old)
    new = iter(dataset)
    next(new)
    with pytest.raises(ConfigError, match="an iteration of epoch 0: was gone on with"):
        next(old)
    assert len(list(new)) == 14
    for disturb in (lambda: dataset.set_epoch(5), lambda: dataset.load_state_dict(dataset.state_dict())):
        old = iter(dataset)
        next(old)
        disturb()
        with pytest.raises(ConfigError, match="was gone on with"):
            next(old)


def test_samples_that_are_kept_are_not_overwritten(made, written) -> None:
    dataset = made()
    kept = [sample for _ in range(3) for sample in dataset]
    gc.collect()
    for sample in kept:
        truth = written.kspace[sample.fname.removesuffix(".h5"), sample.slice_num]
        expected = np.where(sample.mask[0, 0, :, 0].numpy(), truth, 0)
        np.testing.assert_array_equal(torch.view_as_complex(sample.masked_kspace).numpy(), expected)
        np.testing.assert_array_equal(sample.target.numpy(), written.target[sample.fname.removesuffix(".h5"), sample.slice_num])


def test_memory_of_samples_that_are_let_go_is_used_again(made) -> None:
    dataset, allocated = made(), []
    for _ in range(8):
        for sample in dataset:
            del sample
        allocated.append(dataset._stream((0, 1))._fetcher._format._pool.num_allocated)
    assert allocated[-1] < 2 * allocated[0]


def test_what_fails_is_gone_on_with(made, written, tmp_path) -> None:
    """Of an epoch whose sixth read fails, the next iteration has what is left of it."""
    dataset = made()
    expected = list(map(key, made()))
    assert len(dataset) == 15
    stream = dataset._stream((0, 1))
    read, count = stream.samples, iter(range(100))

    def failing(epoch, first=0):
        for step in read(epoch, first):
            if next(count) == 5:
                raise PayloadError("a slice", "is damaged", "Restore it.")
            yield step

    stream.samples = failing
    had = []
    with pytest.raises(PayloadError):  # noqa: PT012  (what came before counts)
        for sample in dataset:
            had.append(key(sample))
    assert len(had) == 5
    assert had + list(map(key, dataset)) == expected


def test_ranks_are_those_of_the_process_group_when_the_iteration_begins(made, written, monkeypatch) -> None:
    dataset = CatalogDataset(LinesData(catalog=written.catalog.root, mask=MASK), catalog=written.catalog)
    assert len(dataset) == 15
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    assert len(dataset) == 8
    assert list(map(key, dataset)) == list(map(key, made(2, 1)))
    dataset.close()


@pytest.mark.parametrize("alone", [1, 20])
def test_a_rank_that_looks_at_samples_by_itself_is_not_in_another_epoch(made, alone) -> None:
    looks, waits = made(2, 0), made(2, 1)
    list(itertools.islice(looks, alone))
    for epoch in (0, 1, 1):
        looks.set_epoch(epoch)
        waits.set_epoch(epoch)
        real = names(sample for sample in in_step((looks, waits)) if sample.weight)
        assert len(set(real)) == len(real) == 15
        for rank in (looks, waits):
            with pytest.raises(
                ConfigError, match=r"another iteration on rank \d of 2: is of no epoch .* Call set_epoch\(epoch\) on every rank"
            ):
                next(iter(rank))


@pytest.mark.parametrize("alone", [1, 20])
@pytest.mark.parametrize("position", [0, 4, 15])
def test_a_rank_that_looks_at_a_place_that_was_loaded_comes_back_to_it(made, position, alone) -> None:
    looks, waits = made(2, 0), made(2, 1)
    for rank in (looks, waits):
        rank.load_state_dict({**made(2, 0).state_dict(), "epoch": 3, "position": position})
    list(itertools.islice(looks, alone))
    for epoch, count in ((3, 15 - position), (4, 15), (3, 15)):
        looks.set_epoch(epoch)
        waits.set_epoch(epoch)
        real = names(sample for sample in in_step((looks, waits)) if sample.weight)
        assert len(set(real)) == len(real) == count


def test_held_out_volumes_are_iterated_over_without_a_word_by_any_number_of_ranks(made) -> None:
    dataset = made(2, 0, split="val")
    next(iter(dataset))
    assert list(map(key, dataset)) == list(map(key, dataset))


def test_the_next_epoch_may_be_named_in_the_last_turn(made) -> None:
    epochs = [list(map(key, whole)) for whole in [made()] for _ in range(3)]
    for world, split in ((1, "train"), (2, "train"), (2, "val")):
        dataset = made(world, 1 % world, split=split)
        for epoch in range(3):
            samples = []
            for sample in dataset:
                samples.append(key(sample))
                if len(samples) == len(dataset):
                    dataset.set_epoch(epoch + 1)
            assert world > 1 or samples == epochs[epoch]


@pytest.mark.parametrize("setting", [{"where": "cluster"}, {"makers": 2}, {"group": "data"}, {"cpus_per_maker": 2.0}])
def test_what_only_a_run_follows_is_refused(written, setting) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError, match=rf"stream\.{name}={value}: has no effect in a loop of one's own"):
        CatalogDataset(written.catalog.root, config=StreamConfig(**setting))


def test_processes_that_do_not_know_of_each_other_are_refused(written, monkeypatch) -> None:
    dataset = CatalogDataset(written.catalog.root, catalog=written.catalog)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="WORLD_SIZE=2 without a process group"):
        next(iter(dataset))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert len(list(dataset)) == 15
    with pytest.raises(ConfigError, match="rank=1, world_size=None"):
        CatalogDataset(written.catalog.root, rank=1)


def test_volumes_of_two_data_sets_that_are_called_alike_have_names_of_their_own(written, made) -> None:
    table = written.catalog.table
    alike = ["other" if volume == "file001" else "test" for volume in table["volume"].to_pylist()]
    volumes = ["file000" if volume == "file001" else volume for volume in table["volume"].to_pylist()]
    for name, values in (("dataset", alike), ("volume", volumes)):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(values))
    found = {sample.fname for sample in made(catalog=Catalog(table, written.catalog.root))}
    assert found == {"test-file000.h5", "other-file000.h5", "file002.h5", "file003.h5", "file004.h5"}


@pytest.mark.parametrize("num_adjacent", [1, 3])
def test_windows_of_frames_have_the_frames_that_a_run_sees_and_numbers_of_their_own(tmp_path, caplog, num_adjacent) -> None:
    catalog = write_cine_catalog(tmp_path, num_train=2, num_val=1)
    data = KtData(catalog=catalog, num_adjacent=num_adjacent)
    dataset = CatalogDataset(data)
    samples = {(sample.fname, sample.slice_num): sample for sample in dataset}
    assert len(samples) == 2 * 2 * 5
    assert {number for _, number in samples} == set(range(10))
    stream = PlannedStream(data, seed=0, batch_size=1)
    for step in stream.steps(0):
        (batch,), (sample_id,) = step.batches, step.batches[0].ids
        sample, shown = samples[f"{sample_id.volume}.h5", sample_id.slice * 5 + sample_id.frame], batch.network_input()
        assert torch.equal(torch.view_as_complex(sample.masked_kspace), shown.kspace[0])
        assert torch.equal(sample.mask, shown.mask[0])
        assert torch.equal(sample.calibration, shown.calibration[0])
        assert torch.equal(sample.target, batch.target[0])
    # Here nothing is planned consecutively, so it is not what tells samples apart.
    assert caplog.text.count("data.consecutive=true has no effect in a loop") == 1
    held_out, other = CatalogDataset(data, split="val"), CatalogDataset(dataclasses.replace(data, consecutive=False))
    assert caplog.text.count("has no effect") == 1
    other.load_state_dict(dataset.state_dict())
    assert len(next(iter(DataLoader(held_out, batch_size=4))).fname) == 4
    for each in (stream, dataset, held_out, other):
        each.close()


def test_images_come_with_what_their_range_stands_for(made, written) -> None:
    data = ImageData(catalog=written.catalog.root)
    for sample in made(data=data):
        truth = written.target[sample.fname.removesuffix(".h5"), sample.slice_num]
        np.testing.assert_allclose(sample.image.numpy() * (sample.high - sample.low) + sample.low, truth, rtol=0, atol=1e-6)
    assert next(iter(DataLoader(made(data=data), batch_size=3))).image.shape == (3, 16, 12)


def test_a_kind_that_nobody_gave_a_form_is_refused(made, written) -> None:
    rows = written.catalog.rows()[:1]
    with pytest.raises(ConfigError, match="Batch: has no form outside"):
        sample_of(Batch(weight=torch.ones(1), ids=(rows[0].id,)), Names(written.catalog.table, np.arange(1)))


def test_leaks_are_told_where_one_trains(written, caplog, made) -> None:
    leaks = {"leaks": Leaks(scaled_copies=((("test", "file000"), ("test", "file005")),)).to_dict()}
    leaky = Catalog(written.catalog.table, written.catalog.root, manifest={**written.catalog.manifest, **leaks})
    made(catalog=leaky, split="val")
    assert caplog.text == ""
    made(catalog=leaky)
    assert "2 scans are copies of one another up to a constant factor (groups: 1, of these in more than one split: 1)" in caplog.text


def test_masks_that_are_not_the_files_are_told(written, caplog, made) -> None:
    table = written.catalog.table
    hidden = pa.array([f"volume-{volume}" for volume in table["volume"].to_pylist()])
    table = table.set_column(table.schema.get_field_index("volume"), table.schema.field("volume"), hidden)
    data = LinesData(catalog=written.catalog.root, mask=MaskConfig(seeding="fastmri"))
    made(data=data, catalog=Catalog(table, written.catalog.root))
    assert "have pseudonyms" in caplog.text


def test_a_dataset_goes_to_another_process_before_it_is_iterated(written) -> None:
    dataset = CatalogDataset(LinesData(catalog=written.catalog.root, mask=MASK))
    again = pickle.loads(pickle.dumps(dataset))
    assert list(map(key, again)) == list(map(key, dataset))
