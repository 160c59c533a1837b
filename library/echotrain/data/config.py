"""How the bytes of samples are fetched."""

from dataclasses import dataclass

from echotrain.errors import ConfigError

__all__ = ["StreamConfig"]


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How payload is fetched. Part of a run's place: none of it changes a sample or the order.

    Attributes:
        threads: Concurrent range reads per rank. A store gives each connection about 80 MB/s, so a NIC of 1 GB/s wants
            about 16 over all ranks of a node. 0 takes 16 for an object store and 4 for a folder, where more of them only push
            each other's data out of the processor's cache; a folder on a slow network drive may want more.
        prefetch_steps: Steps fetched ahead of the one in use.
        prefetch_mb: Bytes in flight or waiting, per rank, at most; one step is always allowed.
        pin_memory: Fetch into page-locked memory, for asynchronous copies to a GPU; None does so where there is one.
        timeout_s: Longest silence of a connection before the read is tried again.
        attempts: Tries per read.
    """

    threads: int = 0
    prefetch_steps: int = 32
    prefetch_mb: float = 512.0
    pin_memory: bool | None = None
    timeout_s: float = 10.0
    attempts: int = 5

    def __post_init__(self) -> None:
        for name, least in (("threads", 0), ("prefetch_steps", 1), ("attempts", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"stream.{name}={getattr(self, name)}", f"must be at least {least}", "Leave it out for the default.")
        for name in ("prefetch_mb", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"stream.{name}={getattr(self, name)}", "must be positive", "Leave it out for the default.")
