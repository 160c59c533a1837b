"""How fast a run goes."""

import time
from dataclasses import dataclass, field

__all__ = ["Meter"]


@dataclass(kw_only=True)
class Meter:
    """Throughput since the last logged record."""

    started: float = field(default_factory=time.perf_counter)
    steps: int = 0
    samples: int = 0
    num_bytes: float = 0.0
    wait_s: float = 0.0

    def add(self, *, samples: int, num_bytes: float, wait_s: float) -> None:
        """Count a step."""
        self.steps += 1
        self.samples += samples
        self.num_bytes += num_bytes
        self.wait_s += wait_s

    def numbers(self, world: int) -> dict[str, float]:
        """Return rates over all ranks, and the mean wait of a rank for the data of one step."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        return {
            "samples_per_s": self.samples / elapsed,
            "bytes_per_s": self.num_bytes / elapsed,
            "step_s": elapsed / max(self.steps, 1),
            "data_wait_s": self.wait_s / max(self.steps * world, 1),
        }
