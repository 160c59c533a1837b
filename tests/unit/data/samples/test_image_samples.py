import contextlib
import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import select
from echotrain.data.fetch import Fetcher
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.image import ImageBatch, ImageData, ImageFormat
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.sample_format import StepRows
from echotrain.errors import CatalogError, ConfigError, PayloadError
from echotrain.storage.ranged import RangeReader
from tests.catalogs import write_catalog
from tests.images import random_volumes, write_images


def fetched(catalog: Catalog, *, scaling="slice", side=0, fit="pad", epoch=None, seed=3, rows=None) -> list[ImageBatch]:
    rows = catalog.rows() if rows is None else rows
    make = functools.partial(ImageFormat, scaling=scaling, side=side, fit=fit, seed=seed)
    fetcher = Fetcher(catalog, make)
    try:
        (step,) = fetcher.fetch([StepRows(rows, [1.0] * len(rows), len(rows))], epoch=epoch)
        return list(step.batches)
    finally:
        fetcher.close()


@pytest.mark.parametrize("scaling", ["slice", "volume"])
def test_every_slice_is_mapped_to_0_to_1_and_can_be_mapped_back(tmp_path: Path, scaling: str) -> None:
    volumes = random_volumes((3, 9, 7), (2, 9, 7))
    (batch,) = fetched(write_images(tmp_path, volumes), scaling=scaling)
    truth = np.concatenate(volumes)
    image, low, high = batch.image.numpy(), batch.low.numpy()[:, None, None], batch.high.numpy()[:, None, None]
    assert image.min() >= 0
    np.testing.assert_allclose(image * (high - low) + low, truth, rtol=1e-5, atol=1e-5)
    if scaling == "slice":
        assert image.min(axis=(1, 2)).tolist() == [0] * 5
        assert image.max(axis=(1, 2)).tolist() == [1] * 5
    else:
        assert batch.high.tolist() == [float(volumes[0].max())] * 3 + [float(volumes[1].max())] * 2
        assert low.max() == 0
        # Slices of a volume stay comparable: a slope between them remains.
        assert image[0].mean() < image[2].mean()


@pytest.mark.parametrize("scaling", ["slice", "volume"])
@pytest.mark.parametrize("value", [0.0, 7.5])
def test_a_blank_slice_is_finite_and_divided_by_nothing(tmp_path: Path, scaling: str, value: float) -> None:
    volume = random_volumes((3, 8, 5))[0]
    volume[1] = value
    (batch,) = fetched(write_images(tmp_path, [volume]), scaling=scaling)
    assert torch.isfinite(batch.image).all()
    expected = 0 if scaling == "slice" else value / volume.max()
    np.testing.assert_allclose(batch.image[1].numpy(), expected, rtol=1e-6)


def test_matrix_sizes_make_batches_of_their_own_unless_brought_to_one_size(tmp_path: Path) -> None:
    catalog = write_images(tmp_path, random_volumes((2, 9, 7), (1, 6, 11), (1, 9, 7)))
    first, second = fetched(catalog)
    assert (first.image.shape, second.image.shape) == ((3, 9, 7), (1, 6, 11))
    assert [sample.volume for sample in first.ids] == ["volume0", "volume0", "volume2"]
    for fit in ("pad", "crop", "stretch"):
        (batch,) = fetched(catalog, side=16, fit=fit)
        assert batch.image.shape == (4, 16, 16)
        assert batch.ids == tuple(row.id for row in catalog.rows())
        assert 0 <= batch.image.min() <= batch.image.max() <= 1


def test_padding_adds_black_and_keeps_shapes_where_stretching_does_not(tmp_path: Path) -> None:
    volume = np.ones((1, 8, 4), np.float32)
    volume[0, 0, 0] = 0
    catalog = write_images(tmp_path, [volume])
    padded, stretched = (fetched(catalog, side=8, fit=fit)[0].image[0] for fit in ("pad", "stretch"))
    assert padded[:, :2].abs().max() == padded[:, 6:].abs().max() == 0
    torch.testing.assert_close(padded[:, 2:6], torch.from_numpy(volume[0]))
    assert stretched[4].min() == 1


def test_targets_of_kspace_serve_as_images_and_no_byte_of_kspace_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_catalog(tmp_path, kind="lines", shapes=((4, 24, 20), (2, 18, 12)))
    rows = {row.id: row for row in written.catalog.rows()}
    read, real = [], RangeReader.read_into

    def counted(self, uri, offset, *buffers):
        read.append((uri, offset, sum(memoryview(buffer).nbytes for buffer in buffers)))
        return real(self, uri, offset, *buffers)

    monkeypatch.setattr(RangeReader, "read_into", counted)
    (batch,) = fetched(written.catalog, scaling="volume")
    for sample, image, high in zip(batch.ids, batch.image.numpy(), batch.high.tolist(), strict=True):
        np.testing.assert_allclose(image * high, written.target[sample.volume, sample.slice], rtol=1e-6)
    places = sorted((f"{written.catalog.root}/{row.target_uri}", row.target_offset, row.target_nbytes) for row in rows.values())
    assert sorted(read) == places


