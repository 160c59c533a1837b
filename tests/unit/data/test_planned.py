"""What a stream validates on: everything, or the same nested share of the volumes as it trains on."""

import itertools

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from echotrain.data.catalog.rows import Catalog
from echotrain.data.plan.balance import BalanceConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from tests.catalogs import write_catalog

FRACTIONS = (0.1, 0.2, 0.5, 1.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a catalog of thirty volumes of two slices: ten to train on, ten to validate, ten to test."""
    return write_catalog(tmp_path_factory.mktemp("planned"), volumes=30, slices=2, splits=("train", "val", "test")).catalog


def validated(root, split="val", ranks=1, **settings):
    """Return the slices that all ranks evaluate on together."""
    seen = []
    for rank in range(ranks):
        data = LinesData(catalog=root.root, **settings)
        stream = PlannedStream(data, seed=1, batch_size=ranks, rank=rank, world_size=ranks, catalog=root)
        seen += [sample for batch in stream.evaluation(split) for sample in batch.ids]
        stream.close()
    assert len(set(seen)) == len(seen)
    return set(seen)


def test_by_default_every_fraction_validates_on_everything(root):
    assert len(validated(root)) == 20
    assert validated(root, fraction=0.1) == validated(root)


def test_validation_that_follows_is_nested_and_by_whole_volumes(root):
    shares = [validated(root, fraction=fraction, val_follows_fraction=True) for fraction in FRACTIONS]
    assert [len(share) for share in shares] == [2 * count for count in (1, 2, 5, 10)]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(shares))
    for share in shares:
        volumes = {sample.volume for sample in share}
        assert len(share) == 2 * len(volumes)
    assert shares[-1] == validated(root)


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_together_validate_on_the_same_share(root, ranks):
    settings = {"fraction": 0.5, "val_follows_fraction": True}
    assert validated(root, ranks=ranks, **settings) == validated(root, **settings)


@pytest.mark.parametrize("split", ["test", "train"])
def test_no_other_split_is_cut(root, split):
    assert len(validated(root, split, fraction=0.1, val_follows_fraction=True)) == 20


def test_pictures_are_of_what_is_validated(root):
    stream = PlannedStream(LinesData(catalog=root.root, fraction=0.2, val_follows_fraction=True), seed=1, batch_size=1, catalog=root)
    shown = stream.examples(6)
    stream.close()
    assert {sample.volume for sample in shown} == {s.volume for s in validated(root, fraction=0.2, val_follows_fraction=True)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_balanced_epoch_has_its_groups_in_equal_shares_and_is_as_long_as_another(root, ranks):
    """Of the ten volumes to train on, one is of a centre of its own."""
    centers = ["far" if number == 3 else "near" for number in range(10) for _ in range(2)]
    train = root.table.filter(pc.equal(root.table["split"], "train"))
    place = train.schema.get_field_index("center")
    catalog = Catalog(train.set_column(place, train.schema.field(place), pa.array(centers)), root.root)
    far = {row.id for row in catalog.rows() if row.center == "far"}
    trained = []
    for rank in range(ranks):
        data = LinesData(catalog=root.root, balance=BalanceConfig(by=(("center",),)))
        stream = PlannedStream(data, seed=1, batch_size=4, rank=rank, world_size=ranks, catalog=catalog)
        trained += [sample for step in stream.steps(0) for batch in step.batches for sample in batch.ids]
        stream.close()
    assert len(trained) == 20
    assert sum(sample in far for sample in trained) == 10
    assert len(set(trained) - far) == 10
