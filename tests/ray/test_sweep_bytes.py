"""What a sweep over fractions and anatomies reads, counted where it is sent: the slices that its trials select, and no other byte."""

import numpy as np
import pytest
from rich.console import Console

from echotrain.benchmarks.throttled import serve_throttled
from echotrain.data.catalog.selection import Where, select
from echotrain.orchestration.jobs.tuning import run_sweep
from echotrain.sweeps.console import SweepConsole
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.spec import SweepSpec
from tests.catalogs import write_catalog
from tests.local_cluster import short_experiment

pytestmark = pytest.mark.ray

EPOCHS = 2
FRACTIONS = (0.3, 0.6)
ANATOMIES = (["knee"], ["knee", "brain"])


def test_a_sweep_reads_the_slices_that_its_trials_select_and_nothing_else(local_ray, tmp_path, monkeypatch):
    catalog = write_catalog(
        tmp_path / "s3/bucket",
        volumes=24,
        slices=2,
        shapes=((4, 32, 32), (2, 32, 24)),
        splits=("train",) * 6 + ("val",) * 2,
        anatomies=("knee", "brain", "spine"),
    ).catalog
    times = np.zeros(len(catalog), int)  # How often each slice is to be read.
    for fraction in FRACTIONS:
        for anatomies in ANATOMIES:
            where = Where(anatomy=tuple(anatomies))
            times[select(catalog.table, splits=("train",), fraction=fraction, where=where)] += EPOCHS
            times[select(catalog.table, splits=("val",), where=where)] += EPOCHS
    rows = catalog.rows()
    # The case is worth its name: brains are left out by the fraction alone, spines always, and some slices are in every trial.
    left_out = {(row.split, row.anatomy) for row, count in zip(rows, times, strict=True) if not count}
    assert left_out == {("train", "brain"), ("train", "spine"), ("val", "spine")}
    assert set(times // EPOCHS) >= {0, 1, 4}

    spec = SweepSpec(
        name="bytes",
        recipe="varnet_mosaic_x4_debug",
        method="grid",
        parameters={"data.fraction": Choice(values=FRACTIONS), "data.where.anatomy": Choice(values=ANATOMIES)},
    )
    with serve_throttled(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        experiment = short_experiment("s3://bucket", tmp_path / "runs")
        result = run_sweep(spec, experiment, concurrency=1, console=SweepConsole(Console(quiet=True)))
        sent = server.ranges()
    assert [trial.state for trial in result.trials] == ["finished"] * 4

    # How often every byte of every shard was sent. Nothing is read across slices; a slice's k-space, its target and the padding
    # between them, at most 63 bytes, are one request.
    counted = {row.uri: np.zeros((tmp_path / "s3/bucket" / row.uri).stat().st_size, int) for row in rows}
    expected = {uri: np.zeros_like(count) for uri, count in counted.items()}
    for row, count in zip(rows, times, strict=True):
        assert 0 <= row.target_offset - (row.offset + row.nbytes) < 64
        expected[row.uri][row.offset : row.target_offset + row.target_nbytes] += count
    for key, offset, nbytes in sent:
        uri = key.removeprefix("bucket/")
        if uri in counted:
            counted[uri][offset : offset + nbytes] += 1
        else:
            assert uri.startswith("catalog/")
    unselected = sum(int(counted[uri][expected[uri] == 0].sum()) for uri in counted)
    assert unselected == 0
    own = sum(count * (row.nbytes + row.target_nbytes) for row, count in zip(rows, times, strict=True))
    assert sum(count.sum() for count in counted.values()) == pytest.approx(own, rel=0.01)
    for uri in counted:
        assert np.array_equal(counted[uri], expected[uri]), uri
