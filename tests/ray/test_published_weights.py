"""Published weights through the verbs: the same figures and images as a run of the same network gives."""

import argparse
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from echotrain.config import to_dict
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.evaluation.stored import read_evaluation
from echotrain.models.importers import export_fastmri
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import CheckpointMeta, CheckpointWriter
from echotrain.training.experiment import Experiment, science
from ray_jobs import evaluate, reconstruct, report
from tests.scans import random_kspace, write_scan

pytestmark = pytest.mark.ray


class Hostile:
    """Makes a folder when it is unpickled as pickles are meant to be."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self._marker),)


@pytest.fixture(scope="module")
def both(catalog_uri, tmp_path_factory):
    """Return a run and a Lightning checkpoint of one network."""
    folder = tmp_path_factory.mktemp("weights")
    config = VarNetConfig(num_cascades=2, chans=3, pools=2, sens_chans=2, sens_pools=2)
    torch.manual_seed(4)
    state = config.build().state_dict()
    experiment = Experiment(name="run", data=LinesData(catalog=catalog_uri), model=config)
    store = open_store(str(folder / "run"))
    meta = CheckpointMeta(name="step-000000000", position={}, science=science(experiment), config=to_dict(experiment), catalog={})
    writer = CheckpointWriter(store, keep=1)
    writer.save(meta, {"weights": state}, is_best=True)
    writer.close()
    named = {f"varnet.{name}": tensor for name, tensor in export_fastmri(state).items()}
    hyper = argparse.Namespace(lr=1e-3, hook=Hostile(folder / "ran"))
    torch.save({"state_dict": named, "hyper_parameters": hyper}, folder / "knee.ckpt")
    return store.uri, str(folder / "knee.ckpt")


def test_an_evaluation_of_weights_equals_that_of_a_run_and_says_what_they_are(local_ray, both, catalog_uri, tmp_path, capsys):
    run, weights = both
    arguments = ["--split", "val", "--examples", "1", "--workers", "1"]
    settings = [f"data.catalog={catalog_uri}", "data.mask.accelerations=[4]", "data.mask.center_fractions=[0.08]"]
    assert evaluate.main([weights, *settings]) == 2
    assert "without --to" in capsys.readouterr().err
    assert evaluate.main([weights, *arguments, "--to", str(tmp_path / "none")]) == 2
    assert "names no catalog" in capsys.readouterr().err
    for what, to in ((run, "a"), (weights, "b")):
        assert evaluate.main([what, *settings, *arguments, "--to", str(tmp_path / to)]) == 0
    of_run, of_weights = (read_evaluation(open_store(str(tmp_path / to))) for to in "ab")
    assert of_weights.volumes == of_run.volumes
    assert of_weights.methods["model"].checkpoint == weights
    assert of_weights.methods["model"].model == "E2E-VarNet, 2 cascades, 3 channels (knee.ckpt)"
    assert len(of_weights.methods["model"].weights_sha256) == len(of_run.methods["model"].weights_sha256) == 64
    assert report.main([str(tmp_path / "b"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert of_weights.methods["model"].weights_sha256 in page
    assert "knee.ckpt" in page
    assert not (Path(weights).parent / "ran").exists()


def test_reconstructions_with_weights_equal_those_with_a_run(local_ray, both, tmp_path):
    mask = np.arange(24) % 2 == 0
    write_scan(tmp_path / "scans" / "a.h5", random_kspace((2, 3, 32, 24)) * mask, target=None)
    for what, to in zip(both, ("run", "weights"), strict=True):
        assert reconstruct.main([what, str(tmp_path / "scans"), "--to", str(tmp_path / to), "--workers", "1", "--safe-names", "a"]) == 0
    with h5py.File(tmp_path / "run" / "a.h5") as run, h5py.File(tmp_path / "weights" / "a.h5") as weights:
        np.testing.assert_array_equal(weights["reconstruction"], run["reconstruction"])
