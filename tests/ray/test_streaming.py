"""Streams whose rows Ray Data carries: the same steps as without it, shared by the workers of a run."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from echotrain.benchmarks.throttled import serve_throttled
from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.orchestration.runtime.streaming import RayStream, ray_pieces
from echotrain.physics.masks import MaskConfig
from tests.catalogs import write_catalog

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

MASK = MaskConfig(kind="random")


def test_ray_data_carries_rows_whole_and_in_order() -> None:
    table = pa.table({"index": np.arange(1000), "name": [f"volume{i}" for i in range(1000)]})
    pieces = list(ray_pieces(table, 96))
    assert [piece.num_rows for piece in pieces] == [96] * 10 + [40]
    assert pa.concat_tables(pieces).to_pylist() == table.to_pylist()


def test_steps_equal_those_without_ray_and_resume_in_the_middle(tmp_path: Path) -> None:
    write_catalog(tmp_path, volumes=30, kind="lines", splits=("train", "train", "val"), shapes=((4, 24, 20), (6, 20, 20)))
    data = LinesData(catalog=str(tmp_path), mask=MASK, fraction=0.7)
    options = {"seed": 3, "batch_size": 4, "rank": 1, "world_size": 3, "config": StreamConfig(threads=2)}
    with_ray, without = RayStream(data, **options), PlannedStream(data, **options)
    for epoch, first in ((0, 0), (5, 6)):
        pairs = list(zip(with_ray.steps(epoch, first), without.steps(epoch, first), strict=True))
        assert len(pairs) == without.num_steps(epoch) - first
        for one, two in pairs:
            assert one.num_global_samples == two.num_global_samples
            for a, b in zip(one.batches, two.batches, strict=True):
                assert a.ids == b.ids
                torch.testing.assert_close(a.kspace * a.mask, b.kspace * b.mask, rtol=0, atol=0)
                torch.testing.assert_close(a.weight, b.weight)
    evaluated = [[batch.ids for batch in stream.evaluation()] for stream in (with_ray, without)]
    assert evaluated[0] == evaluated[1]
    with_ray.close()


def test_an_abandoned_epoch_stops_and_the_next_one_runs(tmp_path: Path) -> None:
    write_catalog(tmp_path, volumes=30)
    stream = RayStream(LinesData(catalog=str(tmp_path), mask=MASK), seed=0, batch_size=2)
    steps = stream.steps(0)
    next(steps)
    steps.close()
    assert len(list(stream.steps(1))) == stream.num_steps(1) == 45


def test_two_processes_of_a_cluster_share_an_epoch_from_s3(tmp_path: Path) -> None:
    # A function within the test travels to the workers by value: they cannot import this module.
    @ray.remote(num_cpus=0.1)
    def work(rank: int) -> list[list[tuple]]:
        data = LinesData(catalog="s3://bucket", mask=MASK)
        stream = RayStream(data, seed=0, batch_size=5, rank=rank, world_size=2)
        return [[tuple(sample) for batch in step.batches for sample in batch.ids] for step in stream.steps(0)]

    write_catalog(tmp_path / "bucket", volumes=5)
    with serve_throttled(tmp_path) as server:
        ranks = ray.get([work.options(runtime_env={"env_vars": server.env}).remote(rank) for rank in range(2)])
    assert [[len(step) for step in steps] for steps in ranks] == [[3, 3, 3], [2, 2, 2]]
    seen = [sample for steps in ranks for step in steps for sample in step]
    assert len(seen) == len(set(seen)) == 15
