"""Frames that several samples look at: each is read once, and kept while the next steps need it."""

import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from echotrain.data.catalog.rows import SliceRow
from echotrain.data.samples.slots import SlotPool

__all__ = ["FrameStore", "StoredFrame"]

K = TypeVar("K", bound=Hashable)
Read = Callable[[NDArray[np.complex64], NDArray[np.float32]], int]


@dataclass(frozen=True)
class _Held:
    kspace: NDArray[np.complex64]
    target: NDArray[np.float32]


class StoredFrame:
    """One frame's k-space and target, read by whoever comes first; the others wait for that read and share how it ends.

    Args:
        row: The frame.
        read: Fills its memory and returns the bytes that it fetched.
        pool: Gives the memory, when it is read.
    """

    def __init__(self, row: SliceRow, read: Read, pool: SlotPool) -> None:
        self.row = row
        self._read, self._pool = read, pool
        # Whoever holds it is reading on a thread that runs, so nobody waits for a read that waits for a thread.
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._failure: Exception | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it was read in vain."""
        return self._failure is not None

    @property
    def nbytes(self) -> int:
        """Memory that it takes once it was read."""
        return self.row.coils * self.row.height * self.row.width * 8 + self.row.recon_height * self.row.recon_width * 4

    def copy_to(self, kspace: NDArray[np.complex64], targets: Iterable[NDArray[np.float32]]) -> int:
        """Copy the k-space, and the target to any number of places; return the bytes that were fetched for it, 0 where others did.

        Raises:
            PayloadError: As ``SliceReader.read``, also where another's read failed that this one waited for.
            StorageError: Likewise.
        """
        held, num_bytes = self._ensure()
        np.copyto(kspace, held.kspace)
        for target in targets:
            np.copyto(target, held.target)
        return num_bytes

    def _ensure(self) -> tuple[_Held, int]:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._held is not None:
                return self._held, 0
            row = self.row
            kspace = self._pool.empty((row.coils, row.height, row.width), torch.complex64).numpy()
            target = self._pool.empty((row.recon_height, row.recon_width), torch.float32).numpy()
            try:
                num_bytes = self._read(kspace, target)
            except Exception as failure:
                self._failure = failure
                raise
            self._held = _Held(kspace, target)
            return self._held, num_bytes


class FrameStore(Generic[K]):
    """Keeps the frames of the last step that was begun, and those that windows come back to.

    That is its bound: a step's frames, and what its ``keep`` says of earlier ones. Frames that it has let go live on for steps that were
    begun and are not filled yet, which count them as theirs. Steps are begun by one thread; their frames are for any.
    """

    def __init__(self) -> None:
        self._frames: dict[K, StoredFrame] = {}

    def step(self, wanted: Iterable[K], make: Callable[[K], StoredFrame], keep: Callable[[K], bool]) -> tuple[dict[K, StoredFrame], int]:
        """Begin a step.

        Args:
            wanted: The frames that it looks at.
            make: Makes those that are not here, or were read in vain.
            keep: Tells, of a frame that the step does not look at, whether later ones will.

        Returns:
            The frames, and the memory of those that are new.
        """
        before = {key: frame for key, frame in self._frames.items() if not frame.has_failed}
        frames = {key: before.get(key) or make(key) for key in wanted}
        kept = {key: frame for key, frame in before.items() if key not in frames and keep(key)}
        self._frames = {**kept, **frames}
        return frames, sum(frame.nbytes for key, frame in frames.items() if key not in before)
