import datetime as dt
import io

import pytest
from rich.console import Console

from echotrain.launching.display import Display, job_table, progress_of
from echotrain.launching.links import dashboard_link, dashboard_of, wandb_link
from echotrain.launching.objects import Observed
from echotrain.launching.phase import Phase
from tests.k8s.rayjob_template import template

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def test_a_phase_is_said_once_and_again_when_its_words_change():
    screen = io.StringIO()
    display = Display(Console(file=screen, width=200))
    for text in ("0 of 3", "0 of 3", "1 of 3"):
        display.phase(Phase(kind="starting", text=text))
    display.close()
    assert [line[10:] for line in screen.getvalue().splitlines()] == ["starting: 0 of 3", "starting: 1 of 3"]


def test_a_terminal_has_a_line_with_the_phase_and_the_last_progress_that_leaves_no_trace(capsys):
    screen = io.StringIO()
    display = Display(Console(file=screen, force_terminal=True, width=120))
    display.phase(Phase(kind="running"))
    display.line("epoch 1/3  step 2/9  loss 0.5")
    display._live.refresh()
    display.close()
    shown = screen.getvalue()
    assert "running  0:00  epoch 1/3  step 2/9  loss 0.5" in shown
    assert shown.rstrip().endswith("\x1b[1A\x1b[2K")  # the line is taken away
    assert capsys.readouterr().out == "epoch 1/3  step 2/9  loss 0.5\n"  # and the output goes where it can be piped


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epoch 1/3  step 2/9  loss 0.5", "epoch 1/3  step 2/9  loss 0.5"),
        ("12/12 ended, finished: fraction=1  psnr 17.46", "12/12 ended, finished: fraction=1  psnr 17.46"),
        ("saving a checkpoint", ""),
        ("the epoch 1/3 ", ""),
    ],
)
def test_lines_that_say_how_far_a_command_is_are_known(line, expected):
    assert progress_of(line) == expected


@pytest.mark.parametrize(("ago", "age"), [(59, "0m"), (7140, "119m"), (7200, "2h"), (172700, "47h"), (172800, "2d")])
def test_a_job_is_one_row_however_long_its_command(ago, age):
    command = "python -m ray_jobs.train " + " ".join(f"data.anatomies=[a{number}]" for number in range(60))
    made = (NOON - dt.timedelta(seconds=ago)).isoformat().replace("+00:00", "Z")
    notes = {"echotrain.io/command": command, "echotrain.io/user": "alice"}
    metadata = {"name": "knee", "creationTimestamp": made, "annotations": notes, "labels": {"kueue.x-k8s.io/queue-name": "team-a"}}
    table = job_table([Observed(job={"metadata": metadata, "spec": {"suspend": True}})], NOON)
    header, row = table.splitlines()
    assert header.split() == ["job", "phase", "age", "queue", "user", "command"]
    assert row.split()[:5] == ["knee", "queued", age, "team-a", "alice"]
    assert row.endswith(command.removeprefix("python -m ray_jobs."))


def test_links_lead_to_the_operators_ingress_and_to_the_keys_project():
    offer = template(dashboard="https://ray.example/{namespace}/{name}/{cluster}", wandb={"enabled": True, "url": "https://wandb.example/"})
    assert dashboard_link(offer.platform, namespace="mri", name="knee") == "https://ray.example/mri/knee/{cluster}"
    assert wandb_link(offer.platform, entity="lab", project="echotrain") == "https://wandb.example/lab/echotrain"
    assert wandb_link(template().platform, entity="lab", project="echotrain") == ""
    assert dashboard_link(template().platform, namespace="mri", name="knee") == ""


def test_a_dashboard_is_that_of_the_cluster_that_a_job_has_now():
    def dashboard(notes=None, **status):
        metadata = {"name": "knee", "namespace": "mri", "annotations": notes or {}}
        return dashboard_of(Observed(job={"metadata": metadata, "spec": {}, "status": status}))

    running = {"jobDeploymentStatus": "Running", "rayClusterName": "knee-7xk2p"}
    assert "kubectl --namespace mri port-forward service/knee-7xk2p-head-svc 8265" in dashboard(**running)
    assert dashboard({"echotrain.io/dashboard": "https://ray.example/{cluster}"}, **running) == "https://ray.example/knee-7xk2p"
    assert dashboard() == ""
    assert dashboard(**{**running, "jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}) == ""
