"""One worker over many items: Ray hands them out, typed errors come back as they were raised."""

import contextlib
import functools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.data import DataContext
from ray.exceptions import RayActorError

from echotrain.errors import EchotrainError, ResourceError
from echotrain.orchestration.runtime.capacity import Shape
from echotrain.orchestration.runtime.error_text import as_text, restored
from echotrain.orchestration.runtime.notes import Attempts, Notes
from echotrain.orchestration.runtime.waiting import RoomWatch, await_nodes
from echotrain.worker_groups import published_groups

__all__ = ["Result", "map_items"]

logger = logging.getLogger(__name__)

Work = Callable[..., Any]
_Answer = dict[str, Any]
# Deaths of workers with no item done between them; of a task, with the same item.
_MOST_DEATHS = 3
_MORE_MEMORY = "Where memory ran out, lower workers, or give each a larger share"
# Of an item that is named in an error.
_SHOWN = 200
_LOOK_EVERY_S = 1.0
# An actor that has done an item finds the next one there already.
_ITEMS_AHEAD = 2


class Result(NamedTuple):
    """What became of one item: plain values, and bytes that would not fit into them."""

    values: dict[str, Any]
    data: bytes = b""


def map_items(items: Sequence[dict[str, Any]], work: Work, *arguments: Any, **resources: Any) -> Iterator[Result]:
    """Yield the result of every item, in any order.

    Args:
        items: Plain values, an item a task; kilobytes, never payload.
        work: A function, called as ``work(item, *arguments)``; or a class, of which each worker process makes one,
            ``worker = work(*arguments)``, to be called as ``worker(item)``.
        arguments: They travel as arguments, because the dashboard shows runtime environments to everybody.
        resources: ``concurrency``, ``num_cpus``, ``num_gpus``.

    Raises:
        EchotrainError: As a worker raised it.
        ResourceError: A cluster of no workers grows by none; or workers died again and again, or lost their nodes, and none has come.
    """
    if not items:
        return
    shape = Shape(cpus=resources.get("num_cpus", 1) or 0, gpus=resources.get("num_gpus") or 0)
    _await_first_node(shape)
    texts = [json.dumps(item) for item in items]
    if isinstance(work, type):
        told = _on_actors(texts, work, arguments, RoomWatch(shape, logger.warning), **resources)
    else:
        told = _by_ray_data(texts, work, arguments, RoomWatch(shape, logger.warning, is_starting_told=False), **resources)
    for row in told:
        if row["error"]:
            raise restored(row["error"])
        yield Result(json.loads(row["values"]), row["data"])


