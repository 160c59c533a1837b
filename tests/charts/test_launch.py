"""The launcher end to end: a real API server, a researcher's permissions, and an operator, a queue and nodes that the test plays."""

import contextlib
import datetime as dt
import io
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import urllib3
import yaml
from rich.console import Console

from echotrain.errors import ClusterUnreachableError
from echotrain.orchestration.launching import jobs
from echotrain.orchestration.launching.client import ApiRefusalError, KubeClient
from echotrain.orchestration.launching.follow import Pace
from echotrain.orchestration.launching.refusals import explained
from ray_jobs import launch
from tests.k8s.api_server import ApiServer
from tests.k8s.chart import CHART, SHAPES, Release, chart_for
from tests.k8s.cluster import Cluster
from tests.k8s.helm import Helm
from tests.k8s.kubelet import Kubelet
from tests.k8s.kuberay import PlayedJob, await_job
from tests.k8s.rayjob_template import config_map, rayjob
from tests.k8s.wire import Wire

pytestmark = [pytest.mark.cluster, pytest.mark.helm]

TRAIN = ["train", "varnet_mosaic_x8", "data.catalog=s3://lab/mosaic", "workers=4"]
_namespaces = itertools.count(1)


class Screen(io.StringIO):
    """What a person sees, and what a test may wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._written = threading.Condition()

    def write(self, text: str) -> int:
        with self._written:
            self._written.notify_all()
            return super().write(text)

    def await_text(self, text: str, seconds: float = 20) -> None:
        with self._written:
            assert self._written.wait_for(lambda: text in self.getvalue(), seconds), f"never said {text!r}, only:\n{self.getvalue()}"


class Desk:
    """A researcher's desk: the launcher in one hand, and the test playing the cluster behind it."""

    def __init__(self, server: ApiServer, kubelet: Kubelet, namespace: str, rights: list[dict], screen: Screen, output: Screen) -> None:
        self.server, self.kubelet, self.namespace, self.screen, self.output = server, kubelet, namespace, screen, output
        self.said: list[PlayedJob] = []
        self._rights = rights

    def permit(self) -> None:
        """Give researchers what the chart gives them."""
        for document in self._rights:
            path = f"/apis/{document['apiVersion']}/namespaces/{self.namespace}/{document['kind'].lower()}s"
            self.server.request("POST", path, {**document, "metadata": {"name": document["metadata"]["name"]}})

    def offer(self, template: dict) -> None:
        """Do what the chart does, in small: publish a template, and let researchers use it."""
        self.permit()
        template["metadata"]["namespace"] = self.namespace
        self.server.request("POST", f"/api/v1/namespaces/{self.namespace}/configmaps", template)

    def run(self, *words: str, play: Callable[[PlayedJob], None] | None = None) -> int:
        """Launch, while another thread plays the cluster; a play that goes wrong ends the job."""

        def played() -> None:
            job = await_job(self.server, self.kubelet, self.namespace)
            self.said.append(job)
            try:
                play(job)
            except BaseException:
                job.delete()
                raise

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(played) if play is not None else None
            with contextlib.redirect_stdout(self.output), contextlib.redirect_stderr(self.screen):
                code = launch.main([*words, "--namespace", self.namespace])
            if future is not None:
                future.result(timeout=30)
        return code

    def job(self, name: str) -> PlayedJob:
        """Return a job as its operator has it."""
        path = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs/{name}"
        return PlayedJob(self.server, self.kubelet, self.namespace, self.server.request("GET", path))

    def job_is_there(self, name: str) -> bool:
        """Whether there is a job of this name."""
        path = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs"
        return name in [job["metadata"]["name"] for job in self.server.request("GET", path)["items"]]

    def selected(self, service: str) -> list[str]:
        """Return the pods that a Service leads to."""
        core = f"/api/v1/namespaces/{self.namespace}"
        selector = self.server.request("GET", f"{core}/services/{service}")["spec"]["selector"]
        wanted = quote(",".join(f"{key}={value}" for key, value in selector.items()))
        return [pod["metadata"]["name"] for pod in self.server.request("GET", f"{core}/pods?labelSelector={wanted}")["items"]]

    @property
    def lines(self) -> list[str]:
        """The output of the command."""
        return self.output.getvalue().splitlines()


@pytest.fixture(scope="session")
def server(api_server: Cluster) -> ApiServer:
    """Return the cluster where it is the tests' own: on a real one, a real operator would play along."""
    if not isinstance(api_server, ApiServer):
        pytest.skip("the operator is played on the tests' own API server only")
    return api_server


