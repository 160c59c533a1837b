"""Looking at a job once: where it stands, where to look at it, and what it has printed."""

from collections.abc import Iterator

from echotrain.errors import ClusterError, LaunchError
from echotrain.launching.display import progress_of
from echotrain.launching.jobs import Jobs
from echotrain.launching.links import dashboard_of
from echotrain.launching.loglines import LogCursor, Repetition
from echotrain.launching.objects import (
    COMMAND,
    QUEUE_LABEL,
    USER,
    WANDB,
    Observed,
    is_started,
    name_of,
    submission_of,
    submitter_pods,
)
from echotrain.launching.phase import phase_of

__all__ = ["links_of", "printed_lines", "status_lines"]

_TAIL = 200


def links_of(seen: Observed) -> Iterator[str]:
    """Yield where a job can be looked at."""
    if dashboard := dashboard_of(seen):
        yield f"dashboard  {dashboard}"
    if WANDB in seen.notes:
        yield f"W&B        {seen.notes[WANDB]}"


def status_lines(jobs: Jobs, seen: Observed) -> Iterator[str]:
    """Yield what there is to say of a job."""
    assert seen.job is not None
    yield f"{name_of(seen.job)}  {phase_of(seen)}"
    for what, value in (
        ("command", seen.notes.get(COMMAND)),
        ("user", seen.notes.get(USER)),
        ("queue", seen.labels.get(QUEUE_LABEL)),
        ("made", seen.job["metadata"].get("creationTimestamp")),
        ("ended", seen.status.get("endTime")),
        ("progress", _progress(jobs, seen)),
    ):
        if value:
            yield f"{what:9}  {value}"
    yield from links_of(seen)


def printed_lines(jobs: Jobs, seen: Observed) -> Iterator[str]:
    """Yield what a job's command has printed until now, of all its attempts that still have pods.

    Raises:
        LaunchError: It has printed nothing yet.
    """
    pods = [pod for pod in submitter_pods(seen.pods) if is_started(pod)]
    if not pods:
        remedy = "Add --follow to wait for it." if not phase_of(seen).is_final else "Its pods are gone; the run's folder has its metrics."
        raise LaunchError(f"output of job {name_of(seen.job or {'metadata': {'name': ''}})}", f"is not there ({phase_of(seen)})", remedy)
    submission, repetition = "", Repetition()
    for pod in pods:
        if submission_of(pod) == submission:
            repetition.restart()
        else:
            submission, repetition = submission_of(pod), Repetition()
        cursor = LogCursor()
        for line in jobs.log(name_of(pod), follow=False):
            text = cursor.take(line)
            if text is not None and repetition.is_new(text):
                yield text


def _progress(jobs: Jobs, seen: Observed) -> str:
    """Return the last line in which the command said how far it is."""
    pods = [pod for pod in submitter_pods(seen.pods) if is_started(pod)]
    if not pods:
        return ""
    try:
        lines = [LogCursor().take(line) or "" for line in jobs.log(name_of(pods[-1]), follow=False, tail=_TAIL)]
    except ClusterError:
        return ""
    return next((found for line in reversed(lines) if (found := progress_of(line))), "")
