"""The one training loop: epochs of steps, validations and checkpoints; knows no MRI and no Ray."""

import contextlib
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from echotrain.data.stream import StepData, Stream
from echotrain.metrics.table import find_metric
from echotrain.ranks import Ranks
from echotrain.tasks.progress import Progress
from echotrain.tasks.task import Task
from echotrain.training.checkpoint import CheckpointMeta
from echotrain.training.experiment import Experiment
from echotrain.training.files import RunFiles
from echotrain.training.meter import Meter
from echotrain.training.outcome import Outcome, Signal
from echotrain.training.shared_state import check_buffers
from echotrain.training.sinks import Record
from echotrain.training.state import TrainState
from echotrain.training.step import Step
from echotrain.training.validation import validate

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Runs epochs of steps, validates, keeps checkpoints, and stops when asked.

    Args:
        experiment: The resolved configuration.
        task: What a step means.
        stream: This rank's share of the plan.
        state: Weights, optimiser and position, restored already where the run resumes.
        ranks: This process among the others.
        meta: What every checkpoint of the run says besides its position.
        files: On rank 0, where numbers and checkpoints go; None elsewhere.
        signal: Asked once a step; see ``Signal``.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        task: Task[Any],
        stream: Stream[Any],
        state: TrainState,
        ranks: Ranks,
        meta: CheckpointMeta,
        files: RunFiles | None,
        signal: Callable[[], Signal] = lambda: Signal.NONE,
    ) -> None:
        self._config = experiment
        self._task = task
        self._stream = stream
        self._state = state
        self._ranks = ranks
        self._meta = meta
        self._files = files
        self._step = Step(experiment, task, state, ranks, signal)
        self._saved: str | None = None
        self._has_saved_ahead = False
        self._meter = Meter()
        self._latest: dict[str, float] = {}

    def fit(self) -> Outcome:
        """Train until the last epoch's end or a signal.

        Raises:
            TrainingError: A step could not be done (see ``Step``), or ranks have grown apart.
            StorageError: A checkpoint could not be stored.
        """
        self._log_start()
        signal = Signal.NONE
        try:
            while self._state.position.epoch < self._config.epochs and signal < Signal.LEAVE:
                signal = self._train_epoch()
                if signal < Signal.LEAVE:
                    self._end_epoch()
        finally:
            if self._files is not None:
                self._files.close()
        position = self._state.position
        return Outcome(
            signal=signal, epoch=position.epoch, global_step=position.global_step, scores=self._state.scores, best_score=position.best_score
        )

    def _train_epoch(self) -> Signal:
        """Do the epoch's remaining steps; return the signal that cut it short, after saving."""
        state = self._state
        epoch = state.position.epoch
        num_steps = self._stream.num_steps(epoch)
        state.network.train()
        self._meter = Meter()
        with contextlib.closing(_as_generator(self._stream.steps(epoch, state.position.step))) as steps:
            for data in steps:
                signal = self._do(data, num_steps)
                position = state.position
                if position.global_step % self._config.log_every == 0 or position.step == num_steps:
                    self._log_steps(num_steps)
                every = self._config.checkpoint_every
                is_due = every and position.global_step % every == 0 and position.step < num_steps
                if is_due or signal >= Signal.LEAVE or (signal == Signal.SAVE and not self._has_saved_ahead):
                    self._has_saved_ahead = signal == Signal.SAVE
                    self._save()
                if signal >= Signal.LEAVE:
                    logger.info("stopped at step %d, which is saved", position.global_step)
                    return signal
        return Signal.NONE

    def _do(self, data: StepData[Any], num_steps: int) -> Signal:
        """Do one step and take note of it; return the strongest signal that any rank has."""
        position, samples = self._state.position, data.num_global_samples
        outcome = self._step(data, self._progress(num_steps))
        self._state.position = position.after_step(outcome.sums, samples)
        self._meter.add(samples=samples, num_bytes=outcome.num_bytes, wait_s=outcome.wait_s)
        self._latest = {"lr": outcome.lr, "grad_norm": outcome.grad_norm, "loss_step": outcome.sums["loss"] / samples}
        return outcome.signal

    def _progress(self, num_steps: int) -> Progress:
        position, config = self._state.position, self._config
        return Progress(
            epoch=position.epoch,
            step=position.step,
            steps_per_epoch=num_steps,
            global_step=position.global_step,
            epochs=config.epochs,
            seed=config.seed,
        )

    def _end_epoch(self) -> None:
        """Validate where it is due, log the epoch, move on to the next and save."""
        state = self._state
        finished = state.position
        is_last = finished.epoch + 1 == self._config.epochs
        check_buffers(state.network, self._ranks)
        started = time.perf_counter()
        scores: dict[str, float] = {}
        if is_last or (finished.epoch + 1) % self._config.validate_every == 0:
            scores = state.scores = self._validate()
        score = scores.get(self._task.score)
        scored = finished if score is None else finished.with_score(score, is_higher_better=find_metric(self._task.score).is_higher_better)
        is_best = scored is not finished
        mean_loss = finished.epoch_loss / max(finished.epoch_samples, 1)
        self._log(
            {
                "kind": "epoch",
                "epoch": finished.epoch,
                "global_step": finished.global_step,
                "loss": mean_loss,
                **scores,
                "is_best": is_best,
                "validation_s": time.perf_counter() - started,
            }
        )
        state.position = scored.after_epoch()
        self._save(is_best=is_best)

    def _validate(self) -> dict[str, float]:
        """Return the task's metrics over what it validates on, the same on every rank."""
        state, config = self._state, self._config
        averaged = state.ema.applied_to(state.network) if state.ema is not None else contextlib.nullcontext()
        num_panels = config.wandb.panels if config.wandb.enabled else 0
        with averaged:
            found = validate(self._task, state.network, self._stream, self._ranks, precision=config.precision, num_panels=num_panels)
        if self._files is not None:
            self._files.show(found.panels, state.position.global_step)
            for table in found.tables:
                self._files.tabulate(table, state.position.global_step)
        return found.scores

    def _save(self, *, is_best: bool = False) -> None:
        """Save the state on rank 0, once per position."""
        state = self._state
        if self._files is None or self._saved == state.position.name:
            return
        state.position = dataclasses.replace(state.position, lines=self._files.metrics.num_lines)
        meta = dataclasses.replace(
            self._meta, name=state.position.name, position=dataclasses.asdict(state.position), scores=dict(state.scores)
        )
        self._files.writer.save(meta, state.files(), is_best=is_best, before_marker=[self._files.metrics.store_lines])
        self._saved = state.position.name

    def _log_start(self) -> None:
        position = self._state.position
        processes = self._ranks.gather(f"{socket.gethostname()}:{os.getpid()}")
        if position.epoch >= self._config.epochs:
            return
        self._log(
            {
                "kind": "start",
                "epochs": self._config.epochs,
                "epoch": position.epoch,
                "step": position.step,
                "global_step": position.global_step,
                "steps_per_epoch": self._stream.num_steps(position.epoch),
                "workers": self._ranks.world,
                "parameters": sum(parameter.numel() for parameter in self._state.network.parameters()),
                "device": str(self._ranks.device),
                "processes": processes,
            }
        )

    def _log_steps(self, num_steps: int) -> None:
        """Log the means since the last such record, and begin anew."""
        position = self._state.position
        record: dict[str, Any] = {
            "kind": "train",
            "epoch": position.epoch,
            "step": position.step,
            "steps_per_epoch": num_steps,
            "global_step": position.global_step,
            **{name: total / position.window_samples for name, total in position.window.items()},
            **self._latest,
            **self._meter.numbers(self._ranks.world),
        }
        self._log(record)
        self._meter = Meter()
        self._state.position = position.after_line()

    def _log(self, record: Record) -> None:
        if self._files is not None:
            self._files.log(record)


def _as_generator(steps: Iterator[StepData[Any]]) -> Generator[StepData[Any], None, None]:
    """Yield the steps; closing this closes a stream that can be closed, so that its threads end with the epoch."""
    try:
        yield from steps
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()
