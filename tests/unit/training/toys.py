"""A network, a task and a stream small enough that a run takes milliseconds, and complete enough that nothing of the loop is left out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.stream import StepData
from echotrain.models.layers.dropout import Dropout
from echotrain.ranks import Ranks
from echotrain.seeding import numpy_generator
from echotrain.tasks.task import Panel, ScoreTable, StepLoss, Task
from echotrain.training.checkpoint import CheckpointMeta, CheckpointWriter, find_checkpoint, load_file
from echotrain.training.experiment import Experiment, WandbConfig, science
from echotrain.training.files import RunFiles
from echotrain.training.loop import Trainer
from echotrain.training.outcome import Outcome, Signal
from echotrain.training.sinks import CallSink, JsonLinesSink
from echotrain.training.state import TrainState

NUM_TRAIN, NUM_VAL = 10, 4
TIMINGS = {"samples_per_s", "bytes_per_s", "step_s", "data_wait_s", "validation_s", "time"}


@dataclass(frozen=True, kw_only=True)
class ToyBatch(Batch):
    """A kind of sample that the trainer has never heard of: some points and a value."""

    x: torch.Tensor
    y: torch.Tensor


class ToyNetwork(nn.Module):
    """Draws in training, so that a resume, a rank or a grouping that changes what is drawn is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean(dim=(1, 2))


class ToyTask(Task[ToyBatch]):
    metrics = ("accuracy",)
    score = "accuracy"

    def __init__(self, bad: SampleId | None = None) -> None:
        self.bad = bad
        self.seen: list[SampleId] = []

    def loss(self, model: nn.Module, batch: ToyBatch) -> StepLoss:
        self.seen += batch.ids
        loss = self._error(model, batch)
        factors = torch.tensor([float("nan") if sample == self.bad else 1.0 for sample in batch.ids])
        return StepLoss(per_sample=loss * factors, logs={"twice": 2 * loss.detach()})

    def validation(self) -> "ToyValidation":
        return ToyValidation(self)

    def panels(self, model: nn.Module, batch: ToyBatch) -> list[Panel]:
        return [
            Panel(sample=sample, caption=sample.volume, images={"target": np.ones((4, 4), np.float32)}, scale=1.0) for sample in batch.ids
        ]

    def _error(self, model: nn.Module, batch: ToyBatch) -> torch.Tensor:
        return (model(batch.x) - batch.y) ** 2


class ToyValidation:
    def __init__(self, task: ToyTask) -> None:
        self.task = task
        self.errors: dict[SampleId, float] = {}

    def add(self, model: nn.Module, batch: ToyBatch) -> None:
        self.errors.update(zip(batch.ids, self.task._error(model, batch).tolist(), strict=True))

    def state(self) -> dict[SampleId, float]:
        return self.errors

    def merge(self, state: dict[SampleId, float]) -> None:
        self.errors.update(state)

    def scores(self) -> dict[str, float]:
        return {"accuracy": 1 - float(np.mean([self.errors[sample] for sample in sorted(self.errors)]))} if self.errors else {}

    def table(self) -> ScoreTable:
        return ScoreTable(title="kind", columns=("kind", "samples", "accuracy"), rows=(("toy", len(self.errors), 0.5),))


