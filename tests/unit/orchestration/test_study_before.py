"""A study that commit 2d0091e finished goes on: nothing is trained and nothing tested again, and its tables have the same numbers.

Its ``run_study`` made what is in ``of_2d0091e/study.json.gz`` (texts by their paths, other files in base64), weights, pictures and payloads
aside. Its models are told by values such as ``data.anatomies``, which have other names now.
"""

import base64
import csv
import gzip
import json
from pathlib import Path

import pytest

from echotrain.data.catalog.subsets import load_subset
from echotrain.errors import ConfigError
from echotrain.evaluation.figures import Chart
from echotrain.orchestration.jobs import study as job
from echotrain.orchestration.jobs import tuning
from echotrain.orchestration.jobs.filtering import Filtered
from echotrain.orchestration.jobs.study import PAGE, run_study
from echotrain.recipes.studies import find_study
from echotrain.studies.settings import override_study

BEFORE = Path(__file__).parent / "of_2d0091e" / "study.json.gz"
SETTINGS = [
    *("model.chans=2", "model.pools=2", "model.sens_chans=2", "model.sens_pools=2", "epochs=1", "batch_size=4"),
    *("optim.schedule.warmup_steps=0", "espirit_volumes=0", "sizes=[1,2]", "fractions=[0.5,1.0]", "random_fraction=0.5"),
    *("accelerations=[[4,0.12],[3,0.12]]", "rivals=[]", "sections=[benchmark,scaling,anatomies,shift,filtering]"),
    # As one wrote it then.
    "shift=[{anatomies: [knee]}, {datasets: [simulated], anatomies: [knee, brain]}]",
]


@pytest.fixture
def root(tmp_path):
    for key, content in json.loads(gzip.decompress(BEFORE.read_bytes())).items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            path.write_bytes(base64.b64decode(content["base64"]))
        else:
            path.write_text(content.replace("@ROOT@", str(tmp_path)))
    return tmp_path


@pytest.fixture
def work(monkeypatch, root):
    """Note what would be trained and tested; nothing is, and no cluster is asked for."""
    done = {"trained": [], "tested": []}
    monkeypatch.setattr(Chart, "files", lambda chart: {"svg": chart.light})
    monkeypatch.setattr(job, "connect", lambda: None)
    monkeypatch.setattr(job, "trials_at_a_time", lambda base, wanted: 1)
    monkeypatch.setattr(job, "evaluate_all", lambda jobs: done["tested"].extend(jobs) or iter(()))
    for name in ("connect", "check_writable", "warn_of_unshared_folder"):
        monkeypatch.setattr(tuning, name, lambda *arguments: None)
    monkeypatch.setattr(tuning, "trials_at_a_time", lambda base, wanted: 1)
    monkeypatch.setattr(tuning, "_run", lambda spec, base, book, *others: done["trained"].append(book.next()))

    def filtered(config):
        subset = load_subset(str(root / "cat/prepared"), config.name)
        return Filtered(subset=subset, num_queries=4, num_pool=24, by_anatomy={"knee": 6})

    monkeypatch.setattr(job, "filter_catalog", filtered)
    return done


def study(root, *settings):
    places = (f"data.catalog={root}/cat/prepared", f"storage={root}/out")
    return override_study(find_study("mosaic_simulated")(), [*places, *SETTINGS, *settings])


def test_nothing_of_it_is_trained_or_tested_again(root, work):
    folder = root / "out/mosaic_simulated"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".json", ".npz") or "evaluation" in str(path.parent)}
    tables = {path.name: path.read_text() for path in folder.glob("tables/*.csv")}
    result = run_study(study(root), generated="Now.")
    assert result.is_finished
    assert [trial.state for trial in result.trials] == ["finished"] * 10
    assert work == {"trained": [], "tested": []}
    assert {path: path.read_bytes() for path in before} == before
    assert "Dataset shift" in (folder / PAGE).read_text()
    # By value: the names of settings, and so of trials, are those of today.
    for name, text in tables.items():
        now = list(csv.reader((folder / "tables" / name).read_text().splitlines()))
        if name != "filtering-composition.csv":
            assert now == list(csv.reader(text.splitlines())), name


def test_what_it_lacks_is_trained_and_nothing_else(root, work):
    result = run_study(study(root, "sizes=[1,2,4]"))
    assert not result.is_finished
    (trial,) = work["trained"]
    assert (trial.number, trial.values["model.num_cascades"]) == (10, 4)


def test_another_network_is_another_study_still(root, work):
    with pytest.raises(ConfigError, match=r"holds another sweep: model.chans was 2, now 3"):
        run_study(study(root, "model.chans=3"))
