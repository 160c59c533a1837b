"""A study from beginning to end, in small: models, tests, the page; what was done is not done again."""

import json
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from echotrain.errors import CatalogError, ConfigError, ResourceError
from echotrain.orchestration.jobs.study import PAGE, run_study
from echotrain.recipes.studies import find_study
from echotrain.studies.settings import override_study
from echotrain.sweeps.console import SweepConsole
from ray_jobs.study import main
from tests.bart_toolbox import has_bart
from tests.simulated import write_simulated_catalog

pytestmark = pytest.mark.ray

TINY = [
    "model.chans=2",
    "model.pools=2",
    "model.sens_chans=2",
    "model.sens_pools=2",
    "epochs=1",
    "batch_size=4",
    "optim.schedule.warmup_steps=0",
]
SMALL = ["sizes=[1,2]", "fractions=[0.5,1.0]", "random_fraction=0.5", "accelerations=[[4,0.12],[3,0.12]]", "rivals=[]"]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_simulated_catalog(tmp_path_factory.mktemp("study"), num_train=18, num_val=0, num_slices=2)


def small(catalog, storage, *settings):
    places = [f"data.catalog={catalog}", f"storage={storage}", f"espirit_volumes={2 if has_bart() else 0}"]
    return override_study(find_study("mosaic_simulated")(), [*places, *TINY, *SMALL, *settings])


def run(study):
    # One model at a time: tiny ones take less time than a second group of workers needs to start.
    return run_study(study, concurrency=1, console=SweepConsole(Console(quiet=True)), generated="Now.")


def written(folder):
    """Return when each result of the folder was written."""
    return {path: path.stat().st_mtime_ns for name in ("metrics.jsonl", "summary.json", "*.npz") for path in folder.rglob(name)}


def test_a_study_ends_with_its_page_and_goes_on_where_it_was(local_ray, catalog, tmp_path):
    study = small(catalog, tmp_path, "sections=[dataset,benchmark,scaling,filtering]", "by_patches=true", "data.val_follows_fraction=true")
    result = run(study)
    folder = tmp_path / "mosaic_simulated"
    assert result.is_finished
    names = [trial.name for trial in result.trials]
    grid = [f"num_cascades={size} fraction={fraction} seed=42" for size in (1, 2) for fraction in ("0.5", "1")]
    assert set(grid) < set(names)
    assert len(names) == 7  # The grid, 3x, knees, the filtered set.
    assert [trial.state for trial in result.trials] == ["finished"] * 7
    methods = (folder / "tables/benchmark.csv").read_text().splitlines()
    expected = ["Method", "Zero-filled", *(["ESPIRiT (BART)"] if has_bart() else []), "E2E-VarNet"]
    assert [line.strip('"')[: len(name)] for line, name in zip(methods, expected, strict=True)] == expected
    assert "R = 3" in methods[0]
    assert "R = 4" in methods[0]
    assert len((folder / "tables/filtering.csv").read_text().splitlines()) == 5
    assert Path(catalog, "subsets/knee-4nn-gradients-p128-v1.parquet").exists()
    told = (folder / PAGE).read_text()
    for words in ("patches that are not blank", "the same fraction of the validation volumes", "Masked k-space"):
        assert words in told, words
    for name in ("scaling-psnr", "volumes", "montage"):
        assert (folder / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
    before, page = written(folder), (folder / PAGE).read_bytes()

    # Again: nothing is trained and nothing is tested.
    assert run(study).trials == result.trials
    assert written(folder) == before
    assert (folder / PAGE).read_bytes() == page

    # One test was lost, and fewer sections are asked for: that test alone is made again, and the page has them alone.
    lost = next(path for path in before if path.name == "summary.json" and "fraction=0.5" in str(path))
    lost.unlink()
    fewer = small(catalog, tmp_path, "sections=[scaling]", "data.val_follows_fraction=true")
    assert sorted(trial.name for trial in run(fewer).trials) == grid
    now = written(folder)
    assert {path for path in before if before[path] != now[path]} == {lost, lost.parent / "examples.npz"}
    assert "Data filtering" not in (folder / PAGE).read_text()

    # A network of another kind is another study.
    with pytest.raises(ConfigError, match=r"holds another sweep: model.chans was 2, now 3"):
        run(small(catalog, tmp_path, "model.chans=3", "data.val_follows_fraction=true"))


def test_what_cannot_be_studied_is_refused_before_anything_is_written(local_ray, catalog, tmp_path, monkeypatch, capsys):
    for setting, error in (("min_volumes=50", CatalogError), ("neighbors=5000", ConfigError), ("embedder=none", ConfigError)):
        with pytest.raises(error):
            run(small(catalog, tmp_path, setting))
    for concurrency, error in ((-1, ConfigError), (99, ResourceError)):
        with pytest.raises(error, match="trials at a time"):
            run_study(small(catalog, tmp_path), concurrency=concurrency)
    monkeypatch.setenv("ECHOTRAIN_BART", str(tmp_path / "missing"))
    with pytest.raises(ResourceError, match="espirit_volumes=0"):
        run(small(catalog, tmp_path, "espirit_volumes=2"))
    assert list(tmp_path.iterdir()) == []
    assert main(["mosaik"]) == 2
    assert "Did you mean 'mosaic'" in capsys.readouterr().err
    assert main(["mosaic", "--show", "seeds=[1,2]"]) == 0
    # As a shell takes it.
    shown = dict(shlex.split(line)[0].split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert json.loads(shown["seeds"]) == [1, 2]
    assert shown["model.num_cascades"] == "8"
