"""One worker over many items: Ray Data hands them out, typed errors come back as they were raised."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.data import DataContext
from ray.exceptions import RayActorError

from echotrain import errors
from echotrain.errors import EchotrainError, ResourceError

__all__ = ["Result", "map_items"]

logger = logging.getLogger(__name__)

Work = Callable[..., Any]
# Deaths of workers with no item done between them.
_MOST_DEATHS = 3


class Result(NamedTuple):
    """What became of one item: plain values, and bytes that would not fit into them."""

    values: dict[str, Any]
    data: bytes = b""


def map_items(items: Sequence[dict[str, Any]], work: Work, *arguments: Any, **resources: float | None) -> Iterator[Result]:
    """Yield the result of every item, in any order.

    Args:
        items: Plain values, an item a task; kilobytes, never payload.
        work: A function, called as ``work(item, *arguments)``; or a class, of which each worker process makes one,
            ``worker = work(*arguments)``, to be called as ``worker(item)``.
        arguments: They travel as arguments, because the dashboard shows runtime environments to everybody.
        resources: Ray Data's ``concurrency``, ``num_cpus``, ``num_gpus``.

    Raises:
        EchotrainError: As a worker raised it.
        ResourceError: Workers that keep an instance of a class died again and again.
    """
    left = dict(enumerate(items))
    deaths = 0
    while left:
        try:
            for number, result in _map_once(left, work, arguments, resources):
                del left[number]
                deaths = 0
                yield result
        except RayActorError as error:
            deaths += 1
            if deaths > _MOST_DEATHS:
                raise ResourceError(
                    f"{len(left)} of {len(items)} items",
                    f"are not done: workers died {deaths} times in a row without doing one",
                    "Where memory ran out, lower workers or give each a larger share; see the log of Ray's nodes.",
                ) from error
            logger.warning("a worker died; going on with the %d of %d items that are not done", len(left), len(items))


def _map_once(
    items: Mapping[int, dict[str, Any]], work: Work, arguments: tuple[Any, ...], resources: Mapping[str, float | None]
) -> Iterator[tuple[int, Result]]:
    """Yield the results of numbered items, in any order, as long as no worker that keeps an instance of a class dies."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"number": number, "item": json.dumps(item)} for number, item in items.items()]
    with DataContext.current(context), _quiet("ray.data"):
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        if isinstance(work, type):
            # Not started again by Ray, which could not promise it, and says so on the console for every worker: what a worker is made
            # of lies in the object store, which may have lost it by then. ``map_items`` starts new ones.
            mapped = dataset.map(_Worker, fn_constructor_args=(work, arguments), max_restarts=0, **resources)
        else:
            mapped = dataset.map(_call, fn_args=(work, arguments), **resources)
        for row in mapped.iter_rows():
            if row["error"]:
                raise _restored(row["error"])
            yield row["number"], Result(json.loads(row["values"]), row["data"])


class _Worker:
    """Keeps one worker of ours in a process of Ray's."""

    def __init__(self, make_worker: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
        # An error raised here would be wrapped in a traceback and tried again; it is told with the first item.
        self._error = ""
        try:
            self._work = make_worker(*arguments)
        except EchotrainError as error:
            self._error = _as_text(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _told(row, "", b"", self._error) if self._error else _call(row, self._work, ())


def _call(row: dict[str, Any], work: Work, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Do one item; an error of ours is carried as text, which Ray would wrap in a traceback."""
    try:
        result = work(json.loads(row["item"]), *arguments)
    except EchotrainError as error:
        return _told(row, "", b"", _as_text(error))
    return _told(row, json.dumps(result.values), result.data, "")


def _told(row: dict[str, Any], values: str, data: bytes, error: str) -> dict[str, Any]:
    return {"number": row["number"], "values": values, "data": data, "error": error}


def _as_text(error: EchotrainError) -> str:
    public = next(kind for kind in type(error).__mro__ if kind.__name__ in errors.__all__)
    return json.dumps([public.__name__, error.value, error.limit, error.remedy])


def _restored(text: str) -> EchotrainError:
    kind, value, limit, remedy = json.loads(text)
    cls: type[EchotrainError] = getattr(errors, kind)
    return cls(value, limit, remedy)


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
