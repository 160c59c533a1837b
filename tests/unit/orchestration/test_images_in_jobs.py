"""Jobs on images, in one process: prepare, then choose slices by an encoder; what Ray does of it is to call a function per item."""

import json

import numpy as np
import pytest
import torch

from echotrain.data.catalog.subsets import load_subset
from echotrain.data.splits.given import GivenSplitConfig
from echotrain.orchestration.jobs import embedding, filtering
from echotrain.orchestration.jobs import prepare as preparing
from echotrain.orchestration.jobs.filtering import FilterConfig
from echotrain.orchestration.jobs.prepare import PrepareConfig
from echotrain.orchestration.runtime.capacity import Capacity, Node
from echotrain.recipes.mae import mae_debug
from tests.dicoms import random_images, write_nifti, write_series


def map_here(items, work, *arguments, **resources):
    """Do the work of ``map_items`` without Ray: items travel as text, as they do there."""
    items = [json.loads(json.dumps(item)) for item in items]
    worker = work(*arguments) if isinstance(work, type) else lambda item: work(item, *arguments)
    yield from (worker(item) for item in items)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    for job in (preparing, embedding):
        monkeypatch.setattr(job, "connect", lambda: None)
        monkeypatch.setattr(job, "map_items", map_here)
    monkeypatch.setattr(embedding, "capacity", lambda: Capacity(nodes=(Node(cpus=2),)))


@pytest.fixture
def scans(tmp_path):
    """Four series of a patient each, two of them in one folder, and a NIfTI volume of a fifth."""
    for number in range(4):

        def of_its_own(index, made, number=number):
            made.PatientID, made.PatientName = f"id{number}", f"Name{number}"

        volume = random_images(4, 16, 20, seed=number)
        folder = tmp_path / "scans" / ("both" if number > 1 else f"study{number}")
        write_series(folder, volume, uid=f"1.2.{number}", prefix=f"s{number}", change=of_its_own)
    write_nifti(tmp_path / "scans" / "sub-09" / "scan.nii.gz", random_images(16, 12, 3, seed=9), np.diag([1, 1, 4.0, 1]))
    return tmp_path / "scans"


def test_images_are_prepared_resumed_and_added_to(scans, tmp_path) -> None:
    config = PrepareConfig(source=str(scans), to=str(tmp_path / "out"), salt="a secret")
    report = preparing.prepare(config)
    assert (report.num_scans, report.num_resumed, report.left_out) == (4, 0, [])
    rows = report.catalog.rows()
    assert len({row.volume for row in rows}) == len({row.patient for row in rows}) == 5
    assert {row.kind for row in rows} == {"image"}
    assert {row.split for row in rows} == {"train", "val", "test"}
    assert all(report.paths[scan["source"]].startswith(str(scans)) for scan in report.scans)

    again = preparing.prepare(config)
    assert (again.is_new, again.num_resumed) == (False, 4)
    write_series(scans / "study7", random_images(2, 9, 9, seed=7), uid="1.2.7")
    more = preparing.prepare(config)
    assert (more.is_new, more.num_resumed) == (True, 4)
    before = {(row.volume, row.slice): row.split for row in rows}
    after = {(row.volume, row.slice): row.split for row in more.catalog.rows()}
    assert len(after) == len(before) + 2
    assert before.items() <= after.items()


def test_a_given_split_by_folders_is_that_of_all_series_in_them(scans, tmp_path) -> None:
    for name, folder in (("train", "both"), ("val", "study0"), ("test", "study1")):
        (tmp_path / "split" / name).mkdir(parents=True)
        (scans / folder).rename(tmp_path / "split" / name / folder)
    config = PrepareConfig(
        source=str(tmp_path / "split"), to=str(tmp_path / "out"), given_split=GivenSplitConfig(kind="folders"), salt="a secret"
    )
    rows = preparing.prepare(config).catalog.rows()
    assert {split: len({row.volume for row in rows if row.split == split}) for split in ("train", "val", "test")} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }


def test_slices_are_chosen_by_an_encoder_and_another_one_in_its_place_is_asked_anew(scans, tmp_path) -> None:
    catalog = preparing.prepare(PrepareConfig(source=str(scans), to=str(tmp_path / "out"), salt="a secret")).catalog
    weights = tmp_path / "encoder.pt"
    chosen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = mae_debug().model.build()
        torch.save(network.encoder_state(), weights)
        weights.with_suffix(".json").write_text(json.dumps({"heads": network.encoder_shape().heads}))
        for name in (f"like-{seed}", f"again-{seed}"):
            config = FilterConfig(catalog=str(tmp_path / "out"), name=name, k=1, embedder="vit", weights=str(weights))
            filtering.filter_catalog(config)
            chosen.append(load_subset(catalog.root, name).slices)
    assert chosen[0].equals(chosen[1])
    assert chosen[2].equals(chosen[3])
    assert len(list((tmp_path / "out" / "embeddings" / "parts").iterdir())) == 2
