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

__all__ = ["Result", "map_items"]

Work = Callable[[dict[str, Any]], "Result"]


class Result(NamedTuple):
    """What became of one item: plain values, and bytes that would not fit into them."""

    values: dict[str, Any]
    data: bytes = b""


def map_items(items: Sequence[dict[str, Any]], make_worker: Callable[..., Work], *arguments: Any, **resources: float) -> Iterator[Result]:
    """Yield the result of every item, in any order.

    Args:
        items: Plain values, an item a task; kilobytes, never payload.
        make_worker: Called once in each worker process; what it returns is called with each item.
        arguments: Of ``make_worker``; they travel as arguments, because the dashboard shows runtime environments to everybody.
        resources: Ray Data's ``concurrency``, ``num_cpus``, ``num_gpus``.

    Raises:
        EchotrainError: As a worker raised it.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"item": json.dumps(item)} for item in items]
    with DataContext.current(context), _quiet("ray.data"):
        mapped = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker, fn_constructor_args=(make_worker, arguments), **resources
        )
        for row in mapped.iter_rows():
            if row["error"]:
                raise _restored(row["error"])
            yield Result(json.loads(row["values"]), row["data"])


class _Worker:
    """Keeps one worker of ours in a process of Ray's; carries errors as text, which Ray would wrap in a traceback."""

    def __init__(self, make_worker: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
        self._error = ""
        try:
            self._work = make_worker(*arguments)
        except EchotrainError as error:
            self._error = _as_text(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        result, error = Result({}), self._error
        if not error:
            try:
                result = self._work(json.loads(row["item"]))
            except EchotrainError as raised:
                error = _as_text(raised)
        return {"values": json.dumps(result.values), "data": result.data, "error": error}


def _as_text(error: EchotrainError) -> str:
    return json.dumps([type(error).__name__, error.value, error.limit, error.remedy])


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
