"""Progress that a person can read: a bar on a terminal, plain lines elsewhere."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from echotrain.metrics.table import METRICS
from echotrain.training.sinks import Record

__all__ = ["ConsoleProgress"]


class ConsoleProgress:
    """Renders the records of a run.

    Args:
        console: Where to; a terminal gets a bar over the steps of the epoch, anything else a line per record.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._epochs = 0
        self._bar: TaskID | None = None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def log(self, record: Record) -> None:
        """Show a record."""
        kind = record["kind"]
        if kind == "start":
            self._epochs = record["epochs"]
            self._line(_start_line(record))
            self._progress.start()
        elif kind == "train" and self._console.is_terminal:
            self._move_bar(record)
        elif kind == "train":
            self._line(self._train_line(record))
        elif kind == "epoch":
            self._line(self._epoch_line(record))
        elif kind == "waiting":
            self._line(record["text"])

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _move_bar(self, record: Record) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task("")
        speed = f"loss {record['loss']:.4f}  {record['samples_per_s']:.1f} slices/s"
        text = f"epoch {record['epoch'] + 1}/{self._epochs}  {speed}"
        self._progress.update(self._bar, description=text, completed=record["step"], total=record["steps_per_epoch"])

    def _train_line(self, record: Record) -> str:
        return (
            f"epoch {record['epoch'] + 1}/{self._epochs}  step {record['step']}/{record['steps_per_epoch']}  "
            f"loss {record['loss']:.4f}  {record['samples_per_s']:.1f} slices/s  {record['bytes_per_s'] / 1e6:.0f} MB/s  "
            f"waited {record['data_wait_s'] * 1e3:.0f} ms/step"
        )

    def _epoch_line(self, record: Record) -> str:
        scores = "  ".join(f"{name} {record[name]:.4g}" for name in METRICS if name in record)
        best = "  (best so far)" if record["is_best"] else ""
        return f"epoch {record['epoch'] + 1}/{self._epochs} done  train loss {record['loss']:.4f}  validation {scores or 'none'}{best}"

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


def _start_line(record: Record) -> str:
    begin = f"resuming at step {record['global_step']}" if record["global_step"] else "starting"
    return (
        f"{begin}: {record['parameters']:,} parameters, {record['workers']} worker(s) on {record['device']}, "
        f"{record['epochs']} epochs of {record['steps_per_epoch']} steps"
    )