@pytest.fixture(scope="module")
def kubelet(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    with Kubelet(server, tmp_path_factory.mktemp("kubelet"), "launch-node") as kubelet:
        yield kubelet


@pytest.fixture
def wire(server: ApiServer) -> Iterator[Wire]:
    """Return a wire to the API server that can be cut."""
    with Wire(int(server.url.rpartition(":")[2])) as wire:
        yield wire


@pytest.fixture(scope="module")
def rights(helm4: Helm) -> list[dict]:
    """Return the chart's Role, and its binding to the group of researchers."""
    group = ("--set", "rbac.researchers.groups={researchers}")
    return helm4.template("echotrain", CHART, "--show-only", "templates/rbac.yaml", *group)


@pytest.fixture
def desk(server: ApiServer, kubelet: Kubelet, wire: Wire, rights: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return the desk of a researcher, who has the chart's permissions in a namespace of this test's own."""
    namespace = f"launch-{next(_namespaces)}"
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    config = json.loads(server.as_user("alice", "researchers").read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{wire.port}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    screen, output = Screen(), Screen()
    monkeypatch.setattr(launch, "console", Console(file=screen, width=200, soft_wrap=True))
    monkeypatch.setattr(launch, "PACE", Pace(starting=1, running=1, least=0.05, patience=20, drain=10))
    monkeypatch.setattr(jobs, "_EVENTS_EVERY_S", 0.0)
    return Desk(server, kubelet, namespace, rights, screen, output)


def make_queue(desk: Desk, name: str) -> None:
    """Make a LocalQueue."""
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": "research"}}
    desk.server.request("POST", f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{desk.namespace}/localqueues", queue)


def begin(desk: Desk, job: PlayedJob) -> None:
    """Play until the command prints."""
    job.initialize()
    job.make_pods()
    job.make_ready()
    job.submit()
    job.say("starting: 1,000 parameters, 4 worker(s) on cuda, 3 epochs of 2 steps")
    desk.output.await_text("starting: 1,000")


def test_a_job_is_made_and_followed_through_nodes_images_and_steps_to_its_end(desk):
    desk.offer(config_map(wandb={"enabled": True, "url": ""}))

    def play(job: PlayedJob) -> None:
        desk.screen.await_text("the KubeRay operator has not taken the job up yet")
        job.initialize()
        desk.screen.await_text("the operator makes the Ray cluster")
        job.make_pods()
        desk.screen.await_text("dashboard  who may forward ports: ")
        (told,) = re.findall(r"port-forward service/(\S+) 8265", desk.screen.getvalue())
        assert desk.selected(told) == [f"{job.cluster}-head"]
        job.find_no_node("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
        desk.screen.await_text("waiting: for nodes for 2 of 2 pods: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
        job.fail_to_pull("Back-off pulling image: not found")
        desk.screen.await_text("cannot pull registry.example/echotrain:0.1.0: Back-off")
        job.pull()
        desk.screen.await_text("pulling: registry.example/echotrain:0.1.0 on 2 of 2 pods")
        job.make_ready()
        desk.screen.await_text("starting: 2 of 2 pods of the Ray cluster are ready")
        job.submit()
        desk.screen.await_text("running")
        assert desk.selected(f"{job.name}-head-svc") == []  # which is why it is not the one that is told
        job.say("epoch 1/3  step 1/2  loss 0.5000  3.0 slices/s", "epoch 1/3 done")
        desk.output.await_text("loss 0.5000")
        job.succeed()

    assert desk.run(*TRAIN, play=play) == 0
    assert desk.lines == ["epoch 1/3  step 1/2  loss 0.5000  3.0 slices/s", "epoch 1/3 done"]
    said = desk.screen.getvalue()
    assert "no storage= was given: added storage=s3://lab/runs" in said
    assert "https://wandb.ai (project echotrain of the key's own account)" in said
    assert re.search(r"succeeded: after \d+ s", said)
    made = desk.said[0].manifest
    assert made["spec"]["entrypoint"] == (
        "python -m ray_jobs.train varnet_mosaic_x8 data.catalog=s3://lab/mosaic workers=4 storage=s3://lab/runs"
    )
    assert [group["replicas"] for group in made["spec"]["rayClusterSpec"]["workerGroupSpecs"]] == [0, 1]
    assert made["metadata"]["annotations"]["echotrain.io/user"] == "user-alice"


@pytest.mark.parametrize(("exit_code", "expected", "text"), [(1, 1, "exit code 1"), (2, 2, "refused its arguments"), (3, 3, "goes on")])
def test_the_launcher_exits_as_the_command_did(desk, exit_code, expected, text):
    desk.offer(config_map())

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        assert not job.fail(exit_code)

    assert desk.run(*TRAIN, "--retries", "0", play=play) == expected
    assert text in desk.screen.getvalue()


def test_an_error_of_the_users_that_is_tried_again_says_so_and_how_to_end_it(desk):
    desk.offer(config_map())

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        assert job.fail(2)
        desk.screen.await_text("retrying: attempt 1 of 2 failed: the command refused its arguments or its data")
        job.clear()
        begin_quietly(job)
        assert not job.fail(2)

    assert desk.run(*TRAIN, "--retries", "1", play=play) == 2
    cancel = f"KubeRay tries again all the same: cancel it with python -m ray_jobs.launch cancel {desk.said[0].name} "
    assert desk.screen.getvalue().count(f"{cancel}--namespace {desk.namespace}") == 1


def test_the_log_of_a_job_that_is_over_outlives_its_cluster(desk):
    desk.offer(config_map())

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        job.say("epoch 3/3 done")
        job.succeed()

    assert desk.run(*TRAIN, "--job-name", "knee-x8", play=play) == 0
    left = desk.server.request("GET", f"/api/v1/namespaces/{desk.namespace}/pods")["items"]
    assert [pod["metadata"]["labels"].get("job-name") for pod in left] == ["knee-x8"]
    before = len(desk.lines)
    assert desk.run("logs", "knee-x8") == 0
    assert desk.lines[before:] == desk.lines[:before]
    assert desk.lines[-1] == "epoch 3/3 done"
    assert desk.run("status", "knee-x8") == 0
    assert "succeeded" in desk.output.getvalue()
    assert "port-forward" not in desk.output.getvalue()


def test_a_job_that_waits_in_a_queue_says_for_what_and_goes_on_when_it_is_suspended_and_admitted_again(desk):
    desk.offer(config_map(queue="team-a", queues=["team-a", "night"]))
    make_queue(desk, "team-a")
    pending = "couldn't assign flavors to pod set h100: insufficient unused quota for nvidia.com/gpu in flavor h100, 8 more needed"

    def play(job: PlayedJob) -> None:
        job.suspend()
        desk.screen.await_text("queued: in team-a; Kueue has not seen the job yet")
        job.queue("Pending", pending)
        desk.screen.await_text(f"queued: in team-a, Pending: {pending}")
        job.admit()
        begin(desk, job)
        job.evict("Preempted", "Preempted to accommodate a workload of higher priority")
        desk.screen.await_text("suspended: by Kueue, Preempted: Preempted to accommodate")
        job.clear()
        job.suspend()
        job.admit()
        job.initialize()
        job.make_pods()
        job.make_ready()
        job.submit()
        job.say("resuming at step 2")
        job.succeed()

    assert desk.run(*TRAIN, "--queue", "team-a", "--priority", "echotrain-high", play=play) == 0
    assert desk.lines == ["starting: 1,000 parameters, 4 worker(s) on cuda, 3 epochs of 2 steps", "resuming at step 2"]
    labels = desk.said[0].manifest["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "team-a"
    assert labels["kueue.x-k8s.io/priority-class"] == "echotrain-high"


def test_a_queue_that_is_offered_but_missing_is_refused_before_anything_is_made(desk):
    desk.offer(config_map(queues=["night"]))
    assert desk.run(*TRAIN, "--queue", "night") == 2
    assert "queue night: is offered, but is not in namespace" in desk.screen.getvalue()
    assert desk.run("list") == 0
    assert desk.lines == [f"no jobs in namespace {desk.namespace}"]


def test_another_attempt_prints_its_own_lines_and_says_so(desk):
    desk.offer(config_map())

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        assert job.fail(1)
        desk.screen.await_text("retrying: attempt 1 of 3 failed: the command ended with exit code 1")
        job.clear()
        job.initialize()
        desk.screen.await_text("attempt 2 of 3")
        job.make_pods()
        job.make_ready()
        job.submit()
        job.say("starting: 1,000 parameters, 4 worker(s) on cuda, 3 epochs of 2 steps", "epoch 3/3 done")
        desk.output.await_text("epoch 3/3 done")
        desk.screen.await_text(f"port-forward service/{job.cluster}-head-svc 8265")
        job.succeed()

    assert desk.run(*TRAIN, play=play) == 0
    assert [line.partition(":")[0] for line in desk.lines] == ["starting", "starting", "epoch 3/3 done"]


def test_a_second_submitter_of_the_same_attempt_repeats_nothing(desk):
    desk.offer(config_map())
    told = [f"epoch 1/1  step {step}/9  loss 0.1" for step in range(1, 6)]

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        job.say(*told)
        desk.output.await_text(told[-1])
        job.end_submitter(1)
        job.make_submitter()
        job.say(
            "Job submission server address: http://head:8265", "starting: 1,000 parameters, 4 worker(s) on cuda, 3 epochs of 2 steps", *told
        )
        job.say("epoch 1/1  step 6/9  loss 0.1")
        desk.output.await_text("step 6/9")
        job.succeed()

    assert desk.run(*TRAIN, play=play) == 0
    assert [line for line in desk.lines if line.startswith("epoch")] == [*told, "epoch 1/1  step 6/9  loss 0.1"]
    assert sum(line.startswith("starting") for line in desk.lines) == 1


@pytest.mark.parametrize("broken", ["kubelet", "connection", "server"])
def test_a_cut_in_the_middle_neither_loses_nor_repeats_a_line_and_the_job_goes_on(desk, wire, broken):
    desk.offer(config_map())
    lines = [f"line {number}" for number in range(60)]
    before = desk.kubelet.num_asked

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        for number, line in enumerate(lines):
            job.say(line)
            if number % 20 == 10:
                desk.output.await_text(f"{line}\n")
                if broken == "kubelet":
                    desk.kubelet.cut()
                elif broken == "connection":
                    wire.drop()
                else:
                    wire.cut()
                    desk.screen.await_text("the job goes on, trying again")
                    job.say("said while nobody could hear")
                    wire.mend()
            time.sleep(0.01)
        desk.output.await_text(lines[-1])
        if broken == "server":
            desk.screen.await_text("answers again")
        job.succeed()

    assert desk.run(*TRAIN, play=play) == 0
    heard = [line for line in desk.lines if line.startswith("line")]
    assert heard == lines
    assert desk.lines.count("said while nobody could hear") == (3 if broken == "server" else 0)
    assert not any("half a li" in line for line in desk.lines)
    assert desk.kubelet.num_asked - before >= 4  # the first time, after each cut, and once more at the end


def test_a_server_that_stays_away_ends_the_following_with_how_to_come_back_and_not_the_job(desk, wire, monkeypatch):
    desk.offer(config_map())
    monkeypatch.setattr(launch, "PACE", Pace(starting=1, running=1, least=0.05, patience=1.0))

    def play(job: PlayedJob) -> None:
        begin(desk, job)
        wire.cut()

    assert desk.run(*TRAIN, play=play) == 2
    said = desk.screen.getvalue()
    assert "does not answer" in said
    assert f"The job goes on. Follow it again with python -m ray_jobs.launch logs {desk.said[0].name} --follow." in said
    assert desk.said[0].is_there()


def test_an_interrupted_launcher_leaves_the_job_and_logs_follow_takes_it_up_again(desk, monkeypatch):
    desk.offer(config_map())

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch.Jobs, "await_change", interrupted)
    assert desk.run(*TRAIN, play=lambda job: None) == 130
    name = desk.said[0].name
    assert f"cancel it: python -m ray_jobs.launch cancel {name} --namespace {desk.namespace}" in desk.screen.getvalue()
    monkeypatch.undo()


def test_logs_status_and_list_tell_of_a_job_that_was_left(desk):
    desk.offer(config_map(dashboard="https://ray.example/{namespace}/{cluster}"))
    assert desk.run(*TRAIN, "--job-name", "knee-x8", "--detach") == 0
    assert "follow it: python -m ray_jobs.launch logs knee-x8 --follow" in desk.screen.getvalue()
    assert desk.run("logs", "knee-x8") == 2
    assert "output of job knee-x8: is not there" in desk.screen.getvalue()
    job = await_job(desk.server, desk.kubelet, desk.namespace)
    begin_quietly(job)
    job.say("epoch 1/3  step 1/2  loss 0.5000  3.0 slices/s")
    assert desk.run("status", "knee-x8") == 0
    told = desk.output.getvalue()
    assert "knee-x8  running" in told
    assert "progress   epoch 1/3  step 1/2  loss 0.5000" in told
    assert f"https://ray.example/{desk.namespace}/{job.cluster}" in told
    assert desk.run("list") == 0
    assert re.search(r"knee-x8 +running +0m +user-alice +train varnet_mosaic_x8", desk.output.getvalue())
    assert desk.run("logs", "knee-x8") == 0
    assert desk.lines[-1] == "epoch 1/3  step 1/2  loss 0.5000  3.0 slices/s"
    assert desk.run("logs", "knee-x8", "--follow", play=lambda _: cancel(desk, job)) == 3
    assert "deleted: the job was cancelled" in desk.screen.getvalue()
    assert desk.run("status", "knee-x8") == 2


def begin_quietly(job: PlayedJob) -> None:
    job.initialize()
    job.make_pods()
    job.make_ready()
    job.submit()


def cancel(desk: Desk, job: PlayedJob) -> None:
    """Cancel a job while another launcher follows it."""
    desk.screen.await_text("running")
    job.end_submitter()
    assert launch.main(["cancel", job.name, "--namespace", desk.namespace]) == 0


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


@pytest.fixture
def release(desk: Desk, helm4: Helm, kubectl: Path, tmp_path: Path) -> Release:
    """Return a release that is not installed yet, of the chart itself, in the desk's namespace."""
    chart = chart_for(desk.server, tmp_path)
    return Release(helm=helm4, cluster=desk.server, kubectl=kubectl, namespace=desk.namespace, chart=chart)


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
