"""Samples for other people's loops against those of the public code (PyPI ``fastmri``), from the same files."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from echotrain.data.catalog.store import commit_catalog
from echotrain.data.formats import Deidentifier
from echotrain.data.formats.target import rss_target
from echotrain.data.preparing.assemble import assemble
from echotrain.data.preparing.convert import ConvertConfig, convert_scan
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.splits.made import SplitConfig
from echotrain.data.torch_dataset import CatalogDataset, CatalogLoader
from echotrain.physics.masks import MaskConfig
from echotrain.storage.open import open_store
from tests.scans import header_xml, object_kspace, write_scan

mri_data = pytest.importorskip("fastmri.data.mri_data", reason="the public implementation is not installed")
subsample = pytest.importorskip("fastmri.data.subsample", reason="the public implementation is not installed")
transforms = pytest.importorskip("fastmri.data.transforms", reason="the public implementation is not installed")

MASK = MaskConfig(kind="equispaced_fraction", accelerations=(4,), center_fractions=(0.1,), seeding="fastmri")
# Coils, height, width, image; lines before the first and behind the last that were measured.
SCANS = {
    "file1000001": (3, 48, 40, (32, 32), (0, 0)),
    "file1000002": (5, 40, 45, (24, 24), (6, 3)),
    "file1000003": (3, 48, 40, (32, 32), (0, 4)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, str]:
    """Return a folder of files in fastMRI's layout and the catalog that was prepared of them, all of it held out."""
    return prepared(tmp_path_factory.mktemp("transforms"), SCANS)


def prepared(folder: Path, scans: dict, *, stated: tuple[int, int] | None = None, brighter: float = 1) -> tuple[Path, str]:
    """Return a folder of files and its catalog; headers state another image than the target's, or another maximum, where they are to."""
    store = open_store(str(folder / "prepared"))
    records = []
    for seed, (name, (coils, height, width, image, (left, right))) in enumerate(scans.items()):
        kspace = object_kspace((3, coils, height, width), seed=seed)
        kspace[..., :left], kspace[..., width - right :] = 0, 0
        header = header_xml(height, width, recon=stated or image, center=width // 2 - left, maximum=width - left - right - 1)
        target = np.stack([rss_target(coil_images, image) for coil_images in kspace])
        attributes = {"max": brighter * float(target.max()), "norm": float(np.linalg.norm(target)), "acquisition": "CORPD_FBK"}
        path = write_scan(folder / "scans" / f"{name}.h5", kspace, header=header, target=target, attributes=attributes)
        one = {"store": store, "config": ConvertConfig(dataset="fastmri"), "deidentifier": Deidentifier()}
        records.append(convert_scan(path, uri=str(path), key=name, **one))
    commit_catalog(store, assemble(records, None, SplitConfig(ratios=(0, 1, 0))).table, {})
    return folder / "scans", store.uri


def assert_same(ours, theirs) -> None:
    for name in theirs._fields:
        one, other = getattr(ours, name), getattr(theirs, name)
        if isinstance(other, torch.Tensor):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.numpy().tobytes() == other.numpy().tobytes(), name
        else:
            assert one == other, name


def public_samples(folder: Path, mask_func) -> dict:
    """Return what the public code makes of the files, by the name of the file and the slice."""
    transform = transforms.VarNetDataTransform(mask_func)
    return {(sample.fname, sample.slice_num): sample for sample in mri_data.SliceDataset(folder, "multicoil", transform)}


def test_held_out_samples_equal_the_public_ones_field_by_field(folders) -> None:
    files, catalog = folders
    public = public_samples(files, subsample.create_mask_for_mask_type(MASK.kind, MASK.center_fractions, MASK.accelerations))
    ours = list(CatalogDataset(LinesData(catalog=catalog, mask=MASK), split="val"))
    assert len(ours) == len(public) == 9
    for sample in ours:
        assert sample.weight == 1
        assert_same(sample, public[sample.fname, sample.slice_num])


def test_training_samples_equal_the_public_ones_with_their_own_mask(folders) -> None:
    files, catalog = folders
    data = LinesData(catalog=catalog, mask=MASK, train_split=("val",))
    raw = {place[-2:]: place for place in mri_data.SliceDataset(files, "multicoil")}
    masks = set()
    for sample in CatalogDataset(data, seed=3):
        # What the public code is told to draw; the lines that were never measured it takes away itself.
        drawn = functools.partial(_given, mask=sample.mask.float(), count=sample.num_low_frequencies)
        assert_same(sample, transforms.VarNetDataTransform(drawn)(*raw[sample.fname, sample.slice_num]))
        masks.add(sample.mask.numpy().tobytes())
    assert len(masks) > 3


def test_crop_and_maximum_are_those_of_the_targets_that_are_there_whatever_the_file_says_of_them(tmp_path) -> None:
    files, catalog = prepared(tmp_path, {"file1000004": (3, 48, 40, (24, 28), (0, 0))}, stated=(32, 32), brighter=1.25)
    public = public_samples(files, subsample.create_mask_for_mask_type(MASK.kind, MASK.center_fractions, MASK.accelerations))
    ours = list(CatalogDataset(LinesData(catalog=catalog, mask=MASK), split="val"))
    largest = max(float(sample.target.max()) for sample in ours)
    assert len(ours) == 3
    for sample in ours:
        theirs = public[sample.fname, sample.slice_num]
        assert (theirs.crop_size, theirs.max_value) == ((32, 32), pytest.approx(1.25 * largest))
        assert (sample.crop_size, sample.max_value) == ((24, 28), pytest.approx(largest))
        assert isinstance(sample.max_value, float)
        assert_same(sample._replace(crop_size=(32, 32), max_value=theirs.max_value), theirs)


def _given(shape, offset, seed, *, mask, count):
    return mask.clone(), count


def test_batches_are_those_of_the_default_collation(folders) -> None:
    _, catalog = folders
    ours, theirs = (CatalogDataset(LinesData(catalog=catalog, mask=MASK), split="val") for _ in range(2))
    for batch, public in zip(CatalogLoader(ours), DataLoader(theirs, batch_size=1, collate_fn=default_collate), strict=True):
        for one, other in zip(batch, public, strict=True):
            same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
            assert same
            assert type(one) is type(other)
