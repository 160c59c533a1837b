"""Where samples are made, and how their bytes are fetched."""

from dataclasses import dataclass, fields
from typing import Literal

from echotrain.errors import ConfigError

__all__ = ["StreamConfig"]

# Where samples are made by other processes, and how those are to be.
_OF_MAKERS = ("where", "makers", "cpus_per_maker", "group")


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Where samples are made, and how payload is fetched. Part of a run's place: none of it changes a sample or the order.

    Attributes:
        where: ``rank``: each training process fetches what it trains on. ``cluster``: other processes of the cluster fetch, decode and
            transform what is trained on, and hand it over through Ray's object store; for samples that cost more CPU than the trainers'
            own can give. What is validated on is made in the rank either way.
        makers: Such processes at most that work for one rank at a time; how many do follows the load, and one always may. 0 takes every
            CPU that this run's trainers leave, shared among the ranks, for up to 64 each; other runs of the cluster queue with them.
        cpus_per_maker: What each reserves.
        group: Worker group of the cluster in which they run (``ray.io/node-group``); "" for any node with free CPUs.
        threads: Concurrent range reads of a process: of a rank, or of each maker. A store gives each connection about 80 MB/s, so a NIC
            of 1 GB/s wants about 16 over all processes of a node. 0 takes 16 for an object store and 4 for a folder, where more of them
            only push each other's data out of the processor's cache; a folder on a slow network drive may want more.
        prefetch_steps: Steps fetched ahead of the one in use.
        prefetch_mb: Bytes in flight or waiting, per rank, at most; one step is always allowed. With ``where=cluster`` as much again lies in
            the object store and 128 MB for each maker, of at least four, but never more than the rank's share of half of it; and a maker
            holds what it is at work on, up to 64 MB, twice. What is validated on has as much of its own.
        pin_memory: Fetch into page-locked memory, for asynchronous copies to a GPU; None does so where there is one.
        timeout_s: Longest silence of a connection before the read is tried again.
        attempts: Tries per read.
    """

    where: Literal["rank", "cluster"] = "rank"
    makers: int = 0
    cpus_per_maker: float = 1.0
    group: str = ""
    threads: int = 0
    prefetch_steps: int = 32
    prefetch_mb: float = 512.0
    pin_memory: bool | None = None
    timeout_s: float = 10.0
    attempts: int = 5

    def __post_init__(self) -> None:
        for name, least in (("threads", 0), ("prefetch_steps", 1), ("attempts", 1), ("makers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"stream.{name}={getattr(self, name)}", f"must be at least {least}", "Leave it out for the default.")
        for name in ("prefetch_mb", "timeout_s", "cpus_per_maker"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"stream.{name}={getattr(self, name)}", "must be positive", "Leave it out for the default.")

    def check_own_loop(self) -> None:
        """Refuse what nothing would follow where a loop that is not echotrain's iterates.

        Raises:
            ConfigError: Samples are to be made by other processes, or it is said how these are to be.
        """
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in _OF_MAKERS and value != f.default:
                raise ConfigError(
                    f"stream.{f.name}={value}",
                    "has no effect in a loop of one's own, whose samples are made in its own process",
                    "Leave it out (threads=... is how many reads go on at a time), or train with ray_jobs.train.",
                )
