"""Which jobs are over for so long that nobody will ask for them again: KubeRay keeps them, with their logs, for ever."""

import datetime as dt
from collections.abc import Iterable

from echotrain.launching.objects import USER, Object, Observed, instant
from echotrain.launching.phase import phase_of

__all__ = ["ended_at", "prunable"]


def prunable(jobs: Iterable[Object], *, before: dt.datetime, user: str | None) -> list[Observed]:
    """Return the jobs that ended before some time, in their order.

    Args:
        jobs: Those that were launched.
        before: When.
        user: Who launched them; None for everybody.
    """
    seen = [Observed(job=job) for job in jobs]
    mine = [each for each in seen if user is None or each.notes.get(USER, "") == user]
    return [each for each in mine if (end := ended_at(each)) is not None and end < before]


def ended_at(seen: Observed) -> dt.datetime | None:
    """Return when a job ended; None while it has not."""
    if seen.job is None or not phase_of(seen).is_final:
        return None
    # One that the operator refused has no end of its own.
    return instant(seen.status.get("endTime") or seen.job["metadata"]["creationTimestamp"])
