"""The launcher end to end: a real API server, a researcher's permissions, and an operator, a queue and nodes that the test plays."""

import re
import time

import pytest

from echotrain.launching.follow import Pace
from ray_jobs import launch
from tests.k8s.desk import TRAIN, begin, begin_quietly, cancel, make_queue
from tests.k8s.kuberay import PlayedJob, await_job
from tests.k8s.rayjob_template import config_map

pytestmark = [pytest.mark.cluster, pytest.mark.helm]


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
