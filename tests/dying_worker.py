"""A worker of ``map_items`` that dies; in a module of its own, which Ray's processes can import."""

import os
import signal
from pathlib import Path

from echotrain.orchestration.mapping import Result

__all__ = ["Dying"]


class Dying:
    """Dies at one item, as often as it is told to."""

    def __init__(self, folder: str, times: int) -> None:
        self.folder, self.times = Path(folder), times

    def __call__(self, item: dict[str, int]) -> Result:
        if item["item"] == 2:
            died = len(list(self.folder.iterdir()))
            if died < self.times:
                (self.folder / str(died)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return Result({"item": item["item"]}, b"x")
