"""A worker of ``map_items`` that dies; in a module of its own, which Ray's processes can import."""

import os
import signal
from pathlib import Path

from echotrain.orchestration.runtime.mapping import Result

__all__ = ["Dying"]


class Dying:
    """Dies at each item as often as that says, and then does it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, item: dict[str, int]) -> Result:
        died = len(list(self.folder.glob(f"{item['item']}-*")))
        if died < item["deaths"]:
            (self.folder / f"{item['item']}-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Result({"item": item["item"]}, b"x")
