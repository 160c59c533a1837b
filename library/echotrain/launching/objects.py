"""What the API server says about a job, and small questions to it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "COMMAND",
    "DASHBOARD",
    "JOB_LABEL",
    "LAUNCH",
    "QUEUE_LABEL",
    "USER",
    "VERB_LABEL",
    "VERSION",
    "WANDB",
    "Condition",
    "Object",
    "Observed",
    "condition",
    "expected_pods",
    "instant",
    "is_started",
    "is_submitter",
    "is_terminated",
    "name_of",
    "submission_of",
    "submitter_pods",
]

# Annotations of a launched job.
COMMAND, USER, VERSION = "echotrain.io/command", "echotrain.io/user", "echotrain.io/version"
DASHBOARD, WANDB = "echotrain.io/dashboard", "echotrain.io/wandb"
# Tells a job that was made by a request whose answer was lost from somebody else's of the same name.
LAUNCH = "echotrain.io/launch"
# Every pod of a job carries its name.
JOB_LABEL = "echotrain.io/job"
VERB_LABEL = "echotrain.io/verb"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

Object = Mapping[str, Any]
# Set by KubeRay.
_SUBMISSION_VARIABLE = "RAY_JOB_SUBMISSION_ID"
_SUBMITTER_LABELS = ("batch.kubernetes.io/job-name", "job-name")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A job and all that belongs to it, at one moment.

    Attributes:
        job: The RayJob; None once it is deleted.
        version: At which it was read, to watch from.
        pods: Of the job, in the order in which they were made.
        workloads: What Kueue made of the job.
        events: About the job, its cluster and its pods, oldest first.
    """

    job: Object | None
    version: str = ""
    pods: Sequence[Object] = ()
    workloads: Sequence[Object] = ()
    events: Sequence[Object] = ()

    @property
    def status(self) -> Object:
        """Of the RayJob."""
        return (self.job or {}).get("status") or {}

    @property
    def spec(self) -> Object:
        """Of the RayJob."""
        return (self.job or {}).get("spec") or {}

    @property
    def notes(self) -> Mapping[str, str]:
        """Annotations of the RayJob."""
        return ((self.job or {}).get("metadata") or {}).get("annotations") or {}

    @property
    def labels(self) -> Mapping[str, str]:
        """Of the RayJob."""
        return ((self.job or {}).get("metadata") or {}).get("labels") or {}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One of an object's conditions."""

    is_true: bool
    reason: str
    message: str


def name_of(thing: Object) -> str:
    """Return the name."""
    return str(thing["metadata"]["name"])


def condition(thing: Object, kind: str) -> Condition | None:
    """Return a condition; None where the object has no word of it."""
    for each in (thing.get("status") or {}).get("conditions") or []:
        if each["type"] == kind:
            return Condition(is_true=each["status"] == "True", reason=each.get("reason") or "", message=each.get("message") or "")
    return None


def is_submitter(pod: Object) -> bool:
    """Whether a pod is of the Job that submits, and so prints what the driver prints."""
    return any(label in (pod["metadata"].get("labels") or {}) for label in _SUBMITTER_LABELS)


def submitter_pods(pods: Sequence[Object]) -> list[Object]:
    """Return those that submit, oldest first."""
    return [pod for pod in pods if is_submitter(pod)]


def is_started(pod: Object) -> bool:
    """Whether a pod's first container has begun, and so has a log."""
    return any(_first_state(pod).get(state) for state in ("running", "terminated"))


def is_terminated(pod: Object) -> bool:
    """Whether a pod's first container has ended; it is not started again."""
    return bool(_first_state(pod).get("terminated")) or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def submission_of(pod: Object) -> str:
    """Return the id of the Ray job that a submitter submits: the same for another submitter of the same attempt."""
    variables = pod["spec"]["containers"][0].get("env") or []
    return next((str(each.get("value")) for each in variables if each["name"] == _SUBMISSION_VARIABLE), name_of(pod))


def expected_pods(spec: Object) -> int:
    """Return how many pods the job's Ray cluster has when it is whole."""
    groups = (spec.get("rayClusterSpec") or {}).get("workerGroupSpecs") or []
    return 1 + sum((group.get("replicas") or 0) * (group.get("numOfHosts") or 1) for group in groups)


def instant(text: str | None) -> dt.datetime | None:
    """Return a time of the API."""
    return dt.datetime.fromisoformat(text) if text else None


def _first_state(pod: Object) -> Object:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    state: Object = statuses[0].get("state") or {}
    return state
