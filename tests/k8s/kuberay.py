"""The KubeRay operator, Kueue and a cluster's nodes as a test plays them: the status phases of RayJobs, and the objects behind them.

What an operator would do is said step by step, so that a test can stop at any of them. Statuses, labels and names are KubeRay 1.7's
(``rayjob_controller.go``) and Kueue 0.19's.
"""

import datetime as dt
import itertools
import time
import urllib.error
from typing import Any

from tests.k8s.api_server import ApiServer
from tests.k8s.kubelet import Kubelet

__all__ = ["PlayedJob", "await_job"]

_numbers = itertools.count(1)
# Failures after which there is no other attempt, whatever backoffLimit says.
_EXEMPT = ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded")
_FINALIZER = "ray.io/rayjob-finalizer"


def await_job(server: ApiServer, kubelet: Kubelet, namespace: str, seconds: float = 20) -> "PlayedJob":
    """Wait until there is a RayJob in a namespace, as the operator would see it come."""
    deadline = time.monotonic() + seconds
    path = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    while time.monotonic() < deadline:
        found = _ask(server, "GET", path)["items"]
        if found:
            return PlayedJob(server, kubelet, namespace, found[-1])
        time.sleep(0.05)
    raise TimeoutError(f"no RayJob came to namespace {namespace}")


