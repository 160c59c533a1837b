"""Threads over one store that take turns, an operation each, in an order that the test chooses: a race can be played again."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Turns"]


class Turns:
    """Runs players, each in a thread; every call of a player to its store waits for its turn.

    Args:
        schedule: Who of those that wait is next, as numbers that are taken modulo their count; when it is used up, the first one is.
    """

    def __init__(self, schedule: Sequence[int]) -> None:
        self._schedule = list(schedule)
        self._said: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._may_go: list[threading.Semaphore] = []
        self._is_over = False

    def play(self, players: Sequence[Callable[[Callable[[Any], Any]], None]], *, after_each: Callable[[], None]) -> None:
        """Run players to their ends; a player is called with what wraps its store. ``after_each`` runs while all of them wait."""
        self._may_go = [threading.Semaphore(0) for _ in players]
        threads = [threading.Thread(target=self._run, args=(number, player), daemon=True) for number, player in enumerate(players)]
        for thread in threads:
            thread.start()
        running, waiting = len(players), set()
        while running or waiting:
            while running:
                event, number = self._said.get(timeout=30)
                running -= 1
                if event == "waits":
                    waiting.add(number)
            after_each()
            if waiting:
                chosen = sorted(waiting)[(self._schedule.pop(0) if self._schedule else 0) % len(waiting)]
                waiting.remove(chosen)
                running = 1
                self._may_go[chosen].release()
        self._is_over = True

    def _run(self, number: int, player: Callable[[Callable[[Any], Any]], None]) -> None:
        try:
            player(lambda store: _Gated(store, lambda: self._wait(number)))
        finally:
            self._said.put(("ended", number))

    def _wait(self, number: int) -> None:
        if self._is_over:
            return
        self._said.put(("waits", number))
        self._may_go[number].acquire()


class _Gated:
    def __init__(self, store: Any, wait: Callable[[], None]) -> None:
        self._store = store
        self._wait = wait

    @property
    def uri(self) -> str:
        return str(self._store.uri)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._wait()
            result = getattr(self._store, name)(*arguments, **options)
            return iter(list(result)) if name == "list" else result

        return call
