"""What a job is doing, in words: a pure function of what the API server says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from echotrain.launching.objects import (
    QUEUE_LABEL,
    Object,
    Observed,
    condition,
    expected_pods,
    instant,
    is_submitter,
    name_of,
)

__all__ = ["DELETED", "FAILED", "STOPPED", "SUCCEEDED", "USER_ERROR", "Phase", "phase_of"]

Kind = Literal[
    "queued", "suspended", "waiting", "pulling", "starting", "running", "retrying", "stopping", "succeeded", "failed", "stopped", "deleted"
]
SUCCEEDED, FAILED, USER_ERROR, STOPPED = 0, 1, 2, 3
# What Ray says of a driver that ended with an exit code other than 0.
_EXIT_CODE = re.compile(r"failed with exit code (\d+)")
_PULL_FAILURES = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_START_FAILURES = {"CreateContainerConfigError", "CreateContainerError", "CrashLoopBackOff", "RunContainerError"}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What a job is doing.

    Attributes:
        kind: One word.
        text: More of them; "" where the word says all.
        exit_code: Of a job that is over: 0 succeeded, 1 failed, 2 failed by an error of the command, 3 stopped or deleted.
    """

    kind: Kind
    text: str = ""
    exit_code: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self.exit_code is not None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


DELETED = Phase(kind="deleted", text="the job was cancelled", exit_code=STOPPED)


def phase_of(seen: Observed) -> Phase:
    """Return what a job is doing."""
    if seen.job is None:
        return DELETED
    if seen.job["metadata"].get("deletionTimestamp"):
        return Phase(kind="stopping", text="the operator is taking the Ray cluster down")
    deployment = seen.status.get("jobDeploymentStatus") or ""
    if deployment in ("Complete", "Failed", "ValidationFailed"):
        return _ended(seen, deployment)
    if deployment == "Retrying":
        text = f"attempt {_attempt(seen) - 1} of {_attempts(seen)} failed: {_why(seen)}"
        return Phase(kind="retrying", text=text + (_in_vain(seen) if _exit_code(seen) == USER_ERROR else ""))
    if deployment in ("Suspending", "Suspended") or seen.spec.get("suspend"):
        return _suspended(seen)
    again = f"attempt {_attempt(seen)} of {_attempts(seen)}" if _attempt(seen) > 1 else ""
    phase = _running(seen) if deployment == "Running" else _starting(seen)
    return Phase(kind=phase.kind, text="; ".join(part for part in (phase.text, again) if part))


def _ended(seen: Observed, deployment: str) -> Phase:
    status = seen.status.get("jobStatus") or ""
    if deployment == "ValidationFailed":
        return Phase(kind="failed", text=f"the KubeRay operator refuses the job: {_first_line(seen)}", exit_code=FAILED)
    if deployment == "Complete" and status == "SUCCEEDED":
        return Phase(kind="succeeded", text=_took(seen), exit_code=SUCCEEDED)
    if deployment == "Complete" and status == "STOPPED":
        return Phase(kind="stopped", text="somebody stopped the job in Ray", exit_code=STOPPED)
    code = _exit_code(seen)
    if code == STOPPED:
        return Phase(kind="stopped", text=_why(seen), exit_code=STOPPED)
    return Phase(kind="failed", text=_why(seen), exit_code=USER_ERROR if code == USER_ERROR else FAILED)


def _took(seen: Observed) -> str:
    start, end = instant(seen.status.get("startTime")), instant(seen.status.get("endTime"))
    if start is None or end is None:
        return ""
    minutes, seconds = divmod(int((end - start).total_seconds()), 60)
    return f"after {minutes} min {seconds} s" if minutes else f"after {seconds} s"


def _why(seen: Observed) -> str:
    reason = seen.status.get("reason") or ""
    if reason in ("DeadlineExceeded", "PreRunningDeadlineExceeded"):
        limit = seen.spec.get("activeDeadlineSeconds" if reason == "DeadlineExceeded" else "preRunningDeadlineSeconds") or 0
        return f"its time limit of {limit / 3600:.3g} h is over; the same command goes on, --time-limit is how long it may take"
    code = _exit_code(seen)
    if code == STOPPED:
        return "it was asked to end and saved its state; the same command goes on"
    if code == USER_ERROR:
        return "the command refused its arguments or its data; its last lines say why"
    if code is not None:
        return f"the command ended with exit code {code}{' (killed, perhaps out of memory)' * (code == 137)}"
    return ": ".join(part for part in (reason, _first_line(seen)) if part) or "no reason is given"


def _in_vain(seen: Observed) -> str:
    """Return what to do about a retry that can only fail again."""
    assert seen.job is not None
    namespace = seen.job["metadata"].get("namespace")
    command = f"python -m ray_jobs.launch cancel {name_of(seen.job)}" + (f" --namespace {namespace}" if namespace else "")
    return f"; KubeRay tries again all the same: cancel it with {command}"


def _exit_code(seen: Observed) -> int | None:
    """Return what the command ended with; None where it is not known, or was 0."""
    found = _EXIT_CODE.search(seen.status.get("message") or "")
    return int(found[1]) if found is not None else None


def _first_line(seen: Observed) -> str:
    return ((seen.status.get("message") or "").strip().splitlines() or [""])[0]


