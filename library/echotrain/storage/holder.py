"""Who writes to a folder: a process, told so that a person can find it, and so that another on its machine can see whether it lives."""

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

__all__ = ["Process"]

_DEAD = {"Z", "X", "x"}


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process on a machine.

    Attributes:
        host: Name of its machine, for people.
        machine: Of the machine's start and of the space in which ``pid`` means something; "" where that cannot be known. Two containers
            of one host number their processes each for itself.
        pid: Its number there.
        started: When it started, in the machine's own ticks, because numbers come again; "" where that cannot be known.
        since: When it took the folder, in UTC, for people: clocks of two machines are never compared.
    """

    host: str
    machine: str
    pid: int
    started: str
    since: str

    @classmethod
    def this(cls) -> Self:
        """Return the process that asks."""
        pid = os.getpid()
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return cls(host=socket.gethostname(), machine=_machine(), pid=pid, started=_state_and_start(pid)[1], since=since)

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, on the machine of the process that asks."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def is_this(self) -> bool:
        """Whether it is the process that asks."""
        return self.is_here and (self.pid, self.started) == (os.getpid(), _state_and_start(os.getpid())[1])

    @property
    def is_known_dead(self) -> bool:
        """Whether it was on this machine and is no more; one on another machine, or one that cannot be told apart, is not known to be."""
        if not self.is_here:
            return False
        state, started = _state_and_start(self.pid)
        return state in _DEAD or started != self.started if started else not _exists(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@cache
def _machine() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()} {socket.gethostname()}"
    return ""


def _exists(pid: int) -> bool:
    """Whether there is a process of that number, also one that another user may not look at."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _state_and_start(pid: int) -> tuple[str, str]:
    """Return a process's state and the tick of its start; two empty texts where there is none such."""
    with contextlib.suppress(OSError, IndexError):
        # The name in brackets may hold anything, brackets too.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    return "", ""
