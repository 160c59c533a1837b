"""Memory for batches that is used again and again.

A fresh megabyte costs more to map, page by page, than to fill; that alone holds a loader that allocates per sample to 1 GB/s. A slot
goes back to the pool by itself when the last tensor that looks into it is gone.
"""

import collections
import math
import mmap
import weakref

import numpy as np
import torch

__all__ = ["Scratch", "SlotPool"]

_NUMPY = {torch.complex64: np.complex64, torch.float32: np.float32}
_SMALLEST = 64 << 10
_HUGE_PAGE = 2 << 20


class SlotPool:
    """Gives out uninitialised tensors over recycled memory; for use by any number of threads.

    Args:
        pin: Give out page-locked memory, for asynchronous copies to a GPU. PyTorch's own pool then does the recycling: it knows
            when a copy that was only enqueued has left the memory.
        max_idle_bytes: Idle memory to keep for later.
    """

    def __init__(self, *, pin: bool = False, max_idle_bytes: int = 1 << 30) -> None:
        self._pin = pin
        self._max_idle_bytes = max_idle_bytes
        # deque.append and .pop are atomic. A lock would not do: a slot may come back in the middle of any allocation,
        # from the garbage collector, on the very thread that holds it.
        self._idle: dict[int, collections.deque[mmap.mmap]] = collections.defaultdict(collections.deque)
        self.num_allocated = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor of complex64 or float32."""
        if self._pin:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        nbytes = math.prod(shape) * dtype.itemsize
        size = _size_class(nbytes)
        try:
            memory = self._idle[size].pop()
        except IndexError:
            memory = _map(size)
            self.num_allocated += 1
        owner = np.frombuffer(memory, np.uint8)
        weakref.finalize(owner, self._release, memory, size).atexit = False
        # Shaped by NumPy: each call into torch gives up the interpreter's lock and waits for it among all reading threads.
        return torch.from_numpy(owner[:nbytes].view(_NUMPY[dtype]).reshape(shape))

    def _release(self, memory: mmap.mmap, size: int) -> None:
        if sum(each * len(slots) for each, slots in list(self._idle.items())) + size <= self._max_idle_bytes:
            self._idle[size].append(memory)


class Scratch:
    """A growing buffer for what is read only to be decoded at once; one per thread."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> np.ndarray:
        """Return ``nbytes`` bytes, which overlap those of the last call."""
        if nbytes > self._memory.size:
            self._memory = np.frombuffer(_map(_size_class(nbytes)), np.uint8)
        return self._memory[:nbytes]


def _size_class(nbytes: int) -> int:
    """Round up to one of four sizes per doubling, so that slices of many shapes share slots at little waste."""
    size = max(nbytes, _SMALLEST)
    step = 1 << max(0, size.bit_length() - 3)
    return -(-size // step) * step


def _map(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size)
    if size >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
