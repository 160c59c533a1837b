"""Following a job to its end, through whatever becomes of the connection."""

import contextlib
import time
from dataclasses import dataclass
from typing import Protocol

from echotrain.errors import ClusterUnreachableError
from echotrain.launching.jobs import Jobs
from echotrain.launching.links import dashboard_of
from echotrain.launching.logstream import LogStream
from echotrain.launching.objects import Observed
from echotrain.launching.phase import Phase, phase_of

__all__ = ["Pace", "Reporter", "follow", "observe_patiently"]


class Reporter(Protocol):
    """Shows what happens."""

    def phase(self, phase: Phase) -> None:
        """Take what the job is doing now; said once as long as it stays the same."""

    def line(self, text: str) -> None:
        """Take a line of the command's output."""

    def note(self, text: str) -> None:
        """Take something that a person should know."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often to look, and for how long to be patient, in seconds.

    Attributes:
        starting, running: Between two looks where nothing is heard of a change.
        least: Between two looks at all.
        patience: Without an answer of the API server, after which the following ends (and the job does not).
        drain: For the last lines of a job that is over.
    """

    starting: float = 3.0
    running: float = 15.0
    least: float = 0.5
    patience: float = 600.0
    drain: float = 15.0


def follow(jobs: Jobs, name: str, reporter: Reporter, *, pace: Pace) -> Phase:
    """Show a job's phases and its command's output until it is over; return how it ended.

    What is shown is what was read last, never the sum of what was heard: a watch only says when to read again, so one that is dropped,
    or that begins at a version which is too old, loses nothing.

    Args:
        jobs: Of the job's namespace.
        name: Of the job.
        reporter: Shows it.
        pace: How often to look.

    Raises:
        ClusterUnreachableError: The API server stayed away for longer than ``pace.patience``.
        ClusterError: It refuses to tell.
    """
    log, dashboard = LogStream(jobs, reporter.line, reporter.note), ""
    try:
        while True:
            looked = time.monotonic()
            seen = observe_patiently(jobs, name, reporter, pace=pace)
            phase = phase_of(seen)
            reporter.phase(phase)
            # Each attempt has a cluster of its own.
            if (found := dashboard_of(seen)) not in ("", dashboard):
                dashboard = found
                reporter.note(f"dashboard  {dashboard}")
            log.see(seen)
            if phase.is_final:
                _drain(jobs, name, log, reporter, pace)
                return phase
            is_whole = jobs.await_change(name, seen.version, pace.running if phase.kind == "running" else pace.starting)
            time.sleep(max(0.0, looked + (pace.least if is_whole else 2 * pace.least) - time.monotonic()))
    finally:
        log.close()


def _drain(jobs: Jobs, name: str, log: LogStream, reporter: Reporter, pace: Pace) -> None:
    """Read what is left of the output of a job that is over."""
    deadline = time.monotonic() + pace.drain
    while not log.drain(1.0):
        if time.monotonic() > deadline:
            reporter.note(f"the output may have gone on; python -m ray_jobs.launch logs {name} shows what there is")
            return
        with contextlib.suppress(ClusterUnreachableError):
            log.see(jobs.observe(name))


def observe_patiently(jobs: Jobs, name: str, reporter: Reporter, *, pace: Pace) -> Observed:
    """Look at a job, again and again while the API server does not answer."""
    since, pause, is_told = time.monotonic(), pace.least, False
    while True:
        try:
            seen = jobs.observe(name)
        except ClusterUnreachableError as error:
            away = time.monotonic() - since
            if away > pace.patience:
                remedy = f"The job goes on. Follow it again with python -m ray_jobs.launch logs {name} --follow."
                raise ClusterUnreachableError(error.value, f"{error.limit}, for {away:.0f} s now", remedy) from error
            # Once is nothing: servers restart, and ask for a moment.
            if pause > pace.least and not is_told:
                is_told = True
                reporter.note(f"{error.value} {error.limit}; the job goes on, trying again for {pace.patience / 60:.3g} min")
            time.sleep(min(pause, max(0.0, pace.patience - away)) + 0.01)
            pause = min(2 * pause, 10.0)
        else:
            if is_told:
                reporter.note("the API server answers again")
            return seen
