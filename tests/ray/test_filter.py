"""Similarity filtering from the catalog to a subset that a recipe trains on."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from echotrain.config import override
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.store import commit_catalog, load_catalog
from echotrain.data.catalog.subsets import load_subset
from echotrain.data.samples.reading import SliceReader
from echotrain.orchestration.jobs import filtering
from echotrain.orchestration.jobs.filtering import filter_catalog
from echotrain.orchestration.runtime.checks import check_selection
from echotrain.similarity.embedders import GradientEmbedder
from echotrain.storage.open import open_store
from echotrain.storage.ranged import RangeReader
from ray_jobs.filter import main, parser, read
from tests.simulated import write_simulated_catalog

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def catalog(catalog_uri, tmp_path):
    """Return a copy, since a subset is written below it."""
    shutil.copytree(catalog_uri, tmp_path / "prepared")
    return load_catalog(str(tmp_path / "prepared"))


@pytest.fixture(scope="module")
def refusing(catalog_uri, tmp_path_factory):
    """Return a copy of which no subset is ever made; what was embedded of it once stays."""
    place = tmp_path_factory.mktemp("refusing") / "prepared"
    shutil.copytree(catalog_uri, place)
    return load_catalog(str(place))


def plainly_chosen(catalog, anatomies, *, side, k, blank_cosine, duplicate_cosine):
    """Return ids and counts of a search as the authors' code does it, written with loops, from the images alone."""
    embed, reader = GradientEmbedder().embed_patches, SliceReader(catalog.root, RangeReader())

    def cosine(one, other):
        one, other = one.astype(np.float64), other.astype(np.float64)
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    blank = embed(np.zeros((1, side, side), np.float32))[0]
    queries, pool, num_blank, num_duplicates = [], [], 0, 0
    for row in sorted(catalog.rows(), key=lambda row: (row.dataset, row.volume, row.slice)):
        image = np.empty((row.recon_height, row.recon_width), np.float32)
        reader.read_target(row, image)
        image /= max(other.max_value for other in catalog.rows() if other.volume == row.volume)
        height, width = (side * -(-size // side) for size in image.shape)
        framed = np.zeros((height, width), np.float32)
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        framed[top : top + image.shape[0], left : left + image.shape[1]] = image
        for y in range(0, height, side):
            for x in range(0, width, side):
                vector = embed(framed[None, y : y + side, x : x + side])[0]
                is_blank = cosine(vector, blank) >= blank_cosine
                half = vector.astype(np.float16)
                if row.split == "val" and row.anatomy in anatomies and not is_blank:
                    queries.append(half)
                if row.split == "train":
                    twin = any(volume == row.volume and cosine(half, other) > duplicate_cosine for volume, other, _ in pool)
                    num_blank += is_blank
                    num_duplicates += twin and not is_blank
                    if not is_blank and not twin:
                        pool.append((row.volume, half, row.id))
    chosen = set()
    for query in queries:
        chosen |= {name for _, _, name in sorted(pool, key=lambda each, q=query: -cosine(q, each[1]))[:k]}
    return chosen, (len(queries), len(pool), num_blank, num_duplicates), {half.tobytes() for _, half, _ in pool}


@pytest.mark.parametrize("most_queries", [5, 100_000])
def test_by_patches_the_choice_is_that_of_a_plain_search(local_ray, tmp_path, monkeypatch, most_queries):
    monkeypatch.setattr(filtering, "_MOST_QUERIES", most_queries)
    uri = write_simulated_catalog(tmp_path, num_train=6, num_val=3, num_slices=3, matrix=72)
    catalog = load_catalog(uri)
    # Of two volumes at least, so that with room for few queries the pool passes more than once.
    volumes = sorted({(row.volume, row.anatomy) for row in catalog.rows() if row.split == "val"})
    anatomies = sorted({anatomy for _, anatomy in volumes[:2]})
    # Cosines that make some patches blank and some duplicates, whose counts are part of what is compared.
    cut = {"side": 32, "blank_cosine": 0.3, "duplicate_cosine": 0.7}
    expected, counts, vectors = plainly_chosen(catalog, anatomies, k=2, **cut)
    options = ["--patch-side", "32", "--blank-cosine", "0.3", "--duplicate-cosine", "0.7"]
    config = read(parser().parse_args([uri, "--name", "patches", "--anatomies", *anatomies, "--k", "2", "--patches", *options]))
    found = filter_catalog(config)
    assert (found.patches.num_queries, found.patches.num_pool, found.patches.num_blank, found.patches.num_duplicates) == counts
    assert min(counts) > 0
    assert {SampleId(**row) for row in found.subset.slices.to_pylist()} == expected
    assert 0 < len(expected) < found.num_pool
    assert found.subset.about["compared"] == "patches of 32 x 32"
    assert found.subset.about["patches"] == cut
    if most_queries > len(expected):
        return
    # Every vector is that of a patch as a share of its volume's maximum, bit for bit.
    store = open_store(f"{uri}/embeddings")
    parts = [store.read(info.key).partition(b"\n")[2] for info in store.list("parts/")]
    size = len(next(iter(vectors)))
    assert vectors <= {part[start : start + size] for part in parts for start in range(0, len(part), size)}
    # A job that was killed: of what it left nothing is made again, of the rest the same.
    kept = sorted(path for path in Path(uri).glob("embeddings/parts/*/*"))
    kept[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in kept[1:]}
    assert filter_catalog(dataclasses.replace(config, name="again")).subset.slices.equals(found.subset.slices)
    assert {path: path.stat().st_mtime_ns for path in kept[1:]} == before
    assert kept[0].exists()


def test_patches_of_a_volume_without_a_maximum_are_refused(catalog, capsys):
    table = catalog.table.set_column(catalog.table.schema.get_field_index("max_value"), "max_value", pa.array([0.0] * len(catalog)))
    commit_catalog(open_store(catalog.root), table, {})
    assert main([catalog.root, "--name", "x", "--patches"]) == 2
    assert "max_value=0.0: is no maximum of its target, by which patches are divided. Prepare the data again" in capsys.readouterr().err


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
    assert subset.about["compared"] == "whole slices"
    assert subset.about["patches"] is None
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
        (["--patch-side", "64"], "--patch-side 64: has no effect on whole slices. Add --patches"),
        (["--patches", "--patch-side", "100"], "patch side=100: must be a multiple of 16"),
        (["--patches", "--blank-cosine", "0"], "blank_cosine=0.0: must lie in (0, 1]"),
        (["--patches", "--k", "21"], "k=21: must lie between 1 and the 20 patches"),
        (["--patches", "--duplicate-cosine", "0.01", "--k", "20"], "patches that are not blank to choose from"),
        (["--patches", "--blank-cosine", "0.000001"], "0 patches that are not blank: leave nothing to be similar to"),
        (["--query-split", "test"], "queries from the test split: would let training see what it is judged on"),
        (["--anatomies", "liver"], "anatomy liver: is not in the catalog"),
        (["--k", "1000"], "k=1000: must lie between 1 and the"),
        (["--embedder", "clip"], "embedder='clip': must be one of"),
        (["--embedder", "dreamsim"], "embedder='dreamsim': needs --weights"),
        (["--embedder", "dreamsim", "--weights", "/nowhere"], "weights=/nowhere: lacks checkpoints/dino"),
        (["--workers", "99"], "workers=99: the cluster has 4 CPUs"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(refusing, arguments, message, capsys):
    assert main([refusing.root, "--name", "x", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path(refusing.root).glob("subsets/*"))
