import dataclasses
import json
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from echotrain.config import to_dict
from echotrain.data.catalog.store import load_catalog
from echotrain.data.fetch import Fetcher
from echotrain.data.formats.sources import find_sources
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.sample_format import StepRows
from echotrain.errors import CatalogError, CheckpointError, ConfigError, PayloadError, ResourceError
from echotrain.evaluation.stored import read_evaluation
from echotrain.evaluation.submission import MosaicChallenge, write_submission
from echotrain.metrics.volume import score_volume
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.jobs import reconstruct as reconstruct_module
from echotrain.orchestration.jobs.evaluate import evaluate
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.orchestration.jobs.reconstruct import reconstruct
from echotrain.physics.coils import rss
from echotrain.physics.crop import center_crop
from echotrain.physics.fft import ifft2c
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import CheckpointMeta, CheckpointWriter
from echotrain.training.experiment import Experiment, science
from ray_jobs import evaluate as evaluate_verb
from ray_jobs import reconstruct as reconstruct_verb
from ray_jobs import report as report_verb
from tests.bart_toolbox import has_bart
from tests.scans import header_xml, random_kspace, write_scan

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def experiment(catalog_uri):
    model = VarNetConfig(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2)
    return Experiment(name="untrained", data=LinesData(catalog=catalog_uri), model=model)


@pytest.fixture(scope="module")
def run_uri(experiment, tmp_path_factory):
    """Return a run whose only checkpoint is a network as it was initialised."""
    store = open_store(str(tmp_path_factory.mktemp("runs") / "untrained"))
    torch.manual_seed(0)
    meta = CheckpointMeta(name="step-000000000", position={}, science=science(experiment), config=to_dict(experiment), catalog={})
    writer = CheckpointWriter(store, keep=1)
    writer.save(meta, {"weights": experiment.model.build().state_dict()}, is_best=True)
    writer.close()
    return store.uri


def test_zero_filled_scores_are_those_of_a_plain_reconstruction(local_ray, run_uri, experiment):
    evaluation = evaluate(InferenceConfig(run=run_uri, workers=2), split="val", num_examples=1)
    catalog = load_catalog(experiment.data.catalog)
    rows = [row for row in catalog.rows() if row.split == "val"]
    assert {v.volume for v in evaluation.volumes} == {row.volume for row in rows}
    assert len(evaluation.examples) == 1
    for result in evaluation.volumes:
        fetcher = Fetcher(catalog, experiment.data.make_format(seed=experiment.seed))
        steps = [StepRows([row], [1.0], 1) for row in rows if row.volume == result.volume]
        batches = [batch for step in fetcher.fetch(steps, epoch=None) for batch in step.batches]
        images = [rss(ifft2c(batch.kspace * batch.mask))[0] for batch in batches]
        targets = np.stack([batch.target[0].numpy() for batch in batches])
        plain = np.stack([center_crop(image, targets.shape[1:]).numpy() for image in images])
        for example in evaluation.examples:
            if example.volume == result.volume:
                (batch,) = (batch for batch in batches if batch.ids[0].slice == example.slice)
                acquired = (batch.kspace * batch.mask)[0].abs().square().sum(0).sqrt().numpy()
                assert example.masked_kspace == pytest.approx(acquired, rel=1e-5)
                assert (example.masked_kspace.any(axis=0) == batch.mask[0, 0, 0].numpy()).all()
        expected = score_volume(targets, plain)
        assert result.scores["zero_filled"] == pytest.approx(expected, rel=1e-4)
        assert result.num_slices == len(batches)
        fetcher.close()
    (example,) = evaluation.examples
    assert {image.shape for image in example.images.values()} == {example.target.shape}


def test_the_verb_leaves_an_evaluation_that_can_be_read_back(local_ray, run_uri, tmp_path, capsys):
    assert evaluate_verb.main([run_uri, "--split", "val", "--to", str(tmp_path / "out"), "--note", "simulated"]) == 0
    found = read_evaluation(open_store(str(tmp_path / "out")))
    assert found.info.note == "simulated"
    assert found.info.catalog.endswith("@1")
    assert "| All volumes | 2 |" in capsys.readouterr().out


