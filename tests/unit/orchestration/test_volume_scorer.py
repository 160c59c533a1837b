"""A worker of an evaluation scores what it reconstructs, without Ray."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from echotrain.data.planned import PlannedStream
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError, NotFiniteError
from echotrain.metrics.collector import VolumeCollector
from echotrain.orchestration.jobs.evaluate import EvaluationJob, _Gathered, _VolumeScorer, _Work
from echotrain.orchestration.jobs.inference import Subject, WorkerSetup
from echotrain.physics.kt_masks import KtMaskConfig
from echotrain.tasks.reconstruction import masked_kspace, zero_filled
from tests.catalogs import write_catalog
from tests.frame_catalogs import write_frames
from tests.simulated import write_cine_catalog, write_simulated_catalog


@dataclass(frozen=True)
class Blurred:
    """A method: the zero-filled image, a little blurred; of some slice on it is not finite."""

    data: DataConfig
    broken_from: int = 1000
    workers = 1
    threads_per_worker = 1
    uses_gpu = False
    device = torch.device("cpu")

    def resolved(self):
        return self, Subject(name="blurred", model="none", data=self.data)

    def load(self):
        return self

    def reconstruct(self, batch):
        image = zero_filled(batch)
        blurred = 0.9 * image + 0.1 * image.roll(1, -1)
        return blurred / 0 if batch.ids[0].slice >= self.broken_from else blurred


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_simulated_catalog(tmp_path_factory.mktemp("catalog"), num_train=1, num_val=2)


def scorer_of(method):
    work = _Work.of(EvaluationJob(method=method, split="val"), {})
    return _VolumeScorer(WorkerSetup(method=method), [work.told]), [{"job": 0, **item} for item in work.items]


@dataclass(frozen=True)
class Trained(Blurred):
    """The same, of some weights."""

    def resolved(self):
        return self, Subject(name="trained", model="a network", weights="somewhere", data=self.data)


def test_a_trained_method_is_not_given_other_coils_than_it_learnt_from(catalog):
    eight, all_coils = Trained(LinesData(catalog=catalog, coils=8)), Trained(LinesData(catalog=catalog))
    untrained = {"other": Blurred(LinesData(catalog=catalog))}
    for method, beside in ((eight, {"other": eight}), (eight, untrained), (all_coils, {"other": all_coils})):
        assert _Work.of(EvaluationJob(method=method, beside=beside, baseline="", split="val"), {}).volumes
    for method, beside, said in (
        (eight, all_coils, "data.coils=0, and would be given data.coils=8"),
        (all_coils, eight, "data.coils=8, and"),
    ):
        with pytest.raises(ConfigError, match=rf"other \(trained\): learnt from {said}"):
            _Work.of(EvaluationJob(method=method, beside={"other": beside}, baseline="", split="val"), {})


def test_only_what_is_evaluated_is_checked(tmp_path):
    """Volumes to train on, of which a mask's centre was never measured, are nobody's concern in an evaluation of others."""
    shapes = {"shapes": ((4, 24, 20),), "volumes": 3, "splits": ("train", "val", "val"), "unmeasured": ((14, 0), (0, 0), (0, 0))}
    written = write_catalog(tmp_path, **shapes)
    method = Blurred(LinesData(catalog=written.catalog.root, coils=2))
    assert len(_Work.of(EvaluationJob(method=method, split="val"), {}).volumes) == 2
    with pytest.raises(ConfigError, match="2 coils cannot be found in a mask's 0 central points"):
        _Work.of(EvaluationJob(method=method, split="all"), {})


def slices(folder):
    """Return data whose volumes have four slices."""
    return LinesData(catalog=write_simulated_catalog(folder, num_train=1, num_val=2)), [(index, None) for index in range(4)]


def frames(folder):
    """Return data whose volumes have two slices of three frames, looked at in windows."""
    written = write_frames(folder, volumes=3, frames=(3,), splits=("train", "val", "val"))
    mask = KtMaskConfig(kinds=("kt_gaussian", "kt_radial"), accelerations=(4,), acs_lines=4)
    places = [(index, frame) for index in range(2) for frame in range(3)]
    return KtData(catalog=written.catalog.root, mask=mask, num_adjacent=3), places


@pytest.mark.parametrize("kind", [slices, frames])
def test_images_are_scored_as_one_after_the_other_to_the_bit_and_in_order(kind, tmp_path):
    data, places = kind(tmp_path)
    scorer, items = scorer_of(Blurred(data))
    expected = {}
    for batch in PlannedStream(data, seed=0, batch_size=1).evaluation("val"):
        (sample,) = batch.ids
        for name, image in (("model", Blurred(data).reconstruct(batch)), ("zero_filled", zero_filled(batch))):
            collector = expected.setdefault((sample.volume, name), VolumeCollector())
            collector.add(tuple(sample), batch.target[0].numpy(), image[0].numpy(), float(batch.max_value))
    results = [scorer(item).values for item in items]
    assert len(results) == 2
    for values in results:
        volume = values["model"][0][0][1]
        assert values["model"] == expected[volume, "model"].state()
        assert values["zero_filled"] == expected[volume, "zero_filled"].state()
        assert [tuple(key[2:]) for key, _ in values["model"]] == places


@pytest.mark.parametrize("broken_from", [0, 3])
def test_an_image_that_is_not_finite_ends_the_evaluation_wherever_it_comes(catalog, broken_from):
    scorer, items = scorer_of(Blurred(LinesData(catalog=catalog), broken_from))
    with pytest.raises(NotFiniteError, match=f"/{broken_from}: reconstruction"):
        scorer(items[0])


@dataclass(frozen=True)
class BlurredFrames(Blurred):
    data: KtData


@pytest.mark.parametrize("most", [32, 3])
def test_of_a_slice_with_frames_all_are_kept_in_their_order_and_many_evenly(tmp_path, monkeypatch, most):
    monkeypatch.setattr("echotrain.orchestration.jobs.evaluate._MOST_FRAMES", most)
    catalog = write_cine_catalog(tmp_path, num_train=3, num_val=1, examinations=("cine_sax", "blackblood", "T1map"))
    mask = KtMaskConfig(kinds=("kt_gaussian",), accelerations=(4,), acs_lines=6)
    method = BlurredFrames(KtData(catalog=catalog, mask=mask, num_adjacent=3))
    work = _Work.of(EvaluationJob(method=method, split="all", num_examples=100), {})
    scorer = _VolumeScorer(WorkerSetup(method=method), [work.told])
    gathered = _Gathered(work)
    evaluations = [gathered.add(scorer({"job": 0, **item})) for item in work.items]
    moving = {(each.dataset, each.volume): each for each in evaluations[-1].examples if each.frames}
    assert 0 < len(moving) < len(work.volumes)
    for volume in work.volumes:
        rows = [row for row in volume.rows if row.slice == volume.pictured.slice]
        if len(rows) == 1:
            assert volume.key not in moving
            continue
        example = moving[volume.key]
        targets = {row.frame: target_of(catalog, row) for row in rows}
        times = sorted(targets)
        shown = times if len(times) <= most else [times[0], times[round((len(times) - 1) / 2)], times[-1]]
        np.testing.assert_array_equal(example.frames["target"], np.stack([targets[frame] for frame in shown]))
        assert set(example.frames) == {"target", "model", "zero_filled"}
        assert example.frames["model"].shape == example.frames["target"].shape
        np.testing.assert_array_equal(example.target, targets[volume.pictured.frame])
        assert not np.array_equal(example.frames["model"][0], example.frames["model"][1])
        assert example.masked_kspace.shape == (rows[0].height, rows[0].width)


def target_of(catalog, row):
    data = (Path(catalog) / row.target_uri).read_bytes()[row.target_offset : row.target_offset + row.target_nbytes]
    return np.frombuffer(data, np.float32).reshape(row.recon_height, row.recon_width)


def test_every_method_and_the_picture_of_kspace_have_the_virtual_coils_that_are_asked_for(catalog, monkeypatch):
    given, pictured = [], []
    monkeypatch.setattr(Blurred, "reconstruct", lambda self, batch: given.append(batch) or zero_filled(batch))
    monkeypatch.setattr("echotrain.orchestration.jobs.evaluate.masked_kspace", lambda batch: pictured.append(batch) or masked_kspace(batch))
    scorer, items = scorer_of(Blurred(LinesData(catalog=catalog, coils=2)))
    values = scorer(items[0]).values
    assert (len(given), len(pictured)) == (4, 1)
    assert {batch.kspace.shape[1] for batch in (*given, *pictured)} == {2}
    assert values["model"] == values["zero_filled"]


def test_parts_of_an_evaluation_are_those_of_its_virtual_coils(catalog):
    def identity(**data):
        return _Work.of(EvaluationJob(method=Blurred(LinesData(catalog=catalog, **data)), split="val"), {}).identity

    assert len({identity(), identity(coils=2), identity(coils=3)}) == 3
    assert "coils" not in identity(coils=0)
