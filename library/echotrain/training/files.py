"""What rank 0 writes to, as one thing."""

import logging
from dataclasses import dataclass, field

from echotrain.errors import LeaseError
from echotrain.tasks.task import Panel, ScoreTable
from echotrain.training.checkpoint import CheckpointWriter
from echotrain.training.sinks import JsonLinesSink, Record, Sink

__all__ = ["RunFiles"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What rank 0 writes: the checkpoints, and the lines of metrics that are stored with them."""

    writer: CheckpointWriter
    metrics: JsonLinesSink
    sinks: list[Sink] = field(default_factory=list)

    def log(self, record: Record) -> None:
        """Hand a record to every sink."""
        for sink in [self.metrics, *self.sinks]:
            sink.log(record)

    def show(self, panels: list[Panel], step: int) -> None:
        """Hand pictures to every sink."""
        for sink in [self.metrics, *self.sinks] if panels else ():
            sink.show(panels, step)

    def tabulate(self, table: ScoreTable, step: int) -> None:
        """Hand a table to every sink."""
        for sink in [self.metrics, *self.sinks]:
            sink.tabulate(table, step)

    def close(self) -> None:
        """Finish uploads, then sinks; a sink that fails is told about, and takes no checkpoint with it."""
        try:
            self.writer.close()
        finally:
            for sink in [self.metrics, *self.sinks]:
                try:
                    sink.close()
                except LeaseError as error:
                    logger.warning("%s", error)  # What was written since belongs to whoever has the folder now.
                except Exception:
                    logger.exception("%s could not be closed; the checkpoints are written", type(sink).__name__)
