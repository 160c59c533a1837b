"""What Ray's processes die of; in a module of its own, which they can import."""

import os
import signal
from pathlib import Path

from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.mapping import Result

__all__ = ["DeadlyEnvironment", "Dying", "dies_of_one"]


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


class DeadlyEnvironment(DriverEnvironment):
    """What ends every process that takes it."""

    def apply(self) -> None:
        os.abort()


def dies_of_one(item: dict[str, int]) -> Result:
    """Do every item but number 1, of which the process dies."""
    if item["item"] == 1:
        os.abort()
    return Result(item)
