"""One worker over many items: Ray Data hands them out, typed errors come back as they were raised."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray
from ray.data import DataContext

from echotrain import errors
from echotrain.errors import EchotrainError
from echotrain.orchestration.capacity import Shape
from echotrain.orchestration.waiting import await_nodes
from echotrain.orchestration.worker_groups import published_groups

__all__ = ["Result", "map_items"]

logger = logging.getLogger(__name__)

Work = Callable[..., Any]


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
        ResourceError: A cluster of no workers grows by none.
    """
    if not items:
        return
    _await_first_node(Shape(cpus=resources.get("num_cpus", 1) or 0, gpus=resources.get("num_gpus") or 0))
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"item": json.dumps(item)} for item in items]
    with DataContext.current(context), _quiet("ray.data"):
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        if isinstance(work, type):
            mapped = dataset.map(_Worker, fn_constructor_args=(work, arguments), **resources)
        else:
            mapped = dataset.map(_call, fn_args=(work, arguments), **resources)
        for row in mapped.iter_rows():
            if row["error"]:
                raise _restored(row["error"])
            yield Result(json.loads(row["values"]), row["data"])


def _await_first_node(shape: Shape) -> None:
    """Wait for room for one worker; Ray Data, which begins with what there is and takes what comes, would wait in silence."""
    published = published_groups()
    if published is not None:
        await_nodes(shape, 1, published, tell=logger.info)


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
        return _told("", b"", self._error) if self._error else _call(row, self._work, ())


def _call(row: dict[str, Any], work: Work, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Do one item; an error of ours is carried as text, which Ray would wrap in a traceback."""
    try:
        result = work(json.loads(row["item"]), *arguments)
    except EchotrainError as error:
        return _told("", b"", _as_text(error))
    return _told(json.dumps(result.values), result.data, "")


def _told(values: str, data: bytes, error: str) -> dict[str, Any]:
    return {"values": values, "data": data, "error": error}


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
