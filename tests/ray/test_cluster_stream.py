"""Samples that are made on other CPUs of the cluster: the same numbers as in the rank, whatever dies on the way."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from echotrain.benchmarks.throttled import Fault, serve_throttled
from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.image import ImageData
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import PayloadError, ResourceError
from echotrain.orchestration.runtime import cluster_stream
from echotrain.orchestration.runtime.cluster_stream import ClusterStream
from tests import lost_maker
from tests.catalogs import write_catalog
from tests.dying_worker import DeadlyEnvironment
from tests.frame_catalogs import write_frames
from tests.images import random_volumes, write_images
from tests.local_cluster import assert_same_run, kill_once, run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

CLUSTER = StreamConfig(where="cluster", makers=2, threads=2)


def of_lines(folder):
    write_catalog(folder, volumes=9, kind="lines", splits=("train", "train", "val"), shapes=((4, 24, 20), (6, 20, 20)))
    return LinesData(catalog=str(folder), fraction=0.8)


def of_frames(folder):
    write_frames(folder, splits=("train", "train", "val"))
    return KtData(catalog=str(folder), num_adjacent=3)


def of_images(folder):
    write_images(folder, random_volumes((5, 17, 12), (4, 12, 9)))
    return ImageData(catalog=str(folder), side=16)


def numbers(step):
    """Return all that is known of a step's samples, as it enters a network."""
    found = []
    for batch in step.batches:
        # What lies outside of the mask may be anything.
        acquired = {"kspace": tuple(batch.network_input())} if hasattr(batch, "network_input") else {}
        found.append(vars(batch) | acquired)
    return found


def assert_same(one, two):
    assert one.num_global_samples == two.num_global_samples
    for first, second in zip(numbers(one), numbers(two), strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            values, others = (each if isinstance(each, tuple) else (each,) for each in (value, second[name]))
            for mine, other in zip(values, others, strict=True):
                assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other, name


@pytest.mark.parametrize("make", [of_lines, of_frames, of_images])
def test_steps_are_those_of_the_rank_over_epochs_and_from_the_middle_of_one(make, tmp_path):
    data, place = make(tmp_path), {"seed": 3, "batch_size": 4, "rank": 1, "world_size": 3}
    on_cluster, in_rank = ClusterStream(data, epochs=4, config=CLUSTER, **place), PlannedStream(data, **place)
    try:
        for epoch, first in ((0, 1), (1, 0), (3, 2)):  # The last is not what follows: made anew, from there on.
            pairs = list(zip(on_cluster.steps(epoch, first), in_rank.steps(epoch, first), strict=True))
            assert len(pairs) == in_rank.num_steps(epoch) - first > 0
            for one, two in pairs:
                assert_same(one, two)
    finally:
        on_cluster.close()
        in_rank.close()


def test_an_abandoned_epoch_ends_and_the_next_one_runs(tmp_path):
    stream = ClusterStream(of_lines(tmp_path), seed=0, batch_size=2, epochs=2, config=CLUSTER)
    assert list(stream.steps(0, stream.num_steps(0))) == []  # Of which nothing is left.
    steps = stream.steps(0)
    first = next(steps)
    with contextlib.closing(PlannedStream(stream._data, seed=0, batch_size=2)) as in_rank:
        assert_same(first, next(in_rank.steps(0)))
    steps.close()
    assert len(list(stream.steps(1))) == stream.num_steps(1)
    stream.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name == "echotrain-made-steps"]


def test_damage_is_told_as_in_the_rank(tmp_path):
    data = of_lines(tmp_path)
    for shard in (tmp_path / "shards").iterdir():
        shard.write_bytes(bytes(shard.stat().st_size))
    stream = ClusterStream(data, seed=0, batch_size=2, epochs=1, config=CLUSTER)
    with pytest.raises(PayloadError, match=r"shards/test-\d+\.bin at byte \d+: .*checksum"):
        list(stream.steps(0))
    stream.close()


