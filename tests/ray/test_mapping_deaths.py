"""Workers that die while they map: what is done stays done, what is not is done by others, and not for ever."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from echotrain.errors import ResourceError
from echotrain.orchestration.runtime import mapping
from echotrain.orchestration.runtime.mapping import map_items
from tests import lost_node
from tests.dying_worker import Dying, dies_of_one

pytestmark = pytest.mark.ray


@pytest.mark.usefixtures("local_ray")
def test_items_of_workers_that_die_are_done_by_others_and_come_once(tmp_path):
    items = [{"item": number, "deaths": 1} for number in range(6)]
    done = [result.values["item"] for result in map_items(items, Dying, str(tmp_path), concurrency=1)]
    assert Counter(done) == Counter(range(6))
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.usefixtures("local_ray")
def test_an_item_that_kills_every_worker_is_given_up(tmp_path):
    with pytest.raises(ResourceError, match=r"[123] of 3 items: are not done: workers died 4 times"):
        list(map_items([{"item": number, "deaths": 99 * (number == 0)} for number in range(3)], Dying, str(tmp_path), concurrency=1))
    # The others may be done between, which begins the count anew.
    assert 4 <= len(list(tmp_path.iterdir())) <= 4 * 3


@pytest.mark.usefixtures("local_ray")
def test_an_item_that_kills_every_process_of_a_function_is_given_up_and_named(monkeypatch):
    monkeypatch.setattr(mapping, "_MOST_DEATHS", 2)
    with pytest.raises(ResourceError, match=r'item \{"item": 1\}: was begun 2 times, and its process died each time.*lower workers'):
        list(map_items([{"item": 0}, {"item": 1}], dies_of_one, concurrency=1))


@pytest.mark.slow  # Ray is sure that a node is gone after ten seconds, and a cluster of its own takes as long to start.
def test_whoever_loses_the_only_node_is_told_what_is_waited_for_and_goes_on_with_the_next(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "ECHOTRAIN_WORKER_GROUPS")}
    command = [sys.executable, "-m", lost_node.__name__, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "waiting for nodes: 1 worker of 1 GPU, and those that are up hold 0" in ended.stderr, ended
    assert "done: [0, 1, 2] GPUs: {1.0}" in ended.stdout, ended
