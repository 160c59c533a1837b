"""The operator's RayJob template: read from its ConfigMap, and filled in with what a researcher asks for."""

import copy
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from echotrain.errors import ConfigError, LaunchError
from echotrain.launching.naming import check_name
from echotrain.launching.objects import JOB_LABEL, QUEUE_LABEL
from echotrain.launching.platform import Platform, parse_platform
from echotrain.worker_groups import parse_groups

__all__ = ["JobOrder", "Template", "fill", "has_variable", "parse_template", "submit_command"]

_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
_AUTH_ANNOTATION = "echotrain.io/auth"
_GROUPS_ANNOTATION = "echotrain.io/worker-groups"
_MANIFEST, _PLATFORM = "rayjob.yaml", "platform.json"
_AGAIN = "Ask the operator to install the chart again."

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Template:
    """What a chart published for jobs.

    Attributes:
        place: ConfigMap and namespace, for messages.
        manifest: A RayJob without a name and without an entrypoint.
        platform: What it offers.
    """

    place: str
    manifest: Manifest
    platform: Platform


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """What is asked of a template.

    Attributes:
        name: Of the job.
        command: Of the driver, as words.
        group: Worker group that gets pods; "" for a job that the head alone runs, whose groups get none.
        pods: Their number.
        queue: LocalQueue; "" for none.
        priority: Class; "" for none.
        retries: Further attempts after a failure; None leaves it to the template.
        time_limit_s: Likewise; never more than the template's.
        labels, annotations: Added to the RayJob's.
    """

    name: str
    command: Sequence[str]
    group: str = ""
    pods: int = 0
    queue: str = ""
    priority: str = ""
    retries: int | None = None
    time_limit_s: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def parse_template(config_map: Mapping[str, Any], *, version: str) -> Template:
    """Return the template that a ConfigMap holds.

    Raises:
        LaunchError: It is damaged, of another version, or was rendered in a way that its jobs cannot be followed.
    """
    metadata = config_map["metadata"]
    place = f"ConfigMap {metadata['name']} in {metadata['namespace']}"
    if (metadata.get("annotations") or {}).get(_AUTH_ANNOTATION) == "environment":
        raise LaunchError(
            place,
            "was rendered without a cluster, with Ray's token in the environment alone, so that KubeRay could not follow a job",
            "Ask the operator to install the chart with helm against the cluster, or to set kuberay.version.",
        )
    data = config_map.get("data") or {}
    for key in (_MANIFEST, _PLATFORM):
        if key not in data:
            raise LaunchError(f"{place}: {key}", "is missing", _AGAIN)
    try:
        platform, manifest = json.loads(data[_PLATFORM]), yaml.safe_load(data[_MANIFEST])
    except (ValueError, yaml.YAMLError) as error:
        raise LaunchError(place, f"cannot be read ({error})", _AGAIN) from error
    parsed = Template(place=place, manifest=manifest, platform=parse_platform(platform, place=place, version=version))
    _check(parsed)
    return parsed


def fill(template: Template, order: JobOrder) -> Manifest:
    """Return the RayJob; the template is left as it is.

    Raises:
        LaunchError: The name is not one, or the time limit is beyond the operator's.
    """
    manifest = copy.deepcopy(template.manifest)
    spec = manifest["spec"]
    metadata = manifest.setdefault("metadata", {})
    metadata["name"] = check_name(order.name)
    metadata["labels"] = {**(metadata.get("labels") or {}), **order.labels, JOB_LABEL: order.name}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **order.annotations}
    spec["entrypoint"] = submit_command(order.command)
    for group in spec["rayClusterSpec"].get("workerGroupSpecs") or []:
        # The other groups are as the operator wants them beside this one; a head alone has nobody.
        if not order.group or group["groupName"] == order.group:
            pods = order.pods if order.group else 0
            group.update(replicas=pods, minReplicas=pods, maxReplicas=pods)
    _publish_sizes(spec["rayClusterSpec"])
    for pod in _pods(spec):
        pod.setdefault("metadata", {}).setdefault("labels", {})[JOB_LABEL] = order.name
    if order.queue:
        metadata["labels"][QUEUE_LABEL] = order.queue
    if order.priority and order.queue:
        metadata["labels"][_PRIORITY_LABEL] = order.priority
    elif order.priority:
        for pod in _pods(spec):
            pod["spec"]["priorityClassName"] = order.priority
    if order.retries is not None:
        spec["backoffLimit"] = order.retries
    if order.time_limit_s is not None:
        spec["activeDeadlineSeconds"] = _within(order.time_limit_s, spec.get("activeDeadlineSeconds"))
    return manifest


