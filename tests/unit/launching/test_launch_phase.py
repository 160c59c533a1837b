import pytest

from echotrain.launching.objects import Observed
from echotrain.launching.phase import phase_of

QUEUED = {"kueue.x-k8s.io/queue-name": "team-a"}
APP = "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\nTraceback"


def job(deployment="", status="", *, labels=None, spec=None, deleted=False, **more):
    metadata = {"name": "knee", "labels": labels or {}, **({"deletionTimestamp": "2026-03-01T12:00:00Z"} if deleted else {})}
    groups = [{"groupName": "h100", "replicas": 2}, {"groupName": "data", "replicas": 0}]
    spec = {"backoffLimit": 2, "rayClusterSpec": {"workerGroupSpecs": groups}, **(spec or {})}
    told = {"jobDeploymentStatus": deployment, "jobStatus": status, **more} if deployment or more else {}
    return {"metadata": metadata, "spec": spec, "status": told}


def pod(name, *, ready=False, waiting=None, unschedulable=None, labels=None):
    conditions = [{"type": "Ready", "status": str(ready)}]
    if unschedulable:
        conditions.append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable})
    state = {"waiting": waiting} if waiting else {"running": {}}
    statuses = [] if unschedulable else [{"name": "ray", "image": "image:1", "state": state}]
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {},
        "status": {"conditions": conditions, "containerStatuses": statuses},
    }


def workload(*conditions, active=True):
    listed = [{"type": kind, "status": status, "reason": reason, "message": message} for kind, status, reason, message in conditions]
    return {"metadata": {"name": "w"}, "spec": {"active": active}, "status": {"conditions": listed}}


def event(name, reason, message="", category="Normal"):
    return {"involvedObject": {"name": name}, "reason": reason, "message": message, "type": category}


