"""What a launched job is refused for, ended for or taken for, on a real API server with a researcher's permissions."""

import datetime as dt
import json
import os
import re
import time

import pytest
import urllib3
import yaml

from echotrain.errors import ClusterUnreachableError
from echotrain.launching.client import ApiRefusalError, KubeClient
from echotrain.launching.refusals import explained
from ray_jobs import launch
from tests.k8s.chart import SHAPES
from tests.k8s.desk import TRAIN, begin
from tests.k8s.kuberay import PlayedJob, await_job
from tests.k8s.rayjob_template import config_map, rayjob

pytestmark = [pytest.mark.cluster, pytest.mark.helm]


def test_a_queue_that_is_offered_but_missing_is_refused_before_anything_is_made(desk):
    desk.offer(config_map(queues=["night"]))
    assert desk.run(*TRAIN, "--queue", "night") == 2
    assert "queue night: is offered, but is not in namespace" in desk.screen.getvalue()
    assert desk.run("list") == 0
    assert desk.lines == [f"no jobs in namespace {desk.namespace}"]


def test_a_name_that_is_taken_is_refused_and_the_other_job_stays(desk):
    desk.offer(config_map())
    assert desk.run(*TRAIN, "--job-name", "knee-x8", "--detach") == 0
    assert desk.run(*TRAIN, "--job-name", "knee-x8", "--detach") == 2
    assert "job knee-x8: is in namespace" in desk.screen.getvalue()


def test_a_job_whose_creation_was_not_answered_is_made_once(desk, monkeypatch):
    desk.offer(config_map())
    post, calls = launch.KubeClient.post, []

    def lost(client, path, body, **query):
        made = post(client, path, body, **query)
        calls.append(path)
        if len(calls) == 1:
            raise ClusterUnreachableError(client.server, "does not answer", "Try again.")
        return made

    monkeypatch.setattr(launch.KubeClient, "post", lost)
    assert desk.run(*TRAIN, "--job-name", "knee-x8", "--detach") == 0
    assert len(calls) == 1  # the second was refused, since the first had come through
    assert await_job(desk.server, desk.kubelet, desk.namespace).name == "knee-x8"


def test_a_field_that_the_clusters_crds_do_not_know_is_refused_with_who_can_help(desk):
    manifest = rayjob()
    manifest["spec"]["rayClusterSpec"]["authOption"] = {"mode": "token"}
    desk.offer(config_map(manifest=manifest))
    assert desk.run(*TRAIN, "--detach") == 2
    said = desk.screen.getvalue()
    assert 'do not know: unknown field "spec.rayClusterSpec.authOption"' in said
    assert "Ask the operator" in said


def test_a_dry_run_prints_what_would_be_made_and_makes_nothing(desk):
    desk.offer(config_map())
    assert desk.run(*TRAIN, "--dry-run", "--job-name", "knee-x8", "--time-limit", "12h", "--retries", "0") == 0
    printed = yaml.safe_load(desk.output.getvalue())
    assert printed["metadata"]["name"] == "knee-x8"
    assert (printed["spec"]["activeDeadlineSeconds"], printed["spec"]["backoffLimit"]) == (43200, 0)
    assert "nothing was made" in desk.screen.getvalue()
    assert desk.run("status", "knee-x8") == 2


@pytest.mark.parametrize(
    ("end", "code", "text"),
    [
        (PlayedJob.expire, 1, "its time limit of 24 h is over"),
        (PlayedJob.stop, 3, "somebody stopped the job in Ray"),
    ],
)
def test_a_job_that_is_ended_from_without_says_why(desk, end, code, text):
    desk.offer(config_map())

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        assert not end(job)

    assert desk.run(*TRAIN, play=play) == code
    assert text in desk.screen.getvalue()


def test_a_job_that_the_operator_refuses_says_why(desk):
    desk.offer(config_map())
    assert desk.run(*TRAIN, play=lambda job: job.refuse("no")) == 1
    assert "the KubeRay operator refuses the job: no" in desk.screen.getvalue()


