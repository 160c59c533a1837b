"""A run that loses the node of its workers: Ray gives their start up, the wait is told, and the run goes on where it was saved."""

import os
import subprocess
import sys

import pytest

from tests import lost_training_node
from tests.autoscaled import publish

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_run_whose_node_goes_tells_what_it_waits_for_and_goes_on_when_another_comes(catalog_uri, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= publish(tmp_path / "groups.json", {"data": {"CPU": 1, "max": 2}})
    settings = [f"data.catalog={catalog_uri}", "batch_size=4", "epochs=20", "log_every=1", "checkpoint_every=2", "workers=1"]
    command = [sys.executable, "-m", lost_training_node.__name__, str(tmp_path / "runs"), *settings]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    said = ended.stdout
    assert "told: waiting for nodes: 1 worker of 1 CPU, and those that are up hold 0" in said, ended
    first, second = (int(line.split()[-1]) for line in said.splitlines() if line.startswith("starts at"))
    assert (first, second >= 2) == (0, True)
    assert "finished: [100]" in said
    assert "Traceback" not in ended.stderr
