"""The one training loop: knows no MRI and no Ray.

A step is ``batch_size`` samples over all ranks. Each rank's part comes as one or several batches of equal shapes, whose gradients
are accumulated; only the last of them synchronises. Every sample's loss is divided by the number of samples in the whole step, so
that the sum over batches and ranks is the mean of the step, however it was split.
"""

import contextlib
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from echotrain.data.samples.batch import Batch
from echotrain.data.stream import StepData, Stream
from echotrain.errors import NotFiniteError
from echotrain.ranks import Ranks
from echotrain.seeding import derive_seed
from echotrain.tasks.task import Panel, Task
from echotrain.training.checkpoint import CheckpointMeta
from echotrain.training.experiment import Experiment
from echotrain.training.files import RunFiles
from echotrain.training.meter import Meter
from echotrain.training.optim import set_learning_rate
from echotrain.training.outcome import Outcome, Signal
from echotrain.training.sinks import Record
from echotrain.training.state import TrainState

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
        self._signal = signal
        self._saved: str | None = None
        self._has_saved_ahead = False
        self._meter = Meter()
        self._latest: dict[str, float] = {}
        self._network: nn.Module = state.network
        if ranks.world > 1:
            devices = [ranks.device] if ranks.device.type == "cuda" else None
            self._network = DistributedDataParallel(
                state.network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
            )

    def fit(self) -> Outcome:
        """Train until the last epoch's end or a signal.

        Raises:
            NotFiniteError: A loss or a gradient is not finite; the message names the samples. Every rank raises it.
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
        self._network.train()
        self._meter = Meter()
        with contextlib.closing(_as_generator(self._stream.steps(epoch, state.position.step))) as steps:
            for data in steps:
                signal = self._step(data, num_steps)
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

    def _step(self, data: StepData[Any], num_steps: int) -> Signal:
        """Do one step of optimisation; return the strongest signal that any rank has."""
        state, config = self._state, self._config
        position = state.position
        factor = config.optim.schedule.factor(
            epoch=position.epoch, step=position.step, steps_per_epoch=num_steps, global_step=position.global_step
        )
        set_learning_rate(state.optimizer, config.optim.lr * factor)
        state.optimizer.zero_grad(set_to_none=True)
        losses, logs = self._accumulate(data)
        signal = self._signal()
        names = ["loss", *sorted(logs)]
        own = [float(losses.sum()), *(float(logs[name]) for name in names[1:])]
        totals = self._ranks.total([*own, float(data.num_bytes), data.wait_s, *(float(signal == kind) for kind in Signal)])
        sums = dict(zip(names, totals, strict=False))
        num_bytes, wait_s, *votes = totals[len(names) :]
        norm = self._clip()
        if not (_is_finite(sums["loss"]) and bool(torch.isfinite(norm))):
            self._refuse(data, losses, sums["loss"])
        state.optimizer.step()
        if state.ema is not None:
            state.ema.update(state.network)
        self._task.after_step(state.network, position.global_step)
        state.position = position.after_step(sums, data.num_global_samples)
        meter = self._meter
        meter.steps += 1
        meter.samples += data.num_global_samples
        meter.num_bytes += num_bytes
        meter.wait_s += wait_s
        self._latest = {"lr": config.optim.lr * factor, "grad_norm": float(norm), "loss_step": sums["loss"] / data.num_global_samples}
        return max(kind for kind, count in zip(Signal, votes, strict=True) if count)

    def _accumulate(self, data: StepData[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run forward and backward over the rank's batches; return weighted losses (sample,) and weighted sums of the logs."""
        losses: list[Tensor] = []
        logs: dict[str, Tensor] = {}
        scale = self._ranks.world / data.num_global_samples  # DDP divides the sum over ranks by their number.
        for index, fetched in enumerate(data.batches):
            is_last = index == len(data.batches) - 1
            batch: Batch = fetched.to(self._ranks.device)
            torch.manual_seed(self._batch_seed(batch))
            with self._synchronised(is_last), self._autocast():
                result = self._task.loss(self._network, batch)
                weighted = result.per_sample.float() * batch.weight
                (weighted.sum() * scale).backward()  # type: ignore[no-untyped-call]
            losses.append(weighted.detach())
            for name, values in result.logs.items():
                logs[name] = logs.get(name, torch.zeros((), device=values.device)) + (values.detach().float() * batch.weight).sum()
        return torch.cat(losses), logs

    def _synchronised(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        if isinstance(self._network, DistributedDataParallel) and not is_last:
            return self._network.no_sync()
        return contextlib.nullcontext()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._ranks.device.type, dtype=torch.bfloat16, enabled=self._config.precision == "bf16")

    def _batch_seed(self, batch: Batch) -> int:
        """Seed whatever a model draws (dropout) by the position and the samples, never by rank or time."""
        position = self._state.position
        first = batch.ids[0]
        return derive_seed(self._config.seed, "step", position.epoch, position.step, first.dataset, first.volume, first.slice)

    def _clip(self) -> Tensor:
        """Return the gradient's global norm, the same on every rank; cut it to ``optim.clip_norm`` where that is set."""
        parameters = [parameter for parameter in self._state.network.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self._config.optim.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self._config.optim.clip_norm, norm)
        return norm

    def _refuse(self, data: StepData[Any], losses: Tensor, loss_sum: float) -> None:
        """Raise on every rank, naming the samples whose loss is not finite (or all of the step, where only the gradient is not)."""
        ids = [sample for batch in data.batches for sample in batch.ids]
        bad = [sample for sample, loss in zip(ids, losses.tolist(), strict=True) if not _is_finite(loss)]
        position = self._state.position
        gathered = self._ranks.gather((bad, ids))
        named = sorted({str(i) for part, _ in gathered for i in part} or {str(i) for _, part in gathered for i in part})
        names = self._ranks.share(", ".join(named))
        what = "loss" if not _is_finite(loss_sum) else "gradient"
        raise NotFiniteError(
            f"{what} of step {position.global_step} (epoch {position.epoch})",
            f"is not finite; samples: {names}",
            "Look at these slices, lower optim.lr, or set optim.clip_norm; the latest checkpoint is from before this step.",
        )

    def _end_epoch(self) -> None:
        """Validate where it is due, log the epoch, move on to the next and save."""
        state = self._state
        finished = state.position
        is_last = finished.epoch + 1 == self._config.epochs
        started = time.perf_counter()
        scores: dict[str, float] = {}
        if is_last or (finished.epoch + 1) % self._config.validate_every == 0:
            scores = state.scores = self._validate()
        score = scores.get(self._task.score)
        scored = finished if score is None else finished.with_score(score)
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

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Return the task's metrics over the validation split, the same on every rank."""
        state = self._state
        averaged = state.ema.applied_to(state.network) if state.ema is not None else contextlib.nullcontext()
        validation = self._task.validation()
        panels: list[Panel] = []
        shown = self._stream.examples(self._config.wandb.panels if self._config.wandb.enabled else 0)
        state.network.eval()
        with averaged, self._autocast():
            for fetched in self._stream.evaluation("val"):
                batch = fetched.to(self._ranks.device)
                validation.add(state.network, batch)
                if not set(shown).isdisjoint(batch.ids):
                    panels += [panel for panel in self._task.panels(state.network, batch) if panel.sample in shown]
        state.network.train()
        for part in self._ranks.gather(validation.state())[1:]:
            validation.merge(part)
        everywhere = [panel for part in self._ranks.gather(panels) for panel in part]
        if self._files is not None:
            self._files.show(sorted(everywhere, key=lambda panel: shown.index(panel.sample)), state.position.global_step)
            self._files.tabulate(validation.table(), state.position.global_step)
        scores: dict[str, float] = self._ranks.share(validation.scores() if self._ranks.is_first else {})
        return scores

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


def _is_finite(value: float) -> bool:
    return value - value == 0
