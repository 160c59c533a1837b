"""What a device computes: the losses of the CPU, and after a resume the same bits."""

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from device_runs import Steps, experiment_of, new_state

from echotrain.benchmarks.kernels import PLAIN, kernels
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import CheckpointMeta, CheckpointWriter, find_checkpoint, load_file
from echotrain.training.optim import OptimConfig
from echotrain.training.state import TrainState

NUM_STEPS = 20
# Of a step's loss, relative to that of float32 on a CPU, both from the same state.
BANDS = {"fp32": 1e-4, "bf16": 1e-2}
# Cosine between what a step adds to the weights here and there; least at the first, which adds signs.
ALIGNED = {"fp32": 0.97, "bf16": 0.6}
# Adam's first steps are signs of the gradient: where that is next to nothing its rounding decides, so that two runs part by themselves.
PARTED = 5e-2


class CpuStep(NamedTuple):
    before: dict[str, dict[str, Any]]
    loss: float
    grad_norm: float
    after: dict[str, torch.Tensor]


@functools.cache
def steps_of_the_cpu() -> list[CpuStep]:
    """Return twenty steps in float32, with the state before and the weights after each."""
    steps, done = Steps(experiment_of(), torch.device("cpu")), []
    for number in range(NUM_STEPS):
        before = copy.deepcopy(steps.state.files())
        outcome = steps.do(number)
        done.append(CpuStep(before, outcome.sums["loss"] / 2, outcome.grad_norm, copy.deepcopy(steps.state.network.state_dict())))
    return done


def moved(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([(after[name].cpu() - value.cpu()).flatten() for name, value in before.items()])


@pytest.mark.parametrize("precision", BANDS)
def test_twenty_steps_have_the_losses_of_float32_on_a_cpu(device, precision, record_property):
    expected = steps_of_the_cpu()
    # Where both sides are a CPU, one of them has the library's kernels in place of our own.
    with kernels(PLAIN) if device.type == "cpu" else nullcontext():
        forced, free = (Steps(experiment_of(precision=precision), device) for _ in range(2))
        losses, alignments, parted = [], [], []
        for number, step in enumerate(expected):
            forced.state.restore(step.before["weights"], step.before["train"], {}, {})
            outcome = forced.do(number)
            losses.append(abs(outcome.sums["loss"] / 2 - step.loss) / step.loss)
            assert outcome.grad_norm == pytest.approx(step.grad_norm, rel=20 * BANDS[precision])
            own, theirs = moved(step.before["weights"], forced.state.network.state_dict()), moved(step.before["weights"], step.after)
            alignments.append(float(torch.nn.functional.cosine_similarity(own, theirs, dim=0)))
            parted.append(abs(free.do(number).sums["loss"] / 2 - step.loss) / step.loss)
    record_property("largest_difference", max(losses))
    record_property("least_alignment_of_updates", min(alignments))
    record_property("largest_difference_of_a_run_by_itself", max(parted))
    assert min(step.loss for step in expected) < 0.9 * expected[0].loss
    assert 0 < max(losses) <= BANDS[precision]
    assert min(alignments) > ALIGNED[precision]
    assert max(parted) <= PARTED


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def saved_and_restored(state: TrainState, fresh: TrainState, folder: Path) -> TrainState:
    """Return a fresh state with what a checkpoint of the other holds."""
    store = open_store(str(folder))
    writer = CheckpointWriter(store, keep=1)
    meta = CheckpointMeta(name=state.position.name, position=vars(state.position), science={}, config={}, catalog={})
    writer.save(meta, state.files(), is_best=False)
    writer.close()
    found = find_checkpoint(store)
    assert found is not None
    fresh.restore(load_file(store, found, "weights"), load_file(store, found, "train"), found.position, found.scores)
    return fresh


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resume_ends_in_the_same_bits(device, precision, tmp_path):
    experiment = experiment_of(precision=precision, ema_decay=0.9, optim=OptimConfig(lr=1e-3, clip_norm=1.0))
    whole = Steps(experiment, device)
    for number in range(6):
        whole.do(number)
    first = Steps(experiment, device)
    for number in range(3):
        first.do(number)
    resumed = Steps(experiment, device, saved_and_restored(first.state, new_state(experiment, device), tmp_path))
    for number in range(3, 6):
        resumed.do(number)
    for part in ("weights", "train"):
        torch.testing.assert_close(whole.state.files()[part], resumed.state.files()[part], rtol=0, atol=0)