def test_what_is_drawn_for_an_image_is_of_the_run_the_epoch_and_the_sample(tmp_path: Path) -> None:
    catalog = write_images(tmp_path, random_volumes((2, 5, 4), (2, 5, 4)))

    def draws(**options) -> list[float]:
        (batch,) = fetched(catalog, **options)
        return [float(torch.rand((), generator=generator)) for generator in batch.generators("mask")]

    assert draws(epoch=1) == draws(epoch=1)
    assert len({*draws(epoch=1), *draws(epoch=2), *draws(epoch=1, seed=4)}) == 12
    assert draws() == draws(seed=9)
    backwards = draws(epoch=1, rows=catalog.rows()[::-1])
    assert backwards == draws(epoch=1)[::-1]


def test_nan_in_an_image_is_named(tmp_path: Path) -> None:
    volume = random_volumes((2, 5, 4))[0]
    volume[1, 2, 2] = np.nan
    with pytest.raises(PayloadError, match=r"images/volume0\[1\].*NaN"):
        fetched(write_images(tmp_path, [volume]))


def test_what_lies_above_the_maximum_that_a_row_gives_is_cut_off(tmp_path: Path) -> None:
    catalog = write_images(tmp_path, random_volumes((2, 5, 4)))
    rows = [dataclasses.replace(row, max_value=row.max_value / 2) for row in catalog.rows()]
    (batch,) = fetched(catalog, scaling="volume", rows=rows)
    assert batch.image.max() == 1


def test_a_row_that_promises_an_image_of_another_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    catalog = write_images(tmp_path, random_volumes((1, 5, 4)))
    rows = [dataclasses.replace(row, recon_height=1 << 20, recon_width=1 << 20) for row in catalog.rows()]
    with pytest.raises(CatalogError, match="target_nbytes=80: is not the 4398046511104"):
        fetched(catalog, rows=rows)


def test_a_volume_without_a_maximum_is_not_scaled_by_it(tmp_path: Path) -> None:
    catalog = write_images(tmp_path, [np.zeros((2, 5, 4), np.float32)])
    with pytest.raises(CatalogError, match=r"max_value=0.*scaling=slice"):
        fetched(catalog, scaling="volume")
    (batch,) = fetched(catalog)
    assert not batch.image.any()


def test_whoever_needs_kspace_is_told_of_images_and_the_other_way_round(tmp_path: Path) -> None:
    catalog = write_images(tmp_path, random_volumes((2, 5, 4), (1, 5, 4)), splits=("train", "val"))
    assert select(catalog.table, splits=("train",), payload="image").tolist() == [0, 1]
    with pytest.raises(CatalogError, match=r"images/volume0\[0\] and 1 more of 2 .* without k-space"):
        select(catalog.table, splits=("train",))
    written = write_catalog(tmp_path / "kspace")
    table = written.catalog.table
    lacking = table.set_column(table.schema.get_field_index("target_nbytes"), "target_nbytes", [[0] * table.num_rows])
    with pytest.raises(CatalogError, match="k-space without an image"):
        select(lacking, splits=("train",), payload="image")
    assert len(select(table, splits=("train",))) == len(select(table, splits=("train",), payload="image"))


def test_a_run_on_images_takes_rows_of_any_kind_that_have_one(tmp_path: Path) -> None:
    catalogs = {
        "images": write_images(tmp_path / "images", random_volumes((3, 9, 7), (2, 6, 11)), splits=("train", "val")),
        "kspace": write_catalog(tmp_path / "kspace", splits=("train", "val")).catalog,
    }
    for name, catalog in catalogs.items():
        data = ImageData(catalog=str(tmp_path / name), side=8)
        with contextlib.closing(PlannedStream(data, seed=1, batch_size=2)) as stream:
            seen = [sample for step in stream.steps(0) for batch in step.batches for sample in batch.ids]
            held_out = [sample for batch in stream.evaluation("val") for sample in batch.ids]
        rows = catalog.rows()
        assert sorted(seen) == sorted(row.id for row in rows if row.split == "train")
        assert held_out == [row.id for row in rows if row.split == "val"]
    rows = catalogs["images"].rows()
    with pytest.raises(CatalogError, match="is an image without k-space"):
        SliceReader(catalogs["images"].root, RangeReader()).read(
            rows[0], np.ones(7, bool), np.empty((0, 9, 7), np.complex64), np.empty((9, 7), np.float32)
        )
    with pytest.raises(CatalogError, match="without k-space"):
        PlannedStream(LinesData(catalog=str(tmp_path / "images")), seed=1, batch_size=2)


def test_volumes_without_a_maximum_are_refused_before_a_run_only_where_it_counts(tmp_path: Path) -> None:
    volumes = [*random_volumes((1, 5, 4)), np.zeros((2, 5, 4), np.float32)]
    table = write_images(tmp_path, volumes).table
    assert ImageData(scaling="slice").check(table) == []
    with pytest.raises(CatalogError, match=r"images/volume1\[0\]: max_value=0"):
        ImageData(scaling="volume").check(table)


@pytest.mark.parametrize("side", [-1, 4097])
def test_a_side_that_no_image_has_is_refused(side: int) -> None:
    with pytest.raises(ConfigError, match=f"data.side={side}"):
        ImageData(side=side)
