"""Batches between processes: a head of plain values, and a body of raw bytes in which every tensor lies one after the other.

Arrow knows no complex numbers, and its tensor and list columns copy and convert. One column of bytes goes through an object store as it is,
and is read where it lies there.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.slots import SlotPool

__all__ = ["pack", "packed_nbytes", "unpack"]

B = TypeVar("B", bound=Batch)

_ALIGNMENT = 64
_POOLED = {np.dtype(np.complex64): torch.complex64, np.dtype(np.float32): torch.float32}


def packed_nbytes(batch: Batch) -> int:
    """Return the length of a batch's body."""
    return sum(_aligned(tensor.numpy().nbytes) for tensor in _tensors(batch).values())


def pack(batch: Batch, body: NDArray[np.uint8]) -> str:
    """Fill the body of a batch, and return its head: JSON of all that is no tensor, and of where each tensor lies.

    Args:
        batch: On the CPU.
        body: As long as ``packed_nbytes`` says.
    """
    places, at = {}, 0
    for name, tensor in _tensors(batch).items():
        array = tensor.numpy()
        places[name] = {"dtype": array.dtype.str, "shape": array.shape, "at": at}
        np.copyto(_view(body, places[name]), array)
        at += _aligned(array.nbytes)
    return json.dumps({"tensors": places, "values": {f.name: getattr(batch, f.name) for f in fields(batch) if f.name not in places}})


def unpack(head: str, body: NDArray[np.uint8], kind: type[B], pool: SlotPool) -> B:
    """Return the batch, in memory of its own.

    Args:
        head: As ``pack`` returned it.
        body: As it was filled; may be memory that must not be written to.
        kind: Of the batch.
        pool: Gives the memory of what is large.
    """
    read = json.loads(head)
    found: dict[str, Any] = {name: _copy(_view(body, place), pool) for name, place in read["tensors"].items()}
    found |= {name: _value(name, value) for name, value in read["values"].items()}
    return kind(**found)


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _copy(array: NDArray[Any], pool: SlotPool) -> torch.Tensor:
    if array.dtype not in _POOLED:
        return torch.from_numpy(array.copy())
    tensor = pool.empty(array.shape, _POOLED[array.dtype])
    np.copyto(tensor.numpy(), array)
    return tensor


def _value(name: str, value: Sequence[Any]) -> tuple[Any, ...]:
    """Return what is no tensor as batches have it: a tuple with one of each sample."""
    return tuple(SampleId(*each) for each in value) if name == "ids" else tuple(value)


def _view(body: NDArray[np.uint8], place: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape = np.dtype(place["dtype"]), tuple(place["shape"])
    array: NDArray[Any] = body[place["at"] : place["at"] + math.prod(shape) * dtype.itemsize].view(dtype)
    return array.reshape(shape)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
