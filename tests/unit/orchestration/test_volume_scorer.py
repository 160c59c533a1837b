"""A worker of an evaluation scores what it reconstructs, without Ray."""

from dataclasses import dataclass

import pytest
import torch

from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import NotFiniteError
from echotrain.metrics.collector import VolumeCollector
from echotrain.orchestration.jobs.evaluate import EvaluationJob, _VolumeScorer, _Work
from echotrain.orchestration.jobs.inference import Subject, WorkerSetup
from echotrain.tasks.reconstruction import zero_filled
from tests.simulated import write_simulated_catalog


@dataclass(frozen=True)
class Blurred:
    """A method: the zero-filled image, a little blurred; of some slice on it is not finite."""

    data: LinesData
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


def test_slices_are_scored_as_one_after_the_other_to_the_bit_and_in_order(catalog):
    data = LinesData(catalog=catalog)
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
        assert [key[2] for key, _ in values["model"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("broken_from", [0, 3])
def test_an_image_that_is_not_finite_ends_the_evaluation_wherever_it_comes(catalog, broken_from):
    scorer, items = scorer_of(Blurred(LinesData(catalog=catalog), broken_from))
    with pytest.raises(NotFiniteError, match=f"/{broken_from}: reconstruction"):
        scorer(items[0])