def _by_ray_data(
    texts: Sequence[str], work: Work, arguments: tuple[Any, ...], watch: RoomWatch, **resources: float | None
) -> Iterator[_Answer]:
    """Yield what a function says of every item: a task each, which Ray does again elsewhere where a process or a node is lost."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"number": number, "item": text} for number, text in enumerate(texts)]
    attempts = Attempts(Notes(), "items", _MOST_DEATHS)
    with DataContext.current(context), _quiet("ray.data"), _looking(watch):
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        yield from dataset.map(_call_row, fn_args=(work, arguments, attempts), **resources).iter_rows()


def _on_actors(
    texts: Sequence[str],
    work: type,
    arguments: tuple[Any, ...],
    watch: RoomWatch,
    *,
    concurrency: float,
    num_cpus: float = 1,
    num_gpus: float = 0,
) -> Iterator[_Answer]:
    """Yield what instances of a class say of every item.

    Not by Ray Data, whose actors Ray is to start again from what lies in the object store: it cannot promise that, and says so on the
    console for every one. Here the items of an actor that died are given to a new one, and an item that kills every one of them is not
    given out for ever. An item is given only to an actor that has started: one for which the cluster finds no place keeps none.
    """
    make = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(_Worker)
    waiting = list(reversed(texts))
    given: dict[ray.ObjectRef, tuple[ray.actor.ActorHandle, str]] = {}
    deaths = 0

    def start() -> None:
        actor = make.remote(work, arguments)
        given[actor.is_ready.remote()] = actor, ""

    for _ in range(min(int(concurrency), len(texts))):
        start()
    left = len(texts)
    while left:
        found, _ = ray.wait(list(given), timeout=_LOOK_EVERY_S)
        watch.look(is_idle=not found and not any(text for _, text in given.values()))
        if not found:
            continue
        (ref,) = found
        actor, text = given.pop(ref)
        try:
            row = ray.get(ref)
        except RayActorError as error:
            if error.actor_init_failed:  # No death, and no error of ours: a bug, which starting another would only repeat.
                raise
            lost = [other for other, (owner, _) in given.items() if owner == actor]
            waiting += [text for text in (text, *(given.pop(other)[1] for other in lost)) if text]
            deaths += 1
            if deaths > _MOST_DEATHS:
                raise ResourceError(
                    f"{left} of {len(texts)} items",
                    f"are not done: workers died {deaths} times, and none did an item between",
                    f"{_MORE_MEMORY}; see the logs of Ray's nodes.",
                ) from error
            logger.warning("a worker died; another does its share of the %d of %d items that are not done", left, len(texts))
            start()
            continue
        for _ in range(1 if text else _ITEMS_AHEAD):
            if waiting:
                following = waiting.pop()
                given[actor.do.remote(following)] = actor, following
        if text:
            deaths = 0
            left -= 1
            yield row


def _await_first_node(shape: Shape) -> None:
    """Wait for room for one worker; Ray Data, which begins with what there is and takes what comes, would wait in silence."""
    published = published_groups()
    if published is not None:
        await_nodes(shape, 1, published, tell=logger.info)


@contextlib.contextmanager
def _looking(watch: RoomWatch) -> Iterator[None]:
    """Have it told from a thread that no node is there which could do a task: whoever waits for Ray Data hears nothing."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_EVERY_S):
            try:
                watch.look(is_idle=True)
            except EchotrainError as error:  # Ray Data is not to be interrupted, and takes a node that comes later as well.
                logger.warning("%s", error)
                return

    thread = threading.Thread(target=look, name="room", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


class _Worker:
    """Keeps one worker of ours in a process of Ray's; it is made with its first item, so that one that waits for room is told apart."""

    def __init__(self, make_worker: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
        self._make = functools.partial(make_worker, *arguments)
        self._work: Work | None = None
        self._error = ""

    def is_ready(self) -> None:
        """Say that it has started."""

    def do(self, text: str) -> _Answer:
        if self._work is None and not self._error:
            try:
                self._work = self._make()
            except EchotrainError as error:  # Raised, it would be wrapped in a traceback.
                self._error = as_text(error)
        return _answer("", b"", self._error) if self._work is None else _call(text, self._work, ())


def _call_row(row: dict[str, Any], work: Work, arguments: tuple[Any, ...], attempts: Attempts) -> _Answer:
    try:
        attempts.begin(row["number"], f"item {row['item'][:_SHOWN]}", _MORE_MEMORY)
    except ResourceError as error:
        return _answer("", b"", as_text(error))
    return _call(row["item"], work, arguments)


def _call(text: str, work: Work, arguments: tuple[Any, ...]) -> _Answer:
    """Do one item; an error of ours is carried as text, which Ray would wrap in a traceback."""
    try:
        result = work(json.loads(text), *arguments)
    except EchotrainError as error:
        return _answer("", b"", as_text(error))
    return _answer(json.dumps(result.values), result.data, "")


def _answer(values: str, data: bytes, error: str) -> _Answer:
    return {"values": values, "data": data, "error": error}


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a library's logger, whose errors are told in our own words."""
    chatty = logging.getLogger(name)
    level = chatty.level
    chatty.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        chatty.setLevel(level)
