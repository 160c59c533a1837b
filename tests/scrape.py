"""What Prometheus would know: every series that a metrics port has shown so far."""

import contextlib
import threading
import urllib.request
from collections.abc import Callable
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scraper"]


class Scraper:
    """Scrapes every second while it is entered; a series that is gone keeps its last value.

    Args:
        url: Of the metrics port.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._seen: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._scrape, daemon=True)

    def series(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the latest value of each series of a metric."""
        with self._changed:
            return [(dict(labels), value) for (metric, labels), value in self._seen.items() if metric == name]

    def wait_for(self, name: str, is_it: Callable[[dict[str, str], float], bool], timeout_s: float) -> bool:
        """Whether a metric has such a series before the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: any(is_it(labels, value) for labels, value in self.series(name)), timeout_s)

    def _scrape(self) -> None:
        while not self._stop.wait(1.0):
            with contextlib.suppress(OSError), urllib.request.urlopen(self._url, timeout=5) as reply:
                families = text_string_to_metric_families(reply.read().decode())
                found = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
                with self._changed:
                    self._seen.update(found)
                    self._changed.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
