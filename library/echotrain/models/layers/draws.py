"""What a network draws in training, for each sample on its own.

A draw is a function of the sample's root, of the place in the network that draws, and of how often that place has drawn for the sample
before. So it does not know the batch that a sample came in, nor its rank, and activation checkpointing repeats it. PyTorch's global
generator has no part in it: whoever uses that in a training step is told so.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from echotrain.errors import TrainingError
from echotrain.seeding import derive_seed, uniforms

__all__ = ["DrawingLayer", "draw", "drawing", "name_places", "no_global_draws", "regrouped", "repeated"]

# A row's position in the batch, and what tells it from other rows of the same sample.
Row = tuple[int, ...]


class DrawingLayer(nn.Module):
    """A layer that draws in training.

    Attributes:
        place: Its name in the network, which ``name_places`` gives it.
    """

    place: str | None = None


class _Pass:
    """A pass through the network: whose rows are in it, and how often each place has drawn for them."""

    def __init__(self, roots: Sequence[int], rows: Callable[[], Sequence[Row]], calls: Counter[tuple[str, Row]]) -> None:
        self.roots = roots
        self.rows = functools.cache(rows)
        self.calls = calls

    def as_now(self) -> "_Pass":
        """Return a copy whose draws are those that would come next."""
        return _Pass(self.roots, self.rows, self.calls.copy())

    def seeds(self, place: str) -> list[int]:
        """Return the seed of what a place draws next for each row."""
        seeds = []
        for row in self.rows():
            seeds.append(derive_seed(self.roots[row[0]], "draw", place, self.calls[place, row], *row[1:]))
            self.calls[place, row] += 1
        return seeds


# Not a plain global: where a GPU computes, activation checkpointing's second pass is on another thread.
_CURRENT: ContextVar[_Pass | None] = ContextVar("current_pass", default=None)


class _Entered:
    """Makes a pass the current one, as it is now, as often as it is entered."""

    def __init__(self, current: _Pass) -> None:
        self._pass = current
        self._tokens: list[Token[_Pass | None]] = []

    def __enter__(self) -> None:
        self._tokens.append(_CURRENT.set(self._pass.as_now()))

    def __exit__(self, *_: object) -> None:
        _CURRENT.reset(self._tokens.pop())


def name_places(network: nn.Module) -> None:
    """Tell every layer that draws its name in the network; a layer that stands in several places has the first one's."""
    for name, module in network.named_modules():
        if isinstance(module, DrawingLayer):
            module.place = name


@contextmanager
def drawing(roots: Sequence[int]) -> Iterator[None]:
    """Let layers draw for the rows of a batch, whose roots these are, while its loss and gradients are computed."""
    with _Entered(_Pass(roots, lambda: [(position,) for position in range(len(roots))], Counter())):
        yield


@contextmanager
def no_global_draws(device: torch.device) -> Iterator[None]:
    """Refuse what draws from PyTorch's global generators, of the CPU and of ``device``; known at the end.

    Raises:
        TrainingError: Something did.
    """
    before = _global_states(device)
    yield
    if not all(map(torch.equal, before, _global_states(device))):
        raise TrainingError(
            "a draw of the network or the task",
            "came from PyTorch's global generator, which knows no sample: another number of ranks would draw otherwise",
            "Use echotrain.models.layers.dropout in a network, batch.generators(purpose) or progress.generator(purpose) in a task.",
        )


@contextmanager
def regrouped(rows: Callable[[], Sequence[Sequence[int]]]) -> Iterator[None]:
    """Let layers draw for rows that are not the present ones: for coils, frames or crops of them.

    Args:
        rows: Called where something is drawn: for each new row the position of the present one that it is of, and what tells it from
            others of the same (a coil's number). None of that may depend on which other samples are there.
    """
    outer = _CURRENT.get()
    if outer is None:
        yield
        return
    inner = _Pass(outer.roots, lambda: [(*outer.rows()[of], *parts) for of, *parts in rows()], outer.calls)
    token = _CURRENT.set(inner)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def repeated() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a first and of a second pass that draws the same: what activation checkpointing asks for."""
    current = _CURRENT.get()
    return contextlib.nullcontext(), contextlib.nullcontext() if current is None else _Entered(current.as_now())


# As torch.compiler.disable, which imports the compiler at once: a second of every process that only defines a network.
@_disable_dynamo
def draw(layer: DrawingLayer, x: Tensor, count: int) -> Float[Tensor, "row count"]:
    """Return ``count`` numbers in [0, 1) for each row of ``x``, on its device.

    Raises:
        TrainingError: It is not known whose rows these are, or the layer has no place.
    """
    current, remedy = _CURRENT.get(), "Compute a training loss within echotrain.models.layers.draws.drawing, as the trainer does."
    if current is None:
        raise TrainingError(f"a draw of {type(layer).__name__} {layer.place}", "is of no sample: it has no root to be drawn from", remedy)
    if layer.place is None:
        raise TrainingError(f"a {type(layer).__name__}", "has no place, so that it would draw what others do", "Call name_places first.")
    if len(current.rows()) != len(x):
        raise TrainingError(
            f"{len(x)} rows in {layer.place}",
            f"are not the {len(current.rows())} that are drawn for",
            "Say what they are with echotrain.models.layers.draws.regrouped.",
        )
    return uniforms(current.seeds(layer.place), count, x.device)


def _global_states(device: torch.device) -> list[Tensor]:
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]