CREATING = {"reason": "ContainerCreating"}


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (Observed(job=job()), "starting: the KubeRay operator has not taken the job up yet"),
        (Observed(job=job("Initializing")), "starting: the operator makes the Ray cluster"),
        (
            Observed(job=job("Initializing"), events=[event("knee-x", "FailedToCreateHeadPod", "exceeded quota", "Warning")]),
            "waiting: FailedToCreateHeadPod: exceeded quota",
        ),
        (
            Observed(job=job("Initializing"), pods=[pod("a", ready=True), pod("b", unschedulable="0/3 nodes")]),
            "waiting: for nodes for 1 of 2 pods: 0/3 nodes",
        ),
        (
            Observed(
                job=job("Initializing"), pods=[pod("b", unschedulable="0/3")], events=[event("b", "TriggeredScaleUp", "pod triggered")]
            ),
            "waiting: for nodes for 1 of 1 pods: 0/3; pod triggered",
        ),
        (
            Observed(job=job("Initializing"), pods=[pod("a", waiting=CREATING)], events=[event("a", "Pulling")]),
            "pulling: image:1 on 1 of 1 pods",
        ),
        (
            Observed(job=job("Initializing"), pods=[pod("a", waiting=CREATING)], events=[event("a", "Pulling"), event("a", "Pulled")]),
            "starting: 0 of 3 pods of the Ray cluster are ready",
        ),
        (
            Observed(job=job("Initializing"), pods=[pod("a", waiting={"reason": "ErrImagePull", "message": "denied"})]),
            "pulling: cannot pull image:1: denied",
        ),
        (
            Observed(job=job("Initializing"), pods=[pod("a", waiting={"reason": "CreateContainerConfigError", "message": "no secret"})]),
            "waiting: cannot start a: no secret",
        ),
        (Observed(job=job("Initializing", failed=1)), "starting: the operator makes the Ray cluster; attempt 2 of 3"),
        (Observed(job=job("Running", "PENDING")), "starting: the command is being submitted"),
        (Observed(job=job("Running", "RUNNING")), "running"),
        (Observed(job=job("Running", "RUNNING", failed=2)), "running: attempt 3 of 3"),
        (Observed(job=job("Running", "RUNNING"), pods=[pod(name, ready=True) for name in "abc"]), "running"),
        (
            Observed(job=job("Running", "RUNNING"), pods=[pod("a", ready=True), pod("b", ready=True), pod("c", unschedulable="0/3")]),
            "running: 1 of its pods is missing (waiting: for nodes for 1 of 3 pods: 0/3)",
        ),
        (Observed(job=job("Retrying", "FAILED", message=APP.format(137), failed=1)), "exit code 137 (killed, perhaps out of memory)"),
        (
            Observed(job=job("Retrying", "FAILED", message=APP.format(2), failed=1)),
            "data; its last lines say why; KubeRay tries again all the same: cancel it with python -m ray_jobs.launch cancel knee",
        ),
        (Observed(job=job("Retrying", "FAILED", message=APP.format(3), failed=1)), "asked to end and saved its state"),
        (Observed(job=job("Suspended", spec={"suspend": True})), "suspended: somebody has set spec.suspend"),
        (Observed(job=job(spec={"suspend": True}, labels=QUEUED)), "queued: in team-a; Kueue has not seen the job yet"),
        (
            Observed(job=job("Suspended", labels=QUEUED), workloads=[workload(("QuotaReserved", "False", "Pending", "no quota"))]),
            "queued: in team-a, Pending: no quota",
        ),
        (
            Observed(
                job=job("Suspended", labels=QUEUED),
                workloads=[workload(("QuotaReserved", "True", "", ""), ("Admitted", "False", "", "checks"))],
            ),
            "queued: in team-a, with a quota, waiting for its admission checks: checks",
        ),
        (
            Observed(job=job("Suspending", labels=QUEUED), workloads=[workload(("Evicted", "True", "Preempted", "by another"))]),
            "suspended: by Kueue, Preempted: by another",
        ),
        (
            Observed(job=job("Suspended", labels=QUEUED), workloads=[workload(active=False)]),
            "suspended: Kueue has put the job aside",
        ),
        (Observed(job=job("Running", "RUNNING", deleted=True)), "stopping: the operator is taking the Ray cluster down"),
    ],
)
def test_a_job_that_is_not_over_is_described(seen, text):
    phase = phase_of(seen)
    assert text in str(phase)
    assert not phase.is_final


@pytest.mark.parametrize(
    ("seen", "kind", "code", "text"),
    [
        (None, "deleted", 3, "cancelled"),
        (
            job("Complete", "SUCCEEDED", startTime="2026-03-01T12:00:00Z", endTime="2026-03-01T13:01:05Z"),
            "succeeded",
            0,
            "after 61 min 5 s",
        ),
        (job("Complete", "STOPPED"), "stopped", 3, "stopped the job in Ray"),
        (job("Failed", "FAILED", reason="AppFailed", message=APP.format(1), failed=3), "failed", 1, "exit code 1"),
        (job("Failed", "FAILED", reason="AppFailed", message=APP.format(2), failed=3), "failed", 2, "refused its arguments"),
        (job("Failed", "FAILED", reason="AppFailed", message=APP.format(3), failed=3), "stopped", 3, "the same command goes on"),
        (job("Failed", "FAILED", reason="AppFailed", message="head died\nmore", failed=3), "failed", 1, "AppFailed: head died"),
        (job("Failed", "RUNNING", reason="DeadlineExceeded", spec={"activeDeadlineSeconds": 5400}), "failed", 1, "time limit of 1.5 h"),
        (job("ValidationFailed", reason="ValidationFailed", message="bad"), "failed", 1, "refuses the job: bad"),
        (job("Failed"), "failed", 1, "no reason is given"),
    ],
)
def test_a_job_that_is_over_has_the_exit_code_of_its_end(seen, kind, code, text):
    phase = phase_of(Observed(job=seen))
    assert (phase.kind, phase.exit_code) == (kind, code)
    assert text in phase.text
