"""What an evaluation costs beside its network: a whole job on one worker, against bare forward passes in that very worker.

The job is the real one: Ray Data hands out volumes, slices are read, reconstructed, compared with the target and so is the zero-filled
image. The reconstructor watches the clock: it keeps some slices of the first volume, and passes them through the network once that volume
is done and again when the last slice has come; between the two lie the volumes that are timed.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from echotrain.benchmarks.result import BenchResult
from echotrain.benchmarks.scans import ScanSize, write_scans
from echotrain.data.catalog.rows import Catalog, SliceRow
from echotrain.data.catalog.store import commit_catalog
from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.preparing.convert import ConvertConfig, convert_scan, scan_key
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.errors import ConfigError, ResourceError
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.jobs.evaluate import evaluate
from echotrain.orchestration.jobs.inference import Subject
from echotrain.orchestration.runtime.cluster import connect
from echotrain.physics.masks import MaskConfig
from echotrain.shapes import Magnitude
from echotrain.storage.open import open_store
from echotrain.tasks.reconstruction import ReconstructionConfig

__all__ = ["run"]

_SPLIT = "test"
_KEPT = 6
# A process that has used less than this share of a processor for so long has nothing under way.
_QUIET_S, _QUIET_SHARE, _LONGEST_WAIT_S = 0.2, 0.1, 60.0
_MASK = MaskConfig(kind="equispaced", accelerations=(4,), center_fractions=(0.08,))


def run(*, quick: bool = False, volumes: int = 3, cascades: int = 2, chans: int = 8, threads: int = 1) -> BenchResult:
    """Evaluate an untrained VarNet on a CPU.

    ``ours`` is the rate of the job from the second volume on, ``baseline`` that of the network alone; both in one process.

    Args:
        quick: Small slices and a tiny network: a check that it works.
        volumes: Of 8 slices of 15 x 640 x 372, at least 2; the first is not timed.
        cascades: Of the network.
        chans: Of the first level of its U-Nets, which are four poolings deep.
        threads: Of torch in the worker.
    """
    if volumes < 2:
        raise ConfigError(f"volumes={volumes}", "must be at least 2, of which the first is not timed", "Use 3.")
    size = ScanSize(slices=4, coils=4, height=64, width=48, image=32) if quick else ScanSize(slices=8)
    network = VarNetConfig(num_cascades=cascades, chans=chans)
    if quick:
        network = VarNetConfig(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2)
    with tempfile.TemporaryDirectory(prefix="echotrain-bench-") as scratch:
        report = Path(scratch) / "report.json"
        method = _TimedNetwork(
            data=LinesData(catalog=_write_catalog(Path(scratch), volumes, size), mask=_MASK),
            network=network,
            slices_per_volume=size.slices,
            volumes=volumes,
            report=str(report),
            threads_per_worker=threads,
        )
        connect()
        started = time.perf_counter()
        evaluate(method, split=_SPLIT, num_examples=1)
        whole_s = time.perf_counter() - started
        seen = json.loads(report.read_text())
    job, turns = _Span(*seen["job"]), [_Span(*turn) for turn in seen["turns"]]
    bare = _Span(*(sum(values) for values in zip(*turns, strict=True)))
    return BenchResult(
        name="evaluate",
        ours=job.slices / job.wall_s,
        baseline=bare.slices / bare.wall_s,
        unit="slices/s",
        ratio=job.slices / job.wall_s * bare.wall_s / bare.slices,
        detail={
            "cpu_ratio": job.slices / job.cpu_s * bare.cpu_s / bare.slices,
            "cpu_ratio_is": "CPU seconds of a slice in the network alone, over those of a slice in the job with all that is done for it",
            "job_s_per_slice": job.wall_s / job.slices,
            "forward_s_per_slice": [turn.wall_s / turn.slices for turn in turns],
            "whole_job_s": whole_s - seen["beside_the_job_s"],
            "whole_job_is": "from the call to the results: the worker's start and every volume, without the passes of the network alone",
            "volumes": volumes,
            "slices_per_volume": size.slices,
            "shape": f"{size.coils} x {size.height} x {size.width}",
            "network": network.describe(),
            "threads": threads,
            "ours_is": "one worker of a job: read, reconstruct, zero-fill, score both; its start and its first volume are not timed",
            "baseline_is": "forward passes of the same network over slices of these volumes, before and after, in the same process",
        },
    )


class _Span(NamedTuple):
    """Slices that were done in some time of the wall and of this process's threads."""

    slices: int
    wall_s: float
    cpu_s: float


