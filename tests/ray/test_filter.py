"""Similarity filtering from the catalog to a subset that a recipe trains on."""

import shutil
from pathlib import Path

import pytest

from echotrain.config import override
from echotrain.data.catalog_store import load_catalog
from echotrain.data.selection import select
from echotrain.data.subsets import load_subset
from echotrain.orchestration.checks import check_selection
from ray_jobs.filter import main

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def catalog(catalog_uri, tmp_path):
    """Return a copy, since a subset is written below it."""
    shutil.copytree(catalog_uri, tmp_path / "prepared")
    return load_catalog(str(tmp_path / "prepared"))


def test_slices_like_the_queries_are_chosen_and_trained_on(catalog, experiment, capsys):
    anatomy = next(row.anatomy for row in catalog.rows() if row.split == "val")
    assert main([catalog.root, "--name", "like", "--anatomies", anatomy, "--k", "2"]) == 0
    said = capsys.readouterr().out
    subset = load_subset(catalog.root, "like")
    train = select(catalog.table, splits=("train",))
    chosen = select(catalog.table, splits=("train",), subset=subset)
    assert 2 <= len(chosen) < len(train)
    assert f"{len(chosen)} of {len(train)} training slices" in said
    assert "data.subset=like" in said
    # The simulated anatomies look different enough that most neighbours are of the queries' own.
    anatomies = [row.anatomy for row in catalog.rows(chosen)]
    assert anatomies.count(anatomy) > len(anatomies) / 2
    assert subset.about["k"] == 2
    assert subset.about["catalog"] == f"{catalog.root}@1"
    check_selection(catalog, override(experiment, [f"data.catalog={catalog.root}", "data.subset=like"]).data)
    # The vectors are kept: the same choice under another name reads no image.
    for shard in Path(catalog.root).glob("shards/**/*"):
        if shard.is_file():
            shard.unlink()
    assert main([catalog.root, "--name", "again", "--anatomies", anatomy, "--k", "2"]) == 0
    assert load_subset(catalog.root, "again").slices.equals(subset.slices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query-split", "test"], "queries from the test split: would let training see what it is judged on"),
        (["--anatomies", "liver"], "anatomy liver: is not in the catalog"),
        (["--k", "1000"], "k=1000: must lie between 1 and the"),
        (["--embedder", "clip"], "embedder='clip': must be one of"),
        (["--embedder", "dreamsim"], "embedder='dreamsim': needs --weights"),
        (["--embedder", "dreamsim", "--weights", "/nowhere"], "weights=/nowhere: lacks checkpoints/dino"),
        (["--workers", "99"], "workers=99: the cluster has 4 CPUs"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(catalog, arguments, message, capsys):
    assert main([catalog.root, "--name", "x", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path(catalog.root).glob("subsets/*"))