def test_a_killed_evaluation_goes_on_with_the_volumes_that_are_missing(local_ray, run_uri, tmp_path):
    method, where = InferenceConfig(run=run_uri, workers=1), str(tmp_path / "out")
    whole = evaluate(method, split="val", num_examples=2, resume_in=where)
    first, second = sorted(path for path in (tmp_path / "out/parts").rglob("0*") if path.is_file())
    second.unlink()
    values, _, pictures = first.read_bytes().partition(b"\n")
    kept = json.loads(values)
    kept["model"][0][1][0] *= 4  # A squared error that only this file knows.
    first.write_bytes(json.dumps(kept).encode() + b"\n" + pictures)
    again = evaluate(method, split="val", num_examples=2, resume_in=where)
    assert again.volumes[0].scores["model"]["nmse"] > 1.1 * whole.volumes[0].scores["model"]["nmse"]
    assert again.volumes[1] == whole.volumes[1]
    for example, before in zip(again.examples, whole.examples, strict=True):
        assert example.volume == before.volume
        assert np.array_equal(example.masked_kspace, before.masked_kspace)
        assert np.array_equal(example.target, before.target)
    # A part that a version left which kept no k-space.
    shape = kept.pop("kspace_shape")
    first.write_bytes(json.dumps(kept).encode() + b"\n" + pictures[: -4 * shape[0] * shape[1]])
    older = evaluate(method, split="val", num_examples=2, resume_in=where)
    assert [example.masked_kspace is None for example in older.examples].count(True) == 1
    assert all(np.array_equal(example.target, before.target) for example, before in zip(older.examples, whole.examples, strict=True))
    other_masks = evaluate(
        dataclasses.replace(method, overrides=("data.mask.accelerations=[3]",)), split="val", num_examples=2, resume_in=where
    )
    assert other_masks.volumes[0].scores["zero_filled"] != whole.volumes[0].scores["zero_filled"]
    assert other_masks.volumes[0].scores["model"]["nmse"] < again.volumes[0].scores["model"]["nmse"]


