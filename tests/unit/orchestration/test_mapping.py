"""Errors of workers arrive as they were raised, whatever class a module keeps to itself."""

import logging
import threading

import pytest

from echotrain.errors import CredentialsError, EchotrainError, ResourceError, StorageError
from echotrain.orchestration.runtime import mapping
from echotrain.orchestration.runtime.error_text import as_text, restored


class _PrivateError(StorageError):
    """Known to one module alone."""


@pytest.mark.parametrize(("raised", "arrives"), [(CredentialsError, CredentialsError), (_PrivateError, StorageError)])
def test_an_error_crosses_processes_as_the_nearest_public_one(raised: type[EchotrainError], arrives: type[EchotrainError]) -> None:
    found = restored(as_text(raised("s3://lab/x", "cannot be", "Do this.")))
    assert type(found) is arrives
    assert str(found) == "s3://lab/x: cannot be. Do this."


class _Watch:
    """Finds no node at the third look."""

    def __init__(self) -> None:
        self.looks: list[bool] = []
        self.has_ended = threading.Event()

    def look(self, *, is_idle: bool) -> None:
        self.looks.append(is_idle)
        if len(self.looks) == 3:
            self.has_ended.set()
            raise ResourceError("1 worker of 1 CPU", "wait for nodes, and none has come", "Lower workers.")


def test_beside_ray_data_a_thread_looks_for_nodes_until_it_is_in_vain(monkeypatch, caplog):
    monkeypatch.setattr(mapping, "_LOOK_EVERY_S", 0.001)
    watch = _Watch()
    with caplog.at_level(logging.WARNING), mapping._looking(watch):
        assert watch.has_ended.wait(5)
    assert watch.looks == [True] * 3
    assert [message for message in caplog.messages if "none has come" in message] == caplog.messages


class _Broken:
    def __init__(self, error: EchotrainError) -> None:
        raise error


def test_a_worker_that_cannot_be_made_says_why_with_its_first_item():
    worker = mapping._Worker(_Broken, (StorageError("s3://lab/x", "cannot be read", "Look."),))
    worker.is_ready()
    for _ in range(2):
        assert str(restored(worker.do("{}")["error"])) == "s3://lab/x: cannot be read. Look."
