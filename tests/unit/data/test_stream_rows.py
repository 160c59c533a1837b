"""Which rows reach a stream's steps, and with what: selections in training and evaluation, epochs made ready, weights, refused rows."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import Where
from echotrain.data.config import StreamConfig
from echotrain.data.fetch import Fetcher
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.sample_format import StepRows
from echotrain.data.stream import StepData
from echotrain.errors import CatalogError
from echotrain.storage.ranged import RangeReader
from tests.catalogs import write_catalog

Seen = set[tuple[str, str, str]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Catalog:
    """Return a catalog of all combinations of two datasets, anatomies, contrasts and three splits, a volume of two slices each."""
    written = write_catalog(tmp_path_factory.mktemp("mixed"), volumes=24, slices=2).catalog
    rows = []
    for row in written.rows():
        number = int(row.volume.removeprefix("file"))
        words = {"dataset": "AB"[number % 2], "anatomy": ("knee", "hip")[number // 2 % 2], "contrast": ("T1", "T2")[number // 4 % 2]}
        rows.append(dataclasses.replace(row, split=("train", "val", "test")[number // 8], **words))
    return Catalog.from_rows(rows, written.root)


def stream_of(catalog: Catalog, batch_size: int = 3, **settings) -> PlannedStream:
    return PlannedStream(LinesData(catalog=catalog.root, **settings), seed=1, batch_size=batch_size, catalog=catalog)


@pytest.mark.parametrize(
    ("settings", "is_wanted"),
    [
        ({}, lambda row: True),
        ({"where": Where(dataset=("A",))}, lambda row: row.dataset == "A"),
        ({"where": Where(anatomy=("hip",))}, lambda row: row.anatomy == "hip"),
        ({"where": Where(contrast=("T2",))}, lambda row: row.contrast == "T2"),
        (
            {"where": Where(dataset=("B",), anatomy=("knee",), contrast=("T1", "T2"))},
            lambda row: (row.dataset, row.anatomy) == ("B", "knee"),
        ),
    ],
)
@pytest.mark.parametrize("train_split", [("train",), ("train", "val"), ("val",)])
def test_what_is_chosen_is_trained_on_and_evaluated_and_nothing_else(mixed, settings, is_wanted, train_split):
    stream = stream_of(mixed, train_split=train_split, **settings)
    trained = [tuple(sample) for step in stream.steps(0) for batch in step.batches for sample in batch.ids]
    evaluated = {split: [tuple(sample) for batch in stream.evaluation(split) for sample in batch.ids] for split in ("train", "val", "test")}
    stream.close()
    wanted = [row for row in mixed.rows() if is_wanted(row)]
    assert sorted(trained) == sorted(row.id for row in wanted if row.split in train_split)
    for split, seen in evaluated.items():
        assert sorted(seen) == sorted(row.id for row in wanted if row.split == split)


def told_of(steps: list[StepData]) -> list[tuple]:
    return [(step.num_global_samples, [(batch.ids, batch.mask.numpy().tobytes()) for batch in step.batches]) for step in steps]


@pytest.mark.parametrize(("epoch", "first_step"), [(1, 0), (1, 2), (1, 5), (2, 0), (0, 0), (0, 3), (3, 1)])
def test_whatever_follows_an_epoch_is_as_if_it_came_first(mixed, epoch, first_step):
    # Of 16 slices in steps of 3 the last has one.
    fresh, used = stream_of(mixed), stream_of(mixed)
    assert told_of(list(used.steps(0))) == told_of(list(fresh.steps(0)))[:6]
    whole = told_of(list(stream_of(mixed).steps(epoch)))
    assert [count for count, _ in whole] == [3, 3, 3, 3, 3, 1]
    assert told_of(list(used.steps(epoch, first_step))) == whole[first_step:]
    assert told_of(list(used.steps(epoch + 1))) == told_of(list(stream_of(mixed).steps(epoch + 1)))


def test_weights_maxima_and_anatomies_stay_with_their_samples_whatever_shares_the_step(tmp_path):
    written = write_catalog(tmp_path, shapes=((4, 24, 20), (2, 20, 21), (3, 24, 20)), volumes=6, slices=1).catalog
    rows = [dataclasses.replace(row, max_value=number + 1.0, anatomy=f"anatomy {number}") for number, row in enumerate(written.rows())]
    weights = [float(number % 2) for number in range(len(rows))]
    fetcher = Fetcher(written, LinesData().make_format(seed=0), config=StreamConfig(threads=2))
    (step,) = fetcher.fetch([StepRows(rows, weights, 3)], epoch=0)
    fetcher.close()
    told = [
        (sample.volume, batch.weight[i].item(), batch.max_value[i].item(), batch.anatomies[i])
        for batch in step.batches
        for i, sample in enumerate(batch.ids)
    ]
    assert sorted(told) == [(row.volume, weight, row.max_value, row.anatomy) for row, weight in zip(rows, weights, strict=True)]


@pytest.mark.parametrize("kind", ["raw", "packed", "lines"])
@pytest.mark.parametrize(
    "change",
    [{"nbytes": 1528}, {"coils": 3}, {"height": 23}, {"width": 19}, {"dtype": "float16"}, {"target_nbytes": 4}, {"recon_width": 11}],
)
def test_a_row_whose_bytes_are_not_those_of_its_shape_is_refused_before_a_byte_is_read(tmp_path: Path, kind: str, change: dict) -> None:
    row = dataclasses.replace(write_catalog(tmp_path, kind=kind).catalog.rows()[0], uri="none", target_uri="none", **change)
    kspace = np.empty((row.coils, row.height, row.width), np.complex64)
    target = np.empty((row.recon_height, row.recon_width), np.float32)
    reader = RangeReader()
    with pytest.raises(CatalogError, match=r"test/file000\[0\]: (target_)?nbytes="):
        SliceReader(str(tmp_path), reader).read(row, np.ones(row.width, bool), kspace, target)
    reader.close()
