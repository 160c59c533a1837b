"""Training through Ray: the number of workers changes no number, and neither does a resume."""

import json
from pathlib import Path

import pytest

from echotrain.data.catalog_store import load_catalog
from echotrain.recipes.debug_data import ensure_debug_data
from tests.local_cluster import lines, run
from tests.wandb_files import read_records

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
    first, second = (dict(wandb_run(path)) for path in sorted(Path(moved.run_uri).rglob("*.wandb")))
    assert first["id"] == second["id"]
    assert first["captions"] == second["captions"]
    assert len(first["captions"]) == 2
    assert second["epoch/ssim"] == moved.scores["ssim"]
    assert {name for name in second if name.startswith("anatomy/")} >= {"anatomy/brain/ssim", "anatomy/spine/psnr"}


def wandb_run(path):
    """Yield what W&B knows of a run: its id, the latest numbers, and the captions of its pictures."""
    for kind, message in read_records(path):
        if kind == "run":
            yield "id", message.run_id
        if kind == "history":
            for item in message.item:
                name = item.key or "/".join(item.nested_key)
                yield ("captions" if name == "validation/captions" else name), json.loads(item.value_json)


def test_the_debug_recipes_find_data_and_make_it_once(tmp_path):
    uri = str(tmp_path / "debug" / "prepared")
    ensure_debug_data(uri)
    catalog = load_catalog(uri)
    assert set(catalog.table["split"].to_pylist()) == {"train", "val", "test"}
    ensure_debug_data(uri)
    assert load_catalog(uri).version == catalog.version
