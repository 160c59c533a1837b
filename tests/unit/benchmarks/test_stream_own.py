"""Both sides of the stream benchmark on a store of one's own read the same bytes by the same requests."""

from collections import Counter

import pytest

from echotrain.benchmarks.environment import environment
from echotrain.benchmarks.stream_data import BUCKET, SMALL, write_stream_data
from echotrain.benchmarks.stream_own import RecordedLines, replayed
from echotrain.benchmarks.stream_sides import R4
from echotrain.benchmarks.throttled import serve_throttled
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    data = write_stream_data(tmp_path_factory.mktemp("data"), 0.0, SMALL)
    with serve_throttled(data.folder) as server, environment(server.env):
        yield server


@pytest.mark.parametrize("payload", ["packed", "lines"])
def test_bare_reads_are_those_of_the_stream(server, payload):
    settings = {"catalog": f"s3://{BUCKET}/{payload}", "mask": R4}
    recorded = RecordedLines(**settings)
    streams = [PlannedStream(data, seed=0, batch_size=3, rank=1, world_size=2) for data in (LinesData(**settings), recorded)]
    sent = []
    for stream in streams:
        server.reset()
        for step in stream.steps(1):
            del step
        sent.append(Counter(server.ranges()))
        stream.close()
    side = replayed(recorded.ranges, 3)
    server.reset()
    counts = list(side.epoch(1))
    side.close()
    assert sent[0] == sent[1] == Counter(server.ranges())
    assert sum(count.fetched for count in counts) == server.stats().bytes
