"""One step of optimisation.

A step is ``batch_size`` samples over all ranks. Each rank's part comes as one or several batches of equal shapes, which are cut further
where ``micro_batch`` says so; the gradients of these pieces are accumulated. Every sample's loss is divided by the number of samples in
the whole step, so that the sum over pieces and ranks is the mean of the step, however it was split.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from echotrain.data.samples.batch import Batch
from echotrain.data.stream import StepData
from echotrain.errors import NotFiniteError, TrainingError
from echotrain.models.layers.draws import drawing, name_places, no_global_draws
from echotrain.ranks import Ranks
from echotrain.tasks.progress import Progress
from echotrain.tasks.task import Task
from echotrain.training.experiment import Experiment
from echotrain.training.gradients import gradient_sync
from echotrain.training.outcome import Signal
from echotrain.training.precision import autocast
from echotrain.training.state import TrainState

__all__ = ["Step", "StepOutcome"]

_LOG_THE_SAME = "Log the same names for every batch."


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What a step came to, the same on every rank.

    Attributes:
        sums: Over the step's samples, of ``loss`` and whatever the task logs.
        grad_norm: Of the gradient, before it was cut.
        lr: Learning rate of what no group of parameters changes.
        num_bytes, wait_s: Fetched, and waited for, over all ranks.
        signal: The strongest that any rank has.
    """

    sums: dict[str, float]
    grad_norm: float
    lr: float
    num_bytes: float
    wait_s: float
    signal: Signal


class Step:
    """Does steps on the state of a run.

    Args:
        experiment: The resolved configuration.
        task: What a step means.
        state: Of the run; its position is left to the caller.
        ranks: This process among the others.
        signal: Asked once a step; see ``Signal``.
    """

    def __init__(self, experiment: Experiment, task: Task[Any], state: TrainState, ranks: Ranks, signal: Callable[[], Signal]) -> None:
        self._config = experiment
        self._task = task
        self._state = state
        self._ranks = ranks
        self._signal = signal
        name_places(state.network)
        self._gradients = gradient_sync(state.network, ranks)

    def __call__(self, data: StepData[Any], progress: Progress) -> StepOutcome:
        """Do one step.

        Raises:
            NotFiniteError: A loss or a gradient is not finite; the message names the samples. Every rank raises it.
            TrainingError: The samples came without roots, or something was drawn that is no function of them.
        """
        state, config = self._state, self._config
        with no_global_draws(self._ranks.device):
            lr = config.optim.set_rates(state.optimizer, progress)
            state.optimizer.zero_grad(set_to_none=True)
            losses, logs = self._accumulate(data)
            outcome = self._agree(data, losses, logs, self._clip(), lr)
            if not (_is_finite(outcome.sums["loss"]) and _is_finite(outcome.grad_norm)):
                self._refuse(data, losses, outcome.sums["loss"], progress)
            state.optimizer.step()
            with torch.no_grad():
                self._task.after_step(state.network, progress, self._ranks)
            if state.ema is not None:
                state.ema.update(state.network)
        return outcome

    def _accumulate(self, data: StepData[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run forward and backward over the rank's batches; return weighted losses (sample,) and weighted sums of the logs."""
        losses: list[Tensor] = []
        logs: dict[str, Tensor] = {}
        scale = self._gradients.scale / data.num_global_samples
        pieces = [piece for batch in data.batches for piece in _pieces(batch, self._config.micro_batch)]
        for index, fetched in enumerate(pieces):
            batch: Batch = fetched.to(self._ranks.device)
            with self._gradients.piece(is_last=index == len(pieces) - 1), drawing(batch.roots):
                with autocast(self._config.precision, self._ranks.device):
                    result = self._task.loss(self._gradients.network, batch)
                    weighted = result.per_sample.float() * batch.weight
                (weighted.sum() * scale).backward()  # type: ignore[no-untyped-call]
            losses.append(weighted.detach())
            if index and result.logs.keys() != logs.keys():
                raise TrainingError(
                    f"logs {sorted(result.logs)}", f"are not those of the batch before, {sorted(logs)}", "Log the same ones."
                )
            for name, values in result.logs.items():
                logs[name] = logs.get(name, 0) + (values.detach().float() * batch.weight).sum()
        self._gradients.finish()
        return torch.cat(losses), logs

    def _clip(self) -> Tensor:
        """Return the gradient's global norm, the same on every rank; cut it to ``optim.clip_norm`` where that is set."""
        parameters = [parameter for parameter in self._state.network.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self._config.optim.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self._config.optim.clip_norm, norm)
        return norm

    def _agree(self, data: StepData[Any], losses: Tensor, logs: dict[str, Tensor], norm: Tensor, lr: float) -> StepOutcome:
        """Read what was computed, and add it up over ranks."""
        names = ["loss", *sorted(logs)]
        *own, grad_norm = _read([losses.sum(), *(logs[name] for name in names[1:]), norm])
        signal, check = self._signal(), float(zlib.crc32("\n".join(names).encode()))
        rest = [grad_norm, check, float(data.num_bytes), data.wait_s, *(float(signal == kind) for kind in Signal)]
        totals = self._ranks.total([*own, *rest])
        norms, checks, num_bytes, wait_s, *votes = totals[len(names) :]
        if checks != check * self._ranks.world:
            raise TrainingError(f"logs {names[1:]}", "are not those of other ranks", _LOG_THE_SAME)
        return StepOutcome(
            sums=dict(zip(names, totals, strict=False)),
            grad_norm=norms / self._ranks.world,  # One number on all ranks, whose mean is not finite where any is not.
            lr=lr,
            num_bytes=num_bytes,
            wait_s=wait_s,
            signal=max(kind for kind, count in zip(Signal, votes, strict=True) if count),
        )

    def _refuse(self, data: StepData[Any], losses: Tensor, loss_sum: float, progress: Progress) -> None:
        """Raise on every rank, naming the samples whose loss is not finite (or all of the step, where only the gradient is not)."""
        ids = [sample for batch in data.batches for sample in batch.ids]
        bad = [sample for sample, loss in zip(ids, losses.tolist(), strict=True) if not _is_finite(loss)]
        gathered = self._ranks.gather((bad, ids))
        named = sorted({str(i) for part, _ in gathered for i in part} or {str(i) for _, part in gathered for i in part})
        names = self._ranks.share(", ".join(named))
        what = "loss" if not _is_finite(loss_sum) else "gradient"
        raise NotFiniteError(
            f"{what} of step {progress.global_step} (epoch {progress.epoch})",
            f"is not finite; samples: {names}",
            "Look at these slices, lower optim.lr, or set optim.clip_norm; the latest checkpoint is from before this step.",
        )


def _pieces(batch: Batch, limit: int) -> list[Batch]:
    """Cut a batch of training into parts of at most ``limit`` samples; 0 leaves it whole."""
    num = len(batch.ids)
    if len(batch.roots) != num:
        raise TrainingError(
            f"a batch of {num} samples ({batch.ids[0]}, ...)",
            f"has {len(batch.roots)} roots: what is drawn for them would be the same in every epoch",
            "Give it SampleId.root(seed, epoch) of each.",
        )
    limit = limit or num
    return [batch] if num <= limit else [batch.part(start, min(start + limit, num)) for start in range(0, num, limit)]


def _read(numbers: Sequence[Tensor]) -> list[float]:
    """Return the values of single numbers: the step's one wait for the device."""
    device = numbers[0].device
    values: list[float] = torch.stack([number.to(device, torch.float32) for number in numbers]).tolist()
    return values


def _is_finite(value: float) -> bool:
    return value - value == 0
