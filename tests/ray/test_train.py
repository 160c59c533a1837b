"""Training through Ray: the number of workers changes no number, and neither does a resume."""

from pathlib import Path

import pytest

from echotrain.data.catalog.store import load_catalog
from echotrain.recipes.debug_data import ensure_debug_data
from tests.local_cluster import lines, run
from tests.wandb_files import read_history_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_one_worker_then_two_give_the_losses_of_two_all_the_way(experiment, whole):
    half = run(experiment, "workers=1", "epochs=1", "wandb.enabled=true")
    assert half.is_finished
    assert half.global_step == 5
    moved = run(experiment, "workers=2", "wandb.enabled=true")
    assert moved.global_step == whole.global_step == 10
    for ours, theirs in zip(lines(moved), lines(whole), strict=True):
        assert ours["kind"] == theirs["kind"]
        for key in ours.keys() & {"loss", "ssim", "psnr", "nmse", "grad_norm"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5), key
    assert run(experiment, "workers=2") == moved  # Finished: nothing is started.
    (path,) = Path(moved.run_uri).rglob("*.wandb")
    rows = read_history_rows(path)
    assert [row["global_step"] for row in rows if "train/loss" in row] == list(range(1, 11))
    first, second = (row for row in rows if "epoch/ssim" in row)
    assert (first["global_step"], second["global_step"]) == (5, 10)
    assert first["validation/captions"] == second["validation/captions"]
    assert len(first["validation/captions"]) == 2
    assert (first["epoch/ssim"], second["epoch/ssim"]) == (half.scores["ssim"], moved.scores["ssim"])
    assert set(first) == set(second) >= {"anatomy/brain/ssim", "anatomy/spine/psnr"}


def test_the_debug_recipes_find_data_and_make_it_once(tmp_path):
    uri = str(tmp_path / "debug" / "prepared")
    ensure_debug_data(uri)
    catalog = load_catalog(uri)
    assert set(catalog.table["split"].to_pylist()) == {"train", "val", "test"}
    ensure_debug_data(uri)
    assert load_catalog(uri).version == catalog.version