def _publish_sizes(cluster: Manifest) -> None:
    """Tell the pods of Ray how many of each group there are: of those that a lost node takes away, others come."""
    pods = {group["groupName"]: group.get("replicas", 0) for group in cluster.get("workerGroupSpecs") or []}
    for pod in _ray_pods(cluster):
        annotations = pod.get("metadata", {}).get("annotations") or {}
        if _GROUPS_ANNOTATION in annotations:
            published = json.loads(annotations[_GROUPS_ANNOTATION])
            for name, group in published["groups"].items():
                group.update(min=pods.get(name, 0), max=pods.get(name, 0))
            annotations[_GROUPS_ANNOTATION] = json.dumps(published)


def has_variable(template: Template, name: str) -> bool:
    """Whether a job's driver, on the head, may find a variable in its environment; what a whole Secret brings along is not known here."""
    containers = template.manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"].get("spec", {}).get("containers") or []
    return any(
        container.get("envFrom") or any(variable.get("name") == name for variable in container.get("env") or []) for container in containers
    )


def submit_command(command: Sequence[str]) -> str:
    """Return a command as KubeRay's ``entrypoint``.

    KubeRay puts it into the arguments of a container, where the kubelet expands ``$(NAME)`` before a shell reads it; ``$$`` is what
    stands for one dollar there. ``ray job submit`` then quotes the words anew.
    """
    return shlex.join(command).replace("$", "$$")


def _within(seconds: int, limit: int | None) -> int:
    if seconds < 1 or (limit is not None and seconds > limit):
        longest = f"at most {limit / 3600:g} h here" if limit is not None else "at least a second"
        raise LaunchError(f"a time limit of {seconds / 3600:g} h", f"must be {longest}", "Choose another --time-limit.")
    return seconds


def _pods(spec: Manifest) -> Iterator[Manifest]:
    """Yield the pod templates of the head, of every group and of the submitter."""
    yield from _ray_pods(spec["rayClusterSpec"])
    if "submitterPodTemplate" in spec:
        yield spec["submitterPodTemplate"]


def _ray_pods(cluster: Manifest) -> Iterator[Manifest]:
    """Yield the pod templates of the head and of every group."""
    yield cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs") or []:
        yield group["template"]


def _check(template: Template) -> None:
    manifest, place = template.manifest, template.place
    try:
        spec = manifest["spec"]
        kind = f"{manifest['apiVersion']} {manifest['kind']}"
        groups = {group["groupName"] for group in spec["rayClusterSpec"].get("workerGroupSpecs") or []}
        published = [text for pod in _pods(spec) if (text := (pod.get("metadata", {}).get("annotations") or {}).get(_GROUPS_ANNOTATION))]
    except (KeyError, TypeError, AttributeError) as error:
        raise LaunchError(f"{place}: {_MANIFEST}", f"is not a RayJob ({error} is missing)", _AGAIN) from error
    if kind != "ray.io/v1 RayJob":
        raise LaunchError(f"{place}: {kind}", "is not a ray.io/v1 RayJob", _AGAIN)
    if spec.get("submissionMode", "K8sJobMode") != "K8sJobMode":
        mode = spec["submissionMode"]
        raise LaunchError(f"{place}: submissionMode {mode}", "has no submitter whose output could be followed", "Ask for K8sJobMode.")
    for text in published:
        try:
            parse_groups(str(text).encode(), place=f"{place}: annotation {_GROUPS_ANNOTATION}")
        except ConfigError as error:
            raise LaunchError(error.value, error.limit, _AGAIN) from error
    unknown = sorted(set(template.platform.groups) - groups)
    if unknown:
        raise LaunchError(f"{place}: group {unknown[0]}", f"is in {_PLATFORM} and not in {_MANIFEST}", _AGAIN)
