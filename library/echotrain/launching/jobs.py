"""Questions and orders about jobs, in the words of the API."""

import datetime as dt
import json
import math
import time
from collections.abc import Iterator
from typing import Any

from echotrain.errors import ClusterError, ClusterUnreachableError, LaunchError
from echotrain.launching.client import ApiRefusalError, KubeClient
from echotrain.launching.objects import JOB_LABEL, LAUNCH, QUEUE_LABEL, Object, Observed, instant, name_of
from echotrain.launching.refusals import explained
from echotrain.launching.template import Template, parse_template

__all__ = ["Jobs"]

_WORKLOAD_LABEL = "kueue.x-k8s.io/job-uid"
_CREATE_ATTEMPTS = 3
# A command that says nothing for so long has its log asked for again, in case the connection is gone and nobody said so.
_LOG_IDLE_S = 30.0
# The server cannot pick a job's events from all of the namespace's, which may be many: they are asked for seldom, and not beyond a number.
_EVENTS_EVERY_S = 5.0
_MAX_EVENTS = 2000


class Jobs:
    """The jobs of one namespace."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        namespace = client.namespace
        self._core = f"/api/v1/namespaces/{namespace}"
        self._rayjobs = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._kueue = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}"
        self._last_events: tuple[float, list[Object]] = (-math.inf, [])

    def template(self, name: str, *, version: str) -> Template:
        """Read the operator's template.

        Raises:
            LaunchError: There is none, or none that this version can use.
        """
        namespace = self.client.namespace
        try:
            return parse_template(self.client.get(f"{self._core}/configmaps/{name}"), version=version)
        except ApiRefusalError as error:
            if error.status != 404:
                raise
            remedy = (
                "Ask the operator to install helm/echotrain there, or name another --namespace or --template (RELEASE-echotrain-rayjob)."
            )
            raise LaunchError(f"ConfigMap {name}", f"is not in namespace {namespace} of {self.client.server}", remedy) from error

    def check_queue(self, name: str) -> None:
        """Raise ``LaunchError`` where Kueue has no such queue here, or does not admit through it."""
        try:
            queue = self.client.get(f"{self._kueue}/localqueues/{name}")
        except ApiRefusalError as error:
            if error.status != 404:
                raise
            remedy = "Ask the operator to make the LocalQueue, or choose another --queue."
            raise LaunchError(f"queue {name}", f"is offered, but is not in namespace {self.client.namespace}", remedy) from error
        for each in (queue.get("status") or {}).get("conditions") or []:
            if each["type"] == "Active" and each["status"] == "False":
                raise LaunchError(f"queue {name}", f"admits nothing: {each.get('message')}", "Ask the operator, or choose another --queue.")

    def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> Object:
        """Make a job; a field that the cluster's CRDs do not know is refused, not dropped.

        Raises:
            LaunchError: There is another job of this name.
            ClusterError: The cluster refuses it.
        """
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        name = manifest["metadata"]["name"]
        for attempt in range(1, _CREATE_ATTEMPTS + 1):
            try:
                made: Object = self.client.post(self._rayjobs, manifest, **query)
            except ApiRefusalError as error:
                if error.status != 409:
                    raise explained(error, namespace=self.client.namespace) from error
                there = self.get(name)
                mine = manifest["metadata"]["annotations"][LAUNCH]
                if (there["metadata"].get("annotations") or {}).get(LAUNCH) == mine:
                    return there
                remedy = f"Follow that one with python -m ray_jobs.launch logs {name} --follow, or choose another --job-name."
                raise LaunchError(f"job {name}", f"is in namespace {self.client.namespace} already", remedy) from error
            except ClusterUnreachableError:
                # The job may have been made: the name says so in the next attempt.
                if attempt == _CREATE_ATTEMPTS:
                    raise
                time.sleep(attempt)
            else:
                return made
        raise AssertionError("unreachable")

    def get(self, name: str) -> Object:
        """Return a RayJob; raises ``LaunchError`` where there is none."""
        try:
            found: Object = self.client.get(f"{self._rayjobs}/{name}")
        except ApiRefusalError as error:
            if error.status != 404:
                raise
            remedy = "python -m ray_jobs.launch list shows those that there are; another --namespace may have it."
            raise LaunchError(f"job {name}", f"is not in namespace {self.client.namespace}", remedy) from error
        return found

    def launched(self) -> list[Object]:
        """Return all RayJobs that were launched, oldest first."""
        found = self.client.get(self._rayjobs, labelSelector=JOB_LABEL)["items"]
        return sorted(found, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def delete(self, job: Object) -> bool:
        """Ask for the end of a job; return False where it is gone already, also where another has its name by now."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": job["metadata"]["uid"]}}
        try:
            self.client.delete(f"{self._rayjobs}/{name_of(job)}", body)
        except ApiRefusalError as error:
            if error.status not in (404, 409):
                raise
            return False
        return True

    def observe(self, name: str) -> Observed:
        """Return a job and all that belongs to it."""
        found = self.client.get(self._rayjobs, fieldSelector=f"metadata.name={name}")
        version = str(found["metadata"]["resourceVersion"])
        if not found["items"]:
            return Observed(job=None, version=version)
        job = found["items"][0]
        pods = self.client.get(f"{self._core}/pods", labelSelector=f"{JOB_LABEL}={name}")["items"]
        return Observed(
            job=job,
            version=version,
            pods=sorted(pods, key=lambda pod: (str(pod["metadata"]["creationTimestamp"]), str(pod["metadata"]["name"]))),
            workloads=self.workloads(job),
            events=self._events(name) if _is_starting(job) else (),
        )

    def workloads(self, job: Object) -> list[Object]:
        """Return what Kueue made of a job."""
        if QUEUE_LABEL not in (job["metadata"].get("labels") or {}):
            return []
        return self._extra(f"{self._kueue}/workloads", labelSelector=f"{_WORKLOAD_LABEL}={job['metadata']['uid']}")

    def await_change(self, name: str, version: str, seconds: float) -> bool:
        """Wait until the RayJob changes after a version, or for some seconds; return False where the watch was cut short."""
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "resourceVersion": version}
        lines = self.client.lines(self._rayjobs, idle_s=seconds + 5, timeoutSeconds=str(max(1, round(seconds))), **query)
        try:
            # Whatever it is (also that the version is too old), the job is read anew.
            return bool(json.loads(next(lines, "{}")).get("type") != "ERROR")
        except (ClusterError, ValueError):
            return False
        finally:
            lines.close()

    def log(self, pod: str, *, follow: bool, since: str | None = None, tail: int | None = None) -> Iterator[str]:
        """Yield the lines of a pod's log, each behind its time."""
        query = {"timestamps": "true", "follow": str(follow).lower()}
        if since is not None:
            query["sinceTime"] = since
        if tail is not None:
            query["tailLines"] = str(tail)
        return self.client.lines(f"{self._core}/pods/{pod}/log", idle_s=_LOG_IDLE_S, **query)

    def _extra(self, path: str, **query: str) -> list[Object]:
        """Return objects that only explain more: none where they may not be read, or are of no kind that the cluster knows."""
        try:
            found: list[Object] = self.client.get(path, **query)["items"]
        except ApiRefusalError:
            return []
        return found

    def _events(self, name: str) -> list[Object]:
        """Return the events about a job and what is made for it, all of which is named after it."""
        asked, found = self._last_events
        if time.monotonic() - asked >= _EVENTS_EVERY_S:
            found = self._extra(f"{self._core}/events", limit=str(_MAX_EVENTS))
            self._last_events = time.monotonic(), found
        mine = [event for event in found if f"{(event.get('involvedObject') or {}).get('name') or ''}-".startswith(f"{name}-")]
        return sorted(mine, key=_time_of)


def _is_starting(job: Object) -> bool:
    return (job.get("status") or {}).get("jobDeploymentStatus") in (None, "", "Initializing", "Running", "Waiting") and (
        (job.get("status") or {}).get("jobStatus") or ""
    ) in ("", "PENDING")


def _time_of(event: Object) -> dt.datetime:
    metadata = event["metadata"]
    time = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or metadata.get("creationTimestamp")
    return instant(time) or dt.datetime.min.replace(tzinfo=dt.UTC)
