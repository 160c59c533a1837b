"""A pass over everything that a task validates on."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from echotrain.data.stream import Stream
from echotrain.errors import TrainingError
from echotrain.ranks import Ranks
from echotrain.tasks.task import Panel, ScoreTable, Task, Validation
from echotrain.training.precision import Precision, autocast

__all__ = ["Validated", "validate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What a validation came to.

    Attributes:
        scores: By metric, of further splits by ``split/metric``; the same on every rank.
        tables: Scores by group, on rank 0.
        panels: Pictures of the first split, in the order of showing, on rank 0.
    """

    scores: dict[str, float]
    tables: list[ScoreTable]
    panels: list[Panel]


@torch.no_grad()
def validate(task: Task[Any], network: nn.Module, stream: Stream[Any], ranks: Ranks, *, precision: Precision, num_panels: int) -> Validated:
    """Validate the bare network, which is left in evaluation mode.

    Raises:
        TrainingError: The task's own score is not among the scores.
    """
    network.eval()
    with autocast(precision, ranks.device):
        found = [_pass(task, network, stream, ranks, split, num_panels if not index else 0) for index, split in enumerate(task.splits)]
    passes = {("" if not index else f"{split}/"): each for index, (split, each) in enumerate(zip(task.splits, found, strict=True))}
    scores: dict[str, float] = {}
    tables: list[ScoreTable] = []
    if ranks.is_first:
        for prefix, (validation, _) in passes.items():
            scores.update({f"{prefix}{name}": value for name, value in validation.scores().items()})
            table = validation.table()
            tables.append(dataclasses.replace(table, title=f"{prefix}{table.title}"))
    scores = ranks.share(scores)
    if scores and task.score not in scores:
        given = ", ".join(sorted(scores))
        raise TrainingError(f"{task.score}, by which the best checkpoint is told,", f"is none of the scores: {given}", "Name one of them.")
    return Validated(scores=scores, tables=tables, panels=[panel for _, panels in found for panel in panels])


def _pass(
    task: Task[Any], network: nn.Module, stream: Stream[Any], ranks: Ranks, split: str, num_panels: int
) -> tuple[Validation[Any], list[Panel]]:
    """Go over a split; on rank 0, return what all ranks found."""
    validation = task.validation()
    shown = stream.examples(num_panels, split) if num_panels else []
    panels: list[Panel] = []
    num_samples = 0
    for fetched in stream.evaluation(split):
        batch = fetched.to(ranks.device)
        num_samples += len(batch.ids)
        validation.add(network, batch)
        if not set(shown).isdisjoint(batch.ids):
            panels += [panel for panel in task.panels(network, batch) if panel.sample in shown]
    for part in ranks.gather(validation.state())[1:]:
        validation.merge(part)
    if not ranks.total([num_samples])[0] and ranks.is_first:
        logger.warning("the split %s holds no sample: there are no scores of it", split)
    everywhere = [panel for part in ranks.gather(panels) for panel in part]
    return validation, sorted(everywhere, key=lambda panel: shown.index(panel.sample))