@pytest.mark.parametrize(
    ("config", "split", "error", "fragment"),
    [
        ({}, "test", CatalogError, "The catalog has split: train, val"),
        ({}, "validation", ConfigError, "split='validation'"),
        ({"overrides": ("data.anatomies=[heart]",)}, "val", CatalogError, "heart"),
        ({"overrides": ("model.chans=8",)}, "val", CheckpointError, "disagrees"),
        ({"overrides": ("model.chan=8",)}, "val", ConfigError, "model.chans"),
        ({"workers": 99}, "val", ResourceError, "workers=99"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_with_its_reason(local_ray, run_uri, config, split, error, fragment):
    with pytest.raises(error, match=fragment):
        evaluate(InferenceConfig(run=run_uri, **config), split=split)


@pytest.mark.bart
def test_espirit_is_evaluated_like_a_model_and_stands_beside_it(local_ray, run_uri, catalog_uri, tmp_path, capsys):
    if not has_bart():
        pytest.skip("the BART toolbox is not there: make bart")
    model, espirit = (str(tmp_path / name) for name in ("model", "espirit"))
    settings = [f"data.catalog={catalog_uri}", "data.mask.center_fractions=[0.2]"]
    assert evaluate_verb.main([run_uri, *settings, "--split", "val", "--to", model, "--examples", "1"]) == 0
    assert evaluate_verb.main(["espirit", *settings, "espirit.iterations=30", "--split", "val", "--to", espirit, "--examples", "1"]) == 0
    found = read_evaluation(open_store(espirit))
    assert found.methods["model"].model == "ESPIRiT (BART), TV 0.01, 30 iterations"
    assert not [path for path in (tmp_path / "espirit/parts").rglob("*") if path.is_file()]
    assert [v.scores["zero_filled"] for v in found.volumes] == [v.scores["zero_filled"] for v in read_evaluation(open_store(model)).volumes]
    assert report_verb.main([model, espirit, "--out", str(tmp_path / "both.html")]) == 0
    page = (tmp_path / "both.html").read_text()
    assert "against ESPIRiT" in page or "against E2E-VarNet" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.catalog=/nowhere"], "espirit without --to"),
        (["espirit.iterations=0", "--to", "out"], "iterations=0: must be at least 1"),
        (["espirit.lambda=1", "--to", "out"], "unknown key 'espirit.lambda'"),
    ],
)
def test_an_espirit_that_cannot_run_is_refused(arguments, message, capsys, tmp_path, monkeypatch):
    fake = tmp_path / "bart"
    fake.write_text("#!/bin/sh")
    fake.chmod(0o755)
    monkeypatch.setenv("ECHOTRAIN_BART", str(fake))
    monkeypatch.chdir(tmp_path)
    assert evaluate_verb.main(["espirit", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_espirit_without_bart_is_refused_with_the_way_to_get_it(capsys, monkeypatch):
    monkeypatch.setenv("ECHOTRAIN_BART", "/nowhere/bart")
    assert evaluate_verb.main(["espirit", "--to", "out"]) == 2
    assert "ECHOTRAIN_BART=/nowhere/bart" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_refused(tmp_path, capsys):
    assert evaluate_verb.main([str(tmp_path / "nothing")]) == 2
    assert "has no best checkpoint" in capsys.readouterr().err


def test_a_flipped_bit_in_a_shard_stops_the_evaluation_by_name(local_ray, run_uri, experiment, tmp_path):
    import shutil

    shutil.copytree(experiment.data.catalog, tmp_path / "copy")
    catalog = load_catalog(str(tmp_path / "copy"))
    row = next(row for row in catalog.rows() if row.split == "val")
    shard = tmp_path / "copy" / row.uri
    content = bytearray(shard.read_bytes())
    content[row.offset + 100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(PayloadError, match="checksum"):
        evaluate(InferenceConfig(run=run_uri, overrides=(f"data.catalog={tmp_path / 'copy'}",)), split="val")


@pytest.fixture
def scans(tmp_path) -> Path:
    """Return a folder with an undersampled scan, a fully sampled one, one without its centre line, and one that is no scan."""
    kspace = random_kspace((2, 3, 32, 24))
    mask = np.zeros(24, bool)
    mask[::3] = mask[9:15] = True
    write_scan(tmp_path / "scans" / "undersampled.h5", kspace * mask, target=None)
    write_scan(tmp_path / "scans" / "full.h5", kspace)
    write_scan(tmp_path / "scans" / "hollow.h5", kspace * (np.arange(24) % 2 == 1), target=None)
    (tmp_path / "scans" / "broken.h5").write_bytes(b"not a scan")
    return tmp_path / "scans"


def test_reconstructions_are_fastmri_layout_and_unusable_files_are_told_about(local_ray, run_uri, scans, tmp_path):
    done = {
        Path(result.source).stem: result
        for result in reconstruct(InferenceConfig(run=run_uri, workers=1), str(scans), str(tmp_path / "out"), safe_names=["undersampled"])
    }
    assert "fully sampled" in done["full"].error
    assert done["broken"].error.startswith("the file: is no format that can be read. Give")
    assert done["broken"].name.startswith("unreadable-")
    assert "lacks the centre line" in done["hollow"].error
    assert done["undersampled"].acceleration == pytest.approx(24 / 12)
    with h5py.File(done["undersampled"].output) as file:
        assert file["reconstruction"].shape == (2, 32, 24)
        assert file["reconstruction"].dtype == np.float32
        assert "ismrmrd_header" in file
    with Image.open(tmp_path / "out" / "undersampled.png") as picture:
        assert picture.size == (48, 32)
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"undersampled"}


def test_a_full_scan_is_undersampled_when_asked_to(local_ray, run_uri, scans, tmp_path, capsys):
    command = [run_uri, str(scans / "full.h5"), "--to", str(tmp_path / "out"), "--undersample"]
    assert reconstruct_verb.main([*command, "--safe-names", "fu.*"]) == 0
    assert f"full -> {tmp_path}/out/full.h5  2 slices" in capsys.readouterr().out
    assert reconstruct_verb.main(command) == 0
    said = capsys.readouterr().out
    assert re.match(r"(volume-[0-9a-f]{12}) -> .*/\1.h5  2 slices", said)
    assert "full" not in said.removesuffix("\n").rpartition("/")[2]


def test_reconstructions_never_land_among_the_scans(run_uri, scans, tmp_path):
    (tmp_path / "link").symlink_to(scans)
    for source, to in ((scans, scans), (scans / "full.h5", scans), (scans, scans / "out"), (scans, tmp_path / "link")):
        with pytest.raises(ConfigError, match="lies among the scans"):
            list(reconstruct(InferenceConfig(run=run_uri), str(source), str(to)))


def test_files_of_one_name_are_kept_apart_and_nothing_is_overwritten_unasked(local_ray, run_uri, tmp_path):
    source, to = tmp_path / "scans", tmp_path / "out"
    for folder in ("patient1", "patient2"):
        write_scan(source / folder / "t1.h5", random_kspace((1, 2, 32, 24)))
    to.mkdir()
    write_scan(to / "t2.h5")
    mine = (to / "t2.h5").read_bytes()
    write_scan(source / "t2.h5")
    write_scan(source / "alone.h5")

    def run(**options):
        config = InferenceConfig(run=run_uri, workers=1)
        found = reconstruct(config, str(source), str(to), undersample=True, safe_names=[r"t\d|alone"], **options)
        return {result.source: result for result in found}

    done = run()
    assert "the file: is there already. Give --overwrite" in done[str(source / "t2.h5")].error
    outputs = {done[str(source / folder / "t1.h5")].output for folder in ("patient1", "patient2")}
    assert len(outputs) == 2
    assert done[str(source / "alone.h5")].output == str(to / "alone.h5")
    assert all(Path(output).name.startswith("t1-") and "patient" not in Path(output).name for output in outputs)
    assert (to / "t2.h5").read_bytes() == mine
    assert all("already" in result.error for result in run().values())
    assert not any(result.error for result in run(overwrite=True).values())


@pytest.mark.parametrize("vouches", [True, False])
def test_reconstructions_become_a_submission_under_the_names_of_the_test_set(local_ray, run_uri, tmp_path, vouches):
    # Two of one name, one named by a date and one by nobody whom a pattern knows, for which reconstruct makes pseudonyms.
    names = ("x4/t1.h5", "x8/t1.h5", "file1000001.h5", "x4/file1000002.h5", "plain.h5", "2025-07-31.h5")
    for seed, name in enumerate(names):
        write_scan(tmp_path / "test" / name, random_kspace((2, 2, 32, 24), seed) * (np.arange(24) % 2 == 0), target=None)
    config, safe_names = InferenceConfig(run=run_uri, workers=1), ["t1"] if vouches else []
    results = list(reconstruct(config, str(tmp_path / "test"), str(tmp_path / "images"), safe_names=safe_names))
    outputs = {str(Path(result.source).relative_to(tmp_path / "test")): result.output for result in results}
    assert not any("2025" in output for output in outputs.values())
    challenge = MosaicChallenge(track="reconstruction")
    assert write_submission(challenge, str(tmp_path / "images"), str(tmp_path / "test"), tmp_path / "out.zip").num_files == len(names)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        for name in names:
            with archive.open(f"out/{name}") as member, h5py.File(member) as file, h5py.File(outputs[name]) as reconstructed:
                np.testing.assert_array_equal(file["reconstruction_rss"], reconstructed["reconstruction"])


def test_on_a_cluster_names_that_need_no_key_are_reconstructed_without_one(run_uri, tmp_path, monkeypatch):
    monkeypatch.delenv("ECHOTRAIN_DEID_SALT")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    write_scan(tmp_path / "test" / "file1000001.h5")
    sources = find_sources(str(tmp_path / "test"))
    assert reconstruct_module._deidentifier(str(tmp_path / "test"), sources, ()).is_safe_name("file1000001")
    write_scan(tmp_path / "test" / "x4" / "file1000002.h5")
    with pytest.raises(ConfigError, match="no ECHOTRAIN_DEID_SALT: some of 2 files need pseudonyms"):
        list(reconstruct(InferenceConfig(run=run_uri), str(tmp_path / "test"), str(tmp_path / "out")))
    write_scan(tmp_path / "test" / "Doe.h5")
    with pytest.raises(ConfigError, match="1 of 3 files need pseudonyms"):
        list(reconstruct(InferenceConfig(run=run_uri), str(tmp_path / "test"), str(tmp_path / "out")))


def test_a_3d_encode_is_not_reconstructed_slice_by_slice(local_ray, run_uri, tmp_path):
    write_scan(tmp_path / "scans" / "volume3d.h5", header=header_xml(32, 24, depth=8))
    (result,) = reconstruct(InferenceConfig(run=run_uri, workers=1), str(tmp_path / "scans"), str(tmp_path / "out"), undersample=True)
    assert "3D encode of 8 partitions" in result.error


def test_empty_slices_stay_empty_and_an_empty_scan_is_told_about(local_ray, run_uri, tmp_path):
    kspace = random_kspace((3, 2, 32, 24))
    kspace[..., 1::2] = 0
    kspace[1] = 0
    write_scan(tmp_path / "scans" / "hollow.h5", kspace, target=None)
    write_scan(tmp_path / "scans" / "empty.h5", np.zeros_like(kspace), target=None)
    results = reconstruct(InferenceConfig(run=run_uri, workers=1), str(tmp_path / "scans"), str(tmp_path / "out"))
    done = {Path(result.source).stem: result for result in results}
    assert "no measured line" in done["empty"].error
    with h5py.File(done["hollow"].output) as file:
        assert [bool(image.any()) for image in file["reconstruction"][:]] == [True, False, True]
