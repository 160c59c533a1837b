import time

import pytest

from echotrain.errors import ClusterUnreachableError
from echotrain.launching import jobs
from echotrain.launching.follow import Pace, follow
from echotrain.launching.jobs import Jobs
from echotrain.launching.objects import Observed

PACE = Pace(starting=1, running=1, least=0.02, patience=0.3, drain=1)
AWAY = ClusterUnreachableError("the API server", "does not answer", "Check the network.")


def seen(deployment: str, status: str) -> Observed:
    job = {"metadata": {"name": "knee"}, "spec": {}, "status": {"jobDeploymentStatus": deployment, "jobStatus": status}}
    return Observed(job=job, version="7")


class Script:
    """Jobs as a script has them: what is read, or what fails, one after the other; the last again and again."""

    def __init__(self, *steps: Observed | Exception) -> None:
        self._steps = list(steps)
        self.num_looks = 0

    def observe(self, name: str) -> Observed:
        self.num_looks += 1
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, Exception):
            raise step
        return step

    def await_change(self, name: str, version: str, seconds: float) -> bool:
        return False


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, phase) -> None:
        self.said.append(str(phase))

    def line(self, text: str) -> None:
        self.said.append(text)

    note = line


def test_a_job_is_followed_through_an_absence_of_the_server_which_is_said_once():
    notes = Notes()
    script = Script(seen("Running", "RUNNING"), AWAY, AWAY, AWAY, seen("Running", "RUNNING"), seen("Complete", "SUCCEEDED"))
    assert follow(script, "knee", notes, pace=PACE).exit_code == 0
    assert [line for line in notes.said if "answer" in line] == [
        "the API server does not answer; the job goes on, trying again for 0.005 min",
        "the API server answers again",
    ]


def test_patience_has_an_end_that_says_how_to_come_back():
    began = time.monotonic()
    with pytest.raises(ClusterUnreachableError, match=r"for \d+ s now\. The job goes on\. .*logs knee --follow"):
        follow(Script(AWAY), "knee", Notes(), pace=PACE)
    assert 0.3 <= time.monotonic() - began < 5


def test_a_watch_that_is_cut_at_once_every_time_does_not_make_the_launcher_ask_without_a_pause():
    script = Script(*[seen("Running", "RUNNING")] * 10, seen("Complete", "SUCCEEDED"))
    began = time.monotonic()
    follow(script, "knee", Notes(), pace=PACE)
    assert script.num_looks == 11
    assert time.monotonic() - began >= 10 * 2 * PACE.least


@pytest.mark.parametrize("answer", ['{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}', "half a li", AWAY])
def test_a_watch_from_a_version_that_is_gone_or_that_breaks_says_that_it_was_cut(answer):
    class Client:
        namespace, server = "team", "https://server"

        def lines(self, path, *, idle_s, **query):
            if isinstance(answer, Exception):
                raise answer
            yield answer

    assert Jobs(Client()).await_change("knee", "7", 1) is False


def test_the_events_of_a_namespace_are_asked_for_seldom_and_not_all_of_them(monkeypatch):
    asked = []

    class Client:
        namespace, server = "team", "https://server"

        def get(self, path, **query):
            if path.endswith("/events"):
                asked.append(query)
                return {"items": [{"metadata": {"name": "e"}, "involvedObject": {"name": "knee-abc"}, "reason": "FailedToCreateHeadPod"}]}
            items = [{"metadata": {"name": "knee"}, "status": {}}] if path.endswith("/rayjobs") else []
            return {"metadata": {"resourceVersion": "7"}, "items": items}

    one = Jobs(Client())
    assert [len(one.observe("knee").events) for _ in range(5)] == [1] * 5
    assert asked == [{"limit": "2000"}]
    monkeypatch.setattr(jobs, "_EVENTS_EVERY_S", 0.0)
    one.observe("knee")
    assert len(asked) == 2