class _Clock:
    """Measures spans of this process."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def span(self, slices: int) -> _Span:
        """Return what was done since; of the processor also what other threads still do for these slices, such as to score them."""
        wall_s = time.perf_counter() - self._started[0]
        _await_quiet()
        return _Span(slices, wall_s, time.process_time() - self._started[1])


def _await_quiet() -> None:
    """Wait until no thread of this process works."""
    deadline = time.perf_counter() + _LONGEST_WAIT_S
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(_QUIET_S)
        if time.process_time() - before < _QUIET_SHARE * _QUIET_S:
            return
    raise ResourceError(
        "the benchmark's worker", f"was not idle within {_LONGEST_WAIT_S:.0f} s of its last slice", "Run it on a machine of its own."
    )


@dataclass(frozen=True, kw_only=True)
class _TimedNetwork:
    """A ``Method``: an untrained network that times its job, and itself."""

    data: LinesData
    network: VarNetConfig
    slices_per_volume: int
    volumes: int
    report: str
    threads_per_worker: int
    workers = 1
    uses_gpu = False

    def resolved(self) -> tuple["_TimedNetwork", Subject]:
        return self, Subject(name="untrained", model=self.network.describe(), data=self.data)

    def load(self) -> "_Watch":
        torch.set_num_threads(self.threads_per_worker)
        torch.manual_seed(0)
        return _Watch(self)


class _Watch:
    """The network in its worker."""

    device = torch.device("cpu")

    def __init__(self, method: _TimedNetwork) -> None:
        self._method = method
        self._model = method.network.build().eval()
        self._task = ReconstructionConfig().build()
        self._kept: list[MeasuredBatch] = []
        self._calls = 0
        self._turns: list[_Span] = []
        self._clock = _Clock()
        self._beside_s = 0.0

    def reconstruct(self, batch: MeasuredBatch) -> Magnitude:
        images = self._task.reconstruct(self._model, batch)
        self._calls += 1
        if len(self._kept) < _KEPT:
            self._kept.append(batch)
        if self._calls == self._method.slices_per_volume:
            # Nothing is being read now: the first volume is there, and the second one has not been handed out.
            self._time_bare()
            self._clock = _Clock()
        elif self._calls == self._method.slices_per_volume * self._method.volumes:
            job = self._clock.span(self._calls - self._method.slices_per_volume)
            self._time_bare()
            seen = {"job": job, "turns": self._turns, "beside_the_job_s": self._beside_s}
            Path(self._method.report).write_text(json.dumps(seen))
        return images

    def _time_bare(self) -> None:
        """Time the network alone, once the slices before are scored: their work would count as the network's."""
        clock = time.perf_counter()
        _await_quiet()
        self._turns.append(self._bare())
        self._beside_s += time.perf_counter() - clock

    def _bare(self) -> _Span:
        inputs = [batch.network_input() for batch in self._kept]
        clock = _Clock()
        for each in inputs:
            self._model(*each)
        return clock.span(len(inputs))


def _write_catalog(scratch: Path, volumes: int, size: ScanSize) -> str:
    """Write one scan and a catalog that names it as several volumes; return the catalog's URI."""
    (path,) = write_scans(scratch / "scans", 1, size)
    store, deidentifier, config = open_store(str(scratch / "prepared")), Deidentifier(safe_names=["file.*"]), ConvertConfig()
    key = scan_key(deidentifier, str(path), path.stat().st_size, "", config)
    record = convert_scan(path, uri=str(path), key=key, store=store, config=config, deidentifier=deidentifier)
    rows = [SliceRow(**{**row, "split": _SPLIT, "volume": f"{row['volume']}-{number}"}) for number in range(volumes) for row in record.rows]
    commit_catalog(store, Catalog.from_rows(rows).table, {"made_by": "bench"})
    return store.uri
