"""Workers that die while they map: what is done stays done, what is not is done by others, and not for ever."""

from collections import Counter

import pytest

from echotrain.errors import ResourceError
from echotrain.orchestration.runtime.mapping import map_items
from tests.dying_worker import Dying

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_items_of_workers_that_die_are_done_by_others_and_come_once(tmp_path):
    items = [{"item": number, "deaths": 1} for number in range(6)]
    done = [result.values["item"] for result in map_items(items, Dying, str(tmp_path), concurrency=1)]
    assert Counter(done) == Counter(range(6))
    assert len(list(tmp_path.iterdir())) == 6


def test_an_item_that_kills_every_worker_is_given_up(tmp_path):
    with pytest.raises(ResourceError, match=r"[123] of 3 items: are not done: workers died 4 times"):
        list(map_items([{"item": number, "deaths": 99 * (number == 0)} for number in range(3)], Dying, str(tmp_path), concurrency=1))
    # The others may be done between, which begins the count anew.
    assert 4 <= len(list(tmp_path.iterdir())) <= 4 * 3