class PlayedJob:
    """One RayJob, and what the operator makes of it."""

    def __init__(self, server: ApiServer, kubelet: Kubelet, namespace: str, job: dict[str, Any]) -> None:
        self._server, self._kubelet, self.namespace = server, kubelet, namespace
        self.name: str = job["metadata"]["name"]
        self.manifest = job
        self._core = f"/api/v1/namespaces/{namespace}"
        self._path = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs/{self.name}"
        self.pods: list[str] = []
        self.submitter = ""

    def status(self, **changes: Any) -> None:
        """Change the RayJob's status."""
        job = self._ask("GET", self._path)
        job["status"] = {**job.get("status", {}), **changes}
        self._ask("PUT", f"{self._path}/status", job)

    def initialize(self) -> None:
        """Take the job up."""
        number = next(_numbers)
        self.cluster = f"{self.name}-{number:05d}"
        self.submission = f"{self.name}-{number:04d}x"
        self.status(jobDeploymentStatus="Initializing", jobId=self.submission, rayClusterName=self.cluster, startTime=_now())

    def make_pods(self) -> None:
        """Make the Service and the pods of the Ray cluster, by the job's own templates; the pods wait for a node."""
        cluster = self.manifest["spec"]["rayClusterSpec"]
        head = cluster["headGroupSpec"]["template"]
        # The cluster's own controller takes over this label of the template; that of RayJobs (``submit``) does not.
        self._make_service(f"{self.cluster}-head-svc", head["metadata"]["labels"].get("app.kubernetes.io/name", "kuberay"))
        self._make_ray_pod(f"{self.cluster}-head", head, "head", "headgroup")
        for group in cluster.get("workerGroupSpecs", []):
            for number in range(group["replicas"]):
                self._make_ray_pod(f"{self.cluster}-{group['groupName']}-{number}", group["template"], "worker", group["groupName"])

    def find_no_node(self, message: str) -> None:
        """Let no node be found for the pods."""
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        for pod in self.pods:
            self._set_pod(pod, {"phase": "Pending", "conditions": [condition]})

    def pull(self) -> None:
        """Let the pods' nodes pull their images."""
        for pod in self.pods:
            self.event("Pod", pod, "Pulling", f"Pulling image {self._image(pod)!r}")
            self._set_pod(pod, {"phase": "Pending", **_states(self._containers(pod), {"waiting": {"reason": "ContainerCreating"}})})

    def fail_to_pull(self, message: str) -> None:
        """Let the image be missing."""
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
        for pod in self.pods:
            self._set_pod(pod, {"phase": "Pending", **_states(self._containers(pod), waiting)})

    def make_ready(self) -> None:
        """Let the Ray cluster be up."""
        for pod in self.pods:
            self._run(pod)
        self.status(dashboardURL=f"{self.cluster}-head-svc.{self.namespace}.svc.cluster.local:8265")

    def submit(self) -> None:
        """Make the submitter, and let the command begin."""
        self.make_submitter()
        self.status(jobDeploymentStatus="Running", jobStatus="RUNNING")
        self._make_service(f"{self.name}-head-svc", "kuberay")

    def make_submitter(self) -> None:
        """Make a pod that submits the command, or, where an earlier one was lost, goes on to tell of it."""
        self.submitter = f"{self.name}-{next(_numbers):05d}"
        template = self.manifest["spec"]["submitterPodTemplate"]
        self._make_pod(self.submitter, template, {"job-name": self.name}, env={"RAY_JOB_SUBMISSION_ID": self.submission})
        self._run(self.submitter)

    def say(self, *lines: str) -> None:
        """Print lines, as the command's driver."""
        self._kubelet.write(self.submitter, *lines)

    def end_submitter(self, exit_code: int = 0) -> None:
        """Let the submitter end."""
        self._kubelet.end(self.submitter)
        state = {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"}}
        phase = "Failed" if exit_code else "Succeeded"
        self._set_pod(self.submitter, {"phase": phase, **_states(self._containers(self.submitter), state)})

    def succeed(self) -> None:
        """Let the command end well."""
        self.end_submitter()
        self._end(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", succeeded=1)

    def stop(self) -> None:
        """Let somebody stop the command in Ray."""
        self.end_submitter()
        self._end(jobDeploymentStatus="Complete", jobStatus="STOPPED")

    def fail(self, exit_code: int) -> bool:
        """Let the command end with an exit code; return whether there will be another attempt."""
        self.end_submitter(1)
        message = f"Job entrypoint command failed with exit code {exit_code}, last available logs (truncated to 20,000 chars):\n..."
        return self._fail("AppFailed", message, jobStatus="FAILED")

    def expire(self) -> bool:
        """Let the time limit pass; return whether there will be another attempt."""
        is_retried = self._fail("DeadlineExceeded", "The RayJob has passed the activeDeadlineSeconds. StartTime: ...")
        # Its cluster is gone, and with it what it follows.
        self.end_submitter(1)
        return is_retried

    def refuse(self, message: str) -> None:
        """Find the job wrong: it is not taken up, and has no end."""
        self.status(jobDeploymentStatus="ValidationFailed", reason="ValidationFailed", message=message)

    def hold(self) -> None:
        """Keep the job when it is deleted, as long as Ray has not been asked to stop it."""
        self._finalize([_FINALIZER])

    def let_go(self) -> None:
        """Keep it no longer."""
        self._finalize([])

    def clear(self) -> None:
        """Take down the cluster and the submitter of a job that is suspended or tried again, and begin anew."""
        self._remove_all()
        self.status(jobDeploymentStatus="", jobStatus="", jobId="", rayClusterName="", dashboardURL="", reason="", message="")

    def suspend(self) -> None:
        """Do what Kueue's webhook does to a job with a queue: hold it."""
        self._suspend(True)
        self.status(jobDeploymentStatus="Suspended", jobStatus="")

    def queue(self, reason: str, message: str) -> None:
        """Make the job's Workload, without a quota for now."""
        metadata = {"name": f"rayjob-{self.name}", "labels": {"kueue.x-k8s.io/job-uid": self.manifest["metadata"]["uid"]}}
        pod = {"spec": {"containers": [{"name": "ray-head", "image": "image"}], "restartPolicy": "Never"}}
        spec = {
            "queueName": self.manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"],
            "podSets": [{"name": "head", "count": 1, "template": pod}],
        }
        self._ask(
            "POST", self._workloads(), {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata, "spec": spec}
        )
        self.condition("QuotaReserved", "False", reason, message)

    def admit(self) -> None:
        """Let Kueue admit the job, and the operator begin."""
        self.condition("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue research")
        self.condition("Admitted", "True", "Admitted", "The workload is admitted")
        self.condition("Evicted", "False", "QuotaReserved", "Previously")
        self._suspend(False)
        self.status(jobDeploymentStatus="")

    def evict(self, reason: str, message: str) -> None:
        """Let Kueue take the quota back."""
        self.condition("Evicted", "True", reason, message)
        self.condition("QuotaReserved", "False", "Pending", message)
        self.suspend()

    def condition(self, kind: str, status: str, reason: str, message: str) -> None:
        """Set a condition of the Workload."""
        path = f"{self._workloads()}/rayjob-{self.name}"
        workload = self._ask("GET", path)
        others = [each for each in workload.get("status", {}).get("conditions", []) if each["type"] != kind]
        new = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": _now()}
        workload["status"] = {**workload.get("status", {}), "conditions": [*others, new]}
        self._ask("PUT", f"{path}/status", workload)

    def event(self, kind: str, name: str, reason: str, message: str, category: str = "Normal") -> None:
        """Record an event."""
        body = {
            "metadata": {"name": f"{name}.{next(_numbers)}"},
            "involvedObject": {"kind": kind, "name": name, "namespace": self.namespace},
            "reason": reason,
            "message": message,
            "type": category,
            "lastTimestamp": _now(),
        }
        self._ask("POST", f"{self._core}/events", body)

    def delete(self) -> None:
        """Delete the job, with all that was made for it."""
        self._ask("DELETE", self._path)
        self._remove_all()

    def is_there(self) -> bool:
        """Whether the job has not been deleted."""
        try:
            self._ask("GET", self._path)
        except urllib.error.HTTPError as error:
            return error.code != 404
        return True

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return _ask(self._server, method, path, body)

    def _fail(self, reason: str, message: str, **status: Any) -> bool:
        """Try again until the attempts are used up (KubeRay's ``checkBackoffLimitAndUpdateStatusIfNeeded``)."""
        job = self._ask("GET", self._path)
        failed = job["status"].get("failed", 0) + 1
        changes = {"reason": reason, "message": message, "failed": failed, **status}
        if failed <= job["spec"].get("backoffLimit", 0) and reason not in _EXEMPT:
            self.status(jobDeploymentStatus="Retrying", **changes)
            return True
        self._end(jobDeploymentStatus="Failed", **changes)
        return False

    def _end(self, **status: Any) -> None:
        """End the job: then its cluster is deleted at once, or later than a test lasts; the submitter stays, with its log."""
        self.status(endTime=_now(), **status)
        spec = self.manifest["spec"]
        if spec.get("shutdownAfterJobFinishes") and not spec.get("ttlSecondsAfterFinished"):
            self._remove_cluster()

    def _finalize(self, finalizers: list[str]) -> None:
        job = self._ask("GET", self._path)
        job["metadata"]["finalizers"] = finalizers
        self._ask("PUT", self._path, job)

    def _remove_all(self) -> None:
        self._remove_cluster()
        if self.submitter:
            self._remove_pod(self.submitter)
        self.submitter = ""

    def _remove_cluster(self) -> None:
        for pod in self.pods:
            self._remove_pod(pod)
        if self.pods:
            self._ask("DELETE", f"{self._core}/services/{self.cluster}-head-svc")
        self.pods = []

    def _remove_pod(self, name: str) -> None:
        self._ask("DELETE", f"{self._core}/pods/{name}?gracePeriodSeconds=0")
        self._kubelet.end(name)

    def _workloads(self) -> str:
        return f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{self.namespace}/workloads"

    def _suspend(self, value: bool) -> None:
        job = self._ask("GET", self._path)
        job["spec"]["suspend"] = value
        self._ask("PUT", self._path, job)

    def _make_service(self, name: str, application: str) -> None:
        """Make a Service for the head's pod, or turn it to the pod of another attempt."""
        selector = {**self._identity("head"), "app.kubernetes.io/name": application}
        spec = {"clusterIP": "None", "selector": selector, "ports": [{"name": "dashboard", "port": 8265}]}
        path = f"{self._core}/services"
        there = [each for each in self._ask("GET", path)["items"] if each["metadata"]["name"] == name]
        if there:
            self._ask("PUT", f"{path}/{name}", {**there[0], "spec": {**there[0]["spec"], "selector": selector}})
        else:
            self._ask("POST", path, {"metadata": {"name": name}, "spec": spec})

    def _make_ray_pod(self, name: str, template: dict[str, Any], kind: str, group: str) -> None:
        """Make a pod of the cluster, labelled as KubeRay's ``labelPod`` does: the template's labels win, but for three."""
        mine = self._identity(kind) | {"ray.io/is-ray-node": "yes", "app.kubernetes.io/name": "kuberay"}
        fixed = {"ray.io/node-type": kind, "ray.io/group": group, "ray.io/cluster": self.cluster}
        self._make_pod(name, template, {**mine, **template["metadata"]["labels"], **fixed})
        self.pods.append(name)

    def _identity(self, kind: str) -> dict[str, str]:
        return {
            "ray.io/cluster": self.cluster,
            "ray.io/node-type": kind,
            "ray.io/identifier": f"{self.cluster}-{kind}",
            "app.kubernetes.io/created-by": "kuberay-operator",
        }

    def _make_pod(self, name: str, template: dict[str, Any], labels: dict[str, str], env: dict[str, str] | None = None) -> None:
        metadata = {"name": name, "labels": {**template["metadata"]["labels"], **labels}}
        first, *others = template["spec"]["containers"]
        variables = [*first.get("env", []), *({"name": key, "value": value} for key, value in (env or {}).items())]
        spec = {**template["spec"], "nodeName": self._kubelet.name, "containers": [{**first, "env": variables}, *others]}
        # What a pod names of the cluster must exist, and there is nothing here.
        spec = {key: value for key, value in spec.items() if key not in ("priorityClassName", "runtimeClassName")}
        self._ask("POST", f"{self._core}/pods", {"metadata": metadata, "spec": spec})

    def _run(self, pod: str) -> None:
        self.event("Pod", pod, "Pulled", "Successfully pulled image")
        ready = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
        self._set_pod(
            pod, {"phase": "Running", "conditions": ready, **_states(self._containers(pod), {"running": {"startedAt": _now()}}, ready=True)}
        )

    def _set_pod(self, name: str, status: dict[str, Any]) -> None:
        pod = self._ask("GET", f"{self._core}/pods/{name}")
        self._ask("PUT", f"{self._core}/pods/{name}/status", {**pod, "status": status})

    def _containers(self, pod: str) -> list[dict[str, Any]]:
        containers: list[dict[str, Any]] = self._ask("GET", f"{self._core}/pods/{pod}")["spec"]["containers"]
        return containers

    def _image(self, pod: str) -> str:
        return str(self._containers(pod)[0]["image"])


def _ask(server: ApiServer, method: str, path: str, body: Any = None) -> Any:
    """Send a request, again while the server says that the storage of a new CRD is not ready."""
    for _ in range(100):
        try:
            return server.request(method, path, body)
        except urllib.error.HTTPError as error:
            if error.code != 429:
                raise
            time.sleep(0.1)
    raise TimeoutError(f"{path} is never ready")


def _states(containers: list[dict[str, Any]], state: dict[str, Any], *, ready: bool = False) -> dict[str, Any]:
    return {
        "containerStatuses": [
            {"name": each["name"], "image": each["image"], "imageID": "", "ready": ready, "restartCount": 0, "state": state}
            for each in containers
        ]
    }


def _now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