def _attempt(seen: Observed) -> int:
    return int(seen.status.get("failed") or 0) + 1


def _attempts(seen: Observed) -> int:
    return int(seen.spec.get("backoffLimit") or 0) + 1


def _suspended(seen: Observed) -> Phase:
    queue = seen.labels.get(QUEUE_LABEL)
    if queue is None:
        return Phase(kind="suspended", text="somebody has set spec.suspend")
    if not seen.workloads:
        return Phase(kind="queued", text=f"in {queue}; Kueue has not seen the job yet")
    workload = seen.workloads[-1]
    evicted, reserved, admitted = (condition(workload, kind) for kind in ("Evicted", "QuotaReserved", "Admitted"))
    if (workload.get("spec") or {}).get("active") is False:
        return Phase(kind="suspended", text="Kueue has put the job aside" + (f": {evicted.message}" if evicted else ""))
    if evicted is not None and evicted.is_true:
        return Phase(kind="suspended", text=f"by Kueue, {evicted.reason}: {evicted.message}")
    if reserved is not None and reserved.is_true and not (admitted is not None and admitted.is_true):
        waiting = f": {admitted.message}" if admitted is not None and admitted.message else ""
        return Phase(kind="queued", text=f"in {queue}, with a quota, waiting for its admission checks{waiting}")
    if reserved is not None and not reserved.is_true:
        return Phase(kind="queued", text=f"in {queue}, {reserved.reason}: {reserved.message}")
    return Phase(kind="queued", text=f"in {queue}" + (", admitted" if admitted is not None and admitted.is_true else ""))


def _starting(seen: Observed) -> Phase:
    trouble = _trouble(seen, [pod for pod in seen.pods if not is_submitter(pod)])
    if trouble is not None:
        return trouble
    if not seen.status:
        return Phase(kind="starting", text="the KubeRay operator has not taken the job up yet")
    if not seen.pods:
        warnings = [event for event in seen.events if event.get("type") == "Warning"]
        if warnings:
            return Phase(kind="waiting", text=f"{warnings[-1].get('reason')}: {warnings[-1].get('message')}")
        return Phase(kind="starting", text="the operator makes the Ray cluster")
    ready = sum(_is_ready(pod) for pod in seen.pods)
    return Phase(kind="starting", text=f"{ready} of {expected_pods(seen.spec)} pods of the Ray cluster are ready")


def _running(seen: Observed) -> Phase:
    pods = [pod for pod in seen.pods if not is_submitter(pod)]
    if seen.status.get("jobStatus") not in ("RUNNING", "SUCCEEDED", "FAILED", "STOPPED"):
        return _trouble(seen, seen.pods) or Phase(kind="starting", text="the command is being submitted")
    lost = expected_pods(seen.spec) - sum(_is_ready(pod) for pod in pods)
    if not pods or lost <= 0:
        return Phase(kind="running")
    trouble = _trouble(seen, pods)
    return Phase(kind="running", text=f"{lost} of its pods {'are' if lost > 1 else 'is'} missing" + (f" ({trouble})" if trouble else ""))


def _trouble(seen: Observed, pods: Sequence[Object]) -> Phase | None:
    """Return what keeps pods from starting, the worst first; None where nothing is known to."""
    for failures, kind, words in ((_PULL_FAILURES, "pulling", "cannot pull"), (_START_FAILURES, "waiting", "cannot start")):
        for pod in pods:
            for container, waiting in _waiting(pod):
                if waiting.get("reason") in failures:
                    what = container.get("image") if kind == "pulling" else name_of(pod)
                    text = f"{words} {what}: {waiting.get('message') or waiting.get('reason')}"
                    return Phase(kind="pulling" if kind == "pulling" else "waiting", text=text)
    unscheduled = [found for pod in pods if (found := condition(pod, "PodScheduled")) is not None and not found.is_true]
    if unscheduled:
        grown = [event for event in seen.events if event.get("reason") in ("TriggeredScaleUp", "NotTriggerScaleUp")]
        more = f"; {grown[-1].get('message')}" if grown else ""
        return Phase(kind="waiting", text=f"for nodes for {len(unscheduled)} of {len(pods)} pods: {unscheduled[0].message}{more}")
    pulling = [pod for pod in pods if _last_event(seen, pod) == "Pulling"]
    if pulling:
        images = sorted({container.get("image") or "" for pod in pulling for container, _ in _waiting(pod)} - {""})
        return Phase(kind="pulling", text=f"{', '.join(images) or 'images'} on {len(pulling)} of {len(pods)} pods")
    return None


def _waiting(pod: Object) -> list[tuple[Object, Object]]:
    """Return the containers of a pod that wait, with what for."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return [(each, each["state"]["waiting"]) for each in containers if (each.get("state") or {}).get("waiting")]


def _last_event(seen: Observed, pod: Object) -> str:
    """Return the reason of the last event about a pod's images."""
    reasons = [
        event.get("reason") or ""
        for event in seen.events
        if (event.get("involvedObject") or {}).get("name") == name_of(pod) and event.get("reason") in ("Pulling", "Pulled", "Started")
    ]
    return reasons[-1] if reasons and _waiting(pod) else ""


def _is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready.is_true
