"""Lines of a log that comes in pieces: each shown once, whatever is cut off and sent again."""

import bisect
import datetime as dt
import re
from array import array
from collections import Counter, deque

__all__ = ["LogCursor", "Repetition"]

# A log is asked for again from so long before its newest line: two streams of a container are not written in strict order of time.
_OVERLAP = dt.timedelta(seconds=5)
# The API cuts times to whole seconds.
_KEPT = _OVERLAP + dt.timedelta(seconds=2)
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) (.*)", re.DOTALL)


class LogCursor:
    """Where the reading of one container's log stands; its lines begin with their times."""

    def __init__(self) -> None:
        self._newest: dt.datetime | None = None
        self._recent: deque[tuple[dt.datetime, str]] = deque()
        self._again: Counter[str] = Counter()

    def reopen(self) -> str | None:
        """Return the time from which to ask for the log again; None for its beginning. What is then repeated is swallowed."""
        self._again = Counter(line for _, line in self._recent)
        return None if self._newest is None else (self._newest - _OVERLAP).strftime("%Y-%m-%dT%H:%M:%SZ")

    def take(self, line: str) -> str | None:
        """Return the text of a line, without its time; None where it has been returned before."""
        stamped = _STAMPED.fullmatch(line)
        if stamped is None:
            return line
        if self._again[line] > 0:
            self._again[line] -= 1
            return None
        fraction = (stamped[2] or ".0")[:7]
        time = dt.datetime.fromisoformat(f"{stamped[1]}{fraction:0<7}{stamped[3].replace('Z', '+00:00')}").astimezone(dt.UTC)
        self._newest = max(time, self._newest or time)
        self._recent.append((time, line))
        while self._recent[0][0] < self._newest - _KEPT:
            self._recent.popleft()
        return stamped[4]


class Repetition:
    """Swallows what a second submitter of the same attempt tells again.

    Where a submitter is lost, the Job makes another, and ``ray job logs`` begins with the driver's first line again.
    """

    def __init__(self) -> None:
        self._seen = array("q")
        self._places: dict[int, list[int]] = {}
        self._at = 0

    def restart(self) -> None:
        """Another submitter begins."""
        self._places = {}
        for place, key in enumerate(self._seen):
            self._places.setdefault(key, []).append(place)
        self._at = 0

    def is_new(self, line: str) -> bool:
        """Whether a line has not been told before; of those that have, some may be left out, and their order is kept."""
        key = hash(line)
        places = self._places.get(key, [])
        found = bisect.bisect_left(places, self._at)
        if found < len(places):
            self._at = places[found] + 1
            return False
        self._seen.append(key)
        return True
