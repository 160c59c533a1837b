"""How a job looks on a screen: a spinner over the output on a terminal, plain lines elsewhere."""

import datetime as dt
import re
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from echotrain.launching.objects import COMMAND, QUEUE_LABEL, USER, Object, Observed, instant, name_of
from echotrain.launching.phase import Phase, phase_of
from echotrain.redaction import without_credentials

__all__ = ["Display", "job_table", "progress_of"]

# How training and sweeps tell how far they are.
_PROGRESS = re.compile(r"\s*(epoch \d+/\d+ .*|\d+/\d+ ended.*)")
# Commands are long, and a row is a line for who greps.
_WIDE = 4000


class Display:
    """Shows phases and notes on the console, and the output of the command on stdout, where it can be piped.

    Args:
        console: Where to; a terminal gets a line that says what the job is doing now and for how long.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: Phase | None = None
        self._since = time.monotonic()
        self._progress = ""
        self._spinner = Spinner("dots")
        # Where the output goes to the same terminal, the spinner's line is kept below it.
        redirect = sys.stdout.isatty()
        self._live = Live(get_renderable=self._now, console=console, transient=True, redirect_stdout=redirect, redirect_stderr=True)

    def phase(self, phase: Phase) -> None:
        """Take what the job is doing now."""
        if self._shown is None or phase.kind != self._shown.kind:
            self._since, self._progress = time.monotonic(), ""
        if phase != self._shown:
            self._shown = phase
            self._say(str(phase))
        if self._console.is_terminal and not phase.is_final and not self._live.is_started:
            self._live.start()

    def line(self, text: str) -> None:
        """Take a line of the command's output."""
        found = progress_of(text)
        self._progress = found or self._progress
        print(without_credentials(text), flush=True)

    def note(self, text: str) -> None:
        """Take something that a person should know."""
        self._say(text)

    def close(self) -> None:
        """Take the spinner away."""
        self._live.stop()

    def _say(self, text: str) -> None:
        self._console.print(f"{dt.datetime.now().astimezone():%H:%M:%S}  {text}", highlight=False, markup=False)

    def _now(self) -> Spinner:
        seconds = int(time.monotonic() - self._since)
        what = " ".join(str(self._shown or "").split())
        text = f"{what[: max(20, self._console.width - 30)]}  {seconds // 60}:{seconds % 60:02d}  {self._progress}"
        self._spinner.update(text=Text(text, no_wrap=True, overflow="ellipsis"))
        return self._spinner


def progress_of(line: str) -> str:
    """Return how far a command is, where a line of its output says so; else ""."""
    found = _PROGRESS.fullmatch(line)
    return found[1] if found else ""


def job_table(jobs: Sequence[Observed], now: dt.datetime) -> str:
    """Return jobs as a table, in their order."""
    table = Table("job", "phase", "age", "queue", "user", "command", box=None, pad_edge=False, header_style="bold")
    for seen in jobs:
        assert seen.job is not None
        command = seen.notes.get(COMMAND, "").removeprefix("python -m ray_jobs.")
        queue, user = seen.labels.get(QUEUE_LABEL, ""), seen.notes.get(USER, "")
        row = (name_of(seen.job), phase_of(seen).kind, age_of(seen.job, now), queue, user, command)
        # As text: a list in brackets is no markup.
        table.add_row(*map(Text, row))
    wide = Console(width=_WIDE)
    with wide.capture() as capture:
        wide.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def age_of(job: Object, now: dt.datetime) -> str:
    """Return how long ago a job was made, as kubectl would."""
    made = instant(job["metadata"].get("creationTimestamp"))
    minutes = int((now - made).total_seconds() // 60) if made is not None else 0
    if minutes < 120:
        return f"{minutes}m"
    return f"{minutes // 60}h" if minutes < 48 * 60 else f"{minutes // 1440}d"