def test_samples_that_end_every_process_that_makes_them_are_not_made_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_stream, "_MOST_ATTEMPTS", 2)
    monkeypatch.setattr(cluster_stream, "DriverEnvironment", DeadlyEnvironment)
    stream = ClusterStream(of_lines(tmp_path), seed=0, batch_size=2, epochs=1, config=dataclasses.replace(CLUSTER, makers=1))
    with pytest.raises(ResourceError, match=r"piece \d+ of the samples: was begun 2 times, and its process died each time.*stream\.makers"):
        next(stream.steps(0))
    stream.close()


def makers():
    """Return the processes of this cluster that make samples at this moment."""
    return lost_maker.working(psutil.Process(), "make_samples")


def test_a_maker_that_dies_and_a_store_that_fails_cost_no_sample(tmp_path):
    data = of_lines(tmp_path / "bucket")
    with serve_throttled(tmp_path, first_byte_s=0.3) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        far = LinesData(catalog="s3://bucket", fraction=0.8)
        # A fifth of what is read, and one read may meet them all.
        server.inject(Fault(kind="unavailable", key=".bin", times=4), Fault(kind="short", key=".bin", times=4))
        stream = ClusterStream(far, seed=0, batch_size=1, epochs=3, config=dataclasses.replace(CLUSTER, attempts=12))
        killed, seen = [], []

        def kill():
            while not killed:
                for process in makers()[:1]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                        killed.append(process.pid)
                time.sleep(0.01)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        for epoch in range(3):
            seen += list(stream.steps(epoch))
        killer.join(30)
        stream.close()
    assert killed
    in_rank = PlannedStream(data, seed=0, batch_size=1)
    for epoch in range(3):
        for step in in_rank.steps(epoch):
            assert_same(seen.pop(0), step)
    assert not seen
    in_rank.close()


@pytest.fixture
def failing(catalog_uri):
    """Return the catalog's URI in a store where each fifth reading fails, for as long as it is there."""
    prepared = Path(catalog_uri)
    with serve_throttled(prepared.parent, first_byte_s=0.1) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        server.inject(Fault(kind="unavailable", every=5, method="GET"))
        yield f"s3://{prepared.name}"
        assert server.stats().requests > 100


def test_weights_are_those_of_samples_made_in_the_rank_though_a_rank_and_a_maker_die(experiment, kept, failing):
    """On two ranks, with work on every sample, from a store that fails.

    Two makers die with the rank, which belong to it, and are replaced as it is.
    """
    settings = ["workers=2", "batch_size=4", "data.coils=3", "checkpoint_every=2"]
    in_rank = run(experiment, *settings, "name=rank", workers=kept)
    hook, done = kill_once(3, 1, signal.SIGKILL)
    from_store = [f"data.catalog={failing}", "stream.attempts=12", "stream.where=cluster"]
    on_cluster = run(experiment, *settings, *from_store, "name=cluster", on_record=hook, workers=kept)
    assert done
    assert_same_run(in_rank, on_cluster)


@pytest.mark.slow  # A cluster of three nodes starts, and Ray takes its time until it is sure that one is gone.
def test_a_node_that_is_lost_with_its_makers_costs_seconds_and_no_sample(experiment, failing, kept, tmp_path):
    settings = ["data.coils=3", "epochs=6", "stream.attempts=12", "stream.prefetch_steps=1", "stream.threads=1"]
    alone = run(experiment, "workers=1", "name=alone", *settings, workers=kept)
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "ECHOTRAIN_WORKER_GROUPS")}
    command = [sys.executable, "-m", lost_maker.__name__, failing, str(tmp_path / "lost"), *settings]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    found = re.search(r"steps: (\d+), waited for after the loss: (\d+), longest: ([\d.]+) s", ended.stdout)
    assert found, ended
    steps, waits, longest = found.groups()
    assert int(steps) == alone.global_step == 30
    # Not all had been made when the node went.
    assert int(waits) > 0
    assert float(longest) < 20
    assert_same_run(alone, dataclasses.replace(alone, run_uri=str(tmp_path / "lost" / experiment.name)))
