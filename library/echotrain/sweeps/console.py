"""Progress of a sweep that a person can read: a bar per running trial on a terminal, plain lines elsewhere."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from echotrain.log import console as default_console
from echotrain.sweeps.spec import EPOCH, Metric
from echotrain.sweeps.trial import Trial

__all__ = ["SweepConsole"]


class SweepConsole:
    """Shows trials as they start, move on and end.

    Args:
        console: Where to; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or default_console
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._bars: dict[int, TaskID] = {}
        self._begun = 0
        self._ended = 0
        self._total = 0

    def begin(self, name: str, trials: Sequence[Trial], *, total: int, at_a_time: int) -> None:
        """Show what is ahead."""
        self._ended = self._begun = sum(trial.has_ended for trial in trials)
        self._total = total
        known = f", {self._ended} of them ended before" if self._ended else ""
        self._line(f"sweep {name}: {total} trials{known}, {at_a_time} at a time")
        self._progress.start()

    def started(self, trial: Trial) -> None:
        """Show that a trial runs."""
        self._begun += 1
        if self._console.is_terminal:
            self._bars[trial.number] = self._progress.add_task(trial.name, total=1.0)
        else:
            self._line(f"trial {self._begun}/{self._total} started: {trial.name}")

    def moved(self, trial: Trial, share: float, text: str) -> None:
        """Show how far a trial is, between 0 and 1."""
        if trial.number in self._bars:
            self._progress.update(self._bars[trial.number], completed=share, description=f"{trial.name}  {text}")

    def waiting(self, trial: Trial, text: str) -> None:
        """Show what a trial waits for."""
        if trial.number in self._bars:
            self._progress.update(self._bars[trial.number], description=f"{trial.name}  {text}")
        else:
            self._line(f"{trial.name}: {text}")

    def ended(self, trial: Trial, metric: Metric) -> None:
        """Show what a trial came to."""
        if trial.number in self._bars:
            self._progress.remove_task(self._bars.pop(trial.number))
        self._ended += trial.has_ended
        name = metric.name.removeprefix(EPOCH)
        score = trial.score(metric)
        reached = f"{name} {score:.4g} after epoch {trial.epoch}" if score is not None else "not validated"
        result = trial.reason if trial.state == "failed" else reached
        state = "interrupted" if trial.state == "running" else trial.state
        self._line(f"{self._ended}/{self._total} ended, {state}: {trial.name}  {result}  ({trial.wall_s:.0f} s)")

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)