class ToyStream:
    """Follows the contract of ``Stream``: short last step, fillers of weight 0, one batch per number of points."""

    def __init__(self, batch_size: int, rank: int = 0, world: int = 1, seed: int = 42) -> None:
        self.batch_size, self.rank, self.world, self.seed = batch_size, rank, world, seed

    def num_steps(self, epoch: int) -> int:
        return -(-NUM_TRAIN // self.batch_size)

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[StepData[ToyBatch]]:
        order = numpy_generator(0, "order", epoch).permutation(NUM_TRAIN).tolist()
        for step in range(first_step, self.num_steps(epoch)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = rows[self.rank :: self.world]
            weight = 1.0 if mine else 0.0
            groups: dict[int, list[int]] = {}
            for row in mine or rows[:1]:
                groups.setdefault(num_points(row), []).append(row)
            batches = [toy_batch("train", group, weight, seed=self.seed, epoch=epoch) for group in groups.values()]
            yield StepData(batches=batches, num_global_samples=len(rows), wait_s=0.001, num_bytes=100 * len(mine))

    def evaluation(self, split: str = "val") -> Iterator[ToyBatch]:
        for row in range(NUM_VAL)[self.rank :: self.world]:
            yield toy_batch(split, [row])

    def examples(self, count: int, split: str = "val") -> list[SampleId]:
        return [SampleId("toy", f"{split}-{row}", 0) for row in range(NUM_VAL)[-count:]] if count else []


def num_points(row: int) -> int:
    return 3 if row % 3 == 0 else 2


def toy_batch(split: str, rows: list[int], weight: float = 1.0, *, seed: int = 42, epoch: int | None = None) -> ToyBatch:
    """Return rows of one number of points."""
    generators = [torch.Generator().manual_seed(row + 100 * len(split)) for row in rows]
    x = torch.stack([torch.randn(num_points(row), 16, generator=g) for row, g in zip(rows, generators, strict=True)])
    ids = tuple(SampleId("toy", f"{split}-{row}", 0) for row in rows)
    roots = tuple(sample.root(seed, epoch) for sample in ids)
    return ToyBatch(x=x, y=torch.tanh(x[..., :4].sum(dim=-1)).mean(dim=1), weight=torch.full((len(rows),), weight), ids=ids, roots=roots)


def toy_experiment(**changes: object) -> Experiment:
    values = {"epochs": 2, "batch_size": 4, "log_every": 2, "checkpoint_every": 2, "wandb": WandbConfig(enabled=False), **changes}
    return Experiment(data=LinesData(catalog="toy"), **values)


def toy_state(experiment: Experiment) -> TrainState:
    torch.manual_seed(experiment.seed)
    model = ToyNetwork()
    return TrainState(model, experiment.optim.build(model), ema_decay=experiment.ema_decay)


def toy_meta(experiment: Experiment) -> CheckpointMeta:
    return CheckpointMeta(name="", position={}, science=science(experiment), config={}, catalog={"checksum": 1, "version": 1})


def toy_trainer(experiment, store, *, state=None, ranks=None, task=None, stream=None, signal=None, records=None) -> Trainer:
    ranks = ranks or Ranks()
    state = state or toy_state(experiment)
    files = None
    if ranks.is_first:
        sinks = [] if records is None else [CallSink(lambda record: records.append(dict(record)))]
        metrics = JsonLinesSink(store, lines=state.position.lines)
        files = RunFiles(writer=CheckpointWriter(store, keep=experiment.keep_checkpoints), metrics=metrics, sinks=sinks)
    return Trainer(
        experiment,
        task=task or ToyTask(),
        stream=stream or ToyStream(experiment.batch_size, ranks.rank, ranks.world, experiment.seed),
        state=state,
        ranks=ranks,
        meta=toy_meta(experiment),
        files=files,
        signal=signal or (lambda: Signal.NONE),
    )


def run_toy(experiment, store, **options) -> Outcome:
    return toy_trainer(experiment, store, **options).fit()


def restored(experiment: Experiment, store) -> TrainState:
    """Return the state of a run's latest checkpoint."""
    state = toy_state(experiment)
    meta = find_checkpoint(store)
    state.restore(load_file(store, meta, "weights"), load_file(store, meta, "train"), meta.position, meta.scores)
    return state


def lines_of(store):
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in store.read("metrics.jsonl").decode().splitlines()]


def assert_same_weights(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


class StopAt:
    """Signals once the trainer has been asked ``step`` times."""

    def __init__(self, step, signal=Signal.STOP):
        self.left, self.signal = step, signal

    def __call__(self):
        self.left -= 1
        return self.signal if self.left == 0 else Signal.NONE