def test_a_cancelled_job_that_stays_is_told_with_what_may_hold_it(desk, monkeypatch):
    desk.offer(config_map())
    monkeypatch.setattr(launch, "_CANCEL_TIMEOUT_S", 1.0)
    assert desk.run(*TRAIN, "--job-name", "knee-x8", "--detach") == 0
    desk.job("knee-x8").hold()
    assert desk.run("cancel", "knee-x8") == 2
    said = desk.screen.getvalue()
    assert "is not gone after 1 s" in said
    assert "KubeRay does not run" in said
    assert "the Secret with Ray's token" in said
    desk.job("knee-x8").let_go()
    assert not desk.job_is_there("knee-x8")


def test_pruning_deletes_what_ended_long_ago_of_ones_own_and_of_everybody_where_asked(desk, monkeypatch):
    desk.offer(config_map())
    mine = os.environ["KUBECONFIG"]
    for name in ("old", "recent", "refused", "going"):
        assert desk.run(*TRAIN, "--job-name", name, "--detach") == 0
    monkeypatch.setenv("KUBECONFIG", str(desk.server.as_user("bert", "researchers")))
    assert desk.run(*TRAIN, "--job-name", "theirs", "--detach") == 0
    monkeypatch.setenv("KUBECONFIG", mine)
    for name, days in (("old", 15), ("theirs", 15), ("recent", 13)):
        end = f"{dt.datetime.now(dt.UTC) - dt.timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
        desk.job(name).status(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", endTime=end)
    desk.job("refused").refuse("no")

    def left(*words: str) -> list[str]:
        assert desk.run("prune", *words) == 0
        return [name for name in ("old", "recent", "refused", "going", "theirs") if desk.job_is_there(name)]

    assert left("--dry-run", "--all") == ["old", "recent", "refused", "going", "theirs"]
    assert [line.split()[0] for line in desk.lines] == ["job", "old", "theirs"]
    assert "nothing was deleted" in desk.screen.getvalue()
    assert left() == ["recent", "refused", "going", "theirs"]
    assert "deleted 1 job\n" in desk.screen.getvalue()
    assert left("--all") == ["recent", "refused", "going"]
    assert left() == ["recent", "refused", "going"]
    assert f"no such jobs in namespace {desk.namespace}" in desk.screen.getvalue()
    assert left("--older-than", "0s") == ["going"]


def test_a_quota_on_jobs_that_is_used_up_is_named_with_how_to_make_room(desk, monkeypatch):
    desk.offer(config_map())
    send = launch.KubeClient._send
    refusal = (
        'rayjobs.ray.io "knee-x8" is forbidden: exceeded quota: echotrain, requested: count/rayjobs.ray.io=1, '
        "used: count/rayjobs.ray.io=500, limited: count/rayjobs.ray.io=500"
    )

    def over(client: KubeClient, method: str, *rest: object) -> urllib3.BaseHTTPResponse:
        if method != "POST":
            return send(client, method, *rest)
        return urllib3.HTTPResponse(json.dumps({"message": refusal}).encode(), status=403)

    monkeypatch.setattr(launch.KubeClient, "_send", over)
    assert desk.run(*TRAIN) == 2
    said = desk.screen.getvalue()
    assert f"quota echotrain of namespace {desk.namespace}: is used up: 500 of 500 count/rayjobs.ray.io are used" in said
    assert "python -m ray_jobs.launch prune" in said
    assert "rbac" not in said


def test_what_an_api_server_says_of_a_quota_is_understood(desk, monkeypatch):
    # Jobs are counted by servers of today alone: this one counts what it serves itself.
    core = f"/api/v1/namespaces/{desk.namespace}"
    hard = {"count/configmaps": "1", "count/secrets": "5"}
    desk.server.request("POST", f"{core}/configmaps", {"metadata": {"name": "first"}})
    quota = desk.server.request("POST", f"{core}/resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": hard}})
    used = {"count/configmaps": "1", "count/secrets": "0"}
    desk.server.request("PUT", f"{core}/resourcequotas/small/status", {**quota, "status": {"hard": hard, "used": used}})
    monkeypatch.setenv("KUBECONFIG", str(desk.server.kubeconfig))
    client = KubeClient(namespace=desk.namespace)

    def fill_up() -> None:
        for number in range(100):
            # The server hears of a new quota after a moment.
            client.post(f"{core}/configmaps", {"metadata": {"name": f"more-{number}"}})
            time.sleep(0.1)

    with pytest.raises(ApiRefusalError, match="refuses this") as refused:
        fill_up()
    told = str(explained(refused.value, namespace=desk.namespace))
    assert f"quota small of namespace {desk.namespace}: is used up: 1 of 1 count/configmaps are used, and 1 more asked for" in told
    assert "Wait until other jobs end" in told


