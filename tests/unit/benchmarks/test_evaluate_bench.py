"""The clock of the evaluation benchmark: what other threads do for a slice is the job's, and never the bare network's."""

import threading
import time

import pytest

from echotrain.benchmarks import evaluate
from echotrain.errors import ResourceError


def burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_span_has_the_work_of_threads_that_outlast_it_and_the_next_one_has_none_of_it(monkeypatch):
    monkeypatch.setattr(evaluate, "_QUIET_S", 0.1)
    clock = evaluate._Clock()
    scoring = threading.Thread(target=burn, args=(0.4,))
    scoring.start()
    job = clock.span(1)
    scoring.join()
    assert job.cpu_s >= 0.35
    assert job.wall_s < job.cpu_s
    assert evaluate._Clock().span(1).cpu_s < 0.2


def test_a_process_that_is_never_idle_is_an_error(monkeypatch):
    monkeypatch.setattr(evaluate, "_QUIET_S", 0.05)
    monkeypatch.setattr(evaluate, "_LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(evaluate, "_QUIET_SHARE", 0.0)
    with pytest.raises(ResourceError, match="was not idle"):
        evaluate._await_quiet()