def test_what_is_missing_is_named_with_who_can_help(desk):
    desk.permit()
    assert desk.run(*TRAIN) == 2
    assert f"ConfigMap echotrain-rayjob: is not in namespace {desk.namespace}" in desk.screen.getvalue()
    assert desk.run(*TRAIN, "--template", "other-rayjob") == 2
    assert 'cannot get resource "configmaps"' in desk.screen.getvalue()
    assert "rbac.researchers.groups" in desk.screen.getvalue()
    assert desk.run("list", "--context", "elsewhere") == 2
    assert "context elsewhere: cannot be used" in desk.screen.getvalue()
    assert "there are user-alice" in desk.screen.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_charts_own_template_takes_jobs_of_every_shape_from_its_own_researchers(desk, release, shape):
    release.install("-f", SHAPES[shape], "--set", "rbac.researchers.groups={researchers}")
    words = ["train", "varnet_mosaic_x8", "data.catalog=s3://lab/mosaic", "workers=1", "--dry-run"]
    if shape == "spot":
        assert desk.run(*words) == 2
        assert "several that fit: a10g (15 CPUs and 1 GPU a pod, at most 16); l40s" in desk.screen.getvalue()
        words += ["--group", "l40s"]
    assert desk.run(*words) == 0, desk.screen.getvalue()
    printed = yaml.safe_load(desk.output.getvalue())
    assert printed["metadata"]["namespace"] == desk.namespace
    assert sum(group["replicas"] for group in printed["spec"]["rayClusterSpec"]["workerGroupSpecs"]) >= 1


def test_a_job_of_the_charts_template_is_followed_to_its_end(desk, release):
    release.install("-f", SHAPES["one-gpu-node"], "--set", "rbac.researchers.groups={researchers}")

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        assert desk.selected(f"{job.cluster}-head-svc") == [f"{job.cluster}-head"]
        job.say("epoch 3/3 done")
        job.succeed()

    assert desk.run("train", "varnet_mosaic_x8", "data.catalog=s3://mri/mosaic", "workers=1", play=play) == 0
    assert desk.lines[-1] == "epoch 3/3 done"
    assert desk.said[0].manifest["spec"]["entrypoint"].endswith("storage=s3://mri/runs")


def test_credentials_that_are_not_let_in_are_said_to_be_and_not_shown(desk, tmp_path):
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["users"][0]["user"] = {"token": "abcdefgh-secret"}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    assert desk.run("list") == 2
    assert "user user-alice: is not let in by https://127.0.0.1" in desk.screen.getvalue()
    assert "secret" not in desk.screen.getvalue() + desk.output.getvalue()


def test_a_server_that_nobody_listens_at_is_named_with_its_context(desk, wire):
    wire.cut()
    assert desk.run("list") == 2
    assert re.search(r"the API server https://127\.0\.0\.1:\d+ of context user-alice: does not answer", desk.screen.getvalue())
