"""A template such as the chart publishes, small: what the launcher promises to the chart is tested with it, and with the chart itself."""

import json
from typing import Any

import yaml

from echotrain.launching.template import Template, parse_template

__all__ = ["VERSION", "config_map", "template"]

VERSION = "0.1.0"


def config_map(*, manifest: dict[str, Any] | None = None, **platform: Any) -> dict[str, Any]:
    """Return the ConfigMap; ``platform`` replaces values of ``platform.json``."""
    offered = {
        "format": 1,
        "chart": "0.1.0",
        "echotrain": VERSION,
        "ray": "2.60.0",
        "release": "echotrain",
        "storage": "s3://lab",
        "groups": {"data": {"cpus": 4, "gpus": 0, "max": 4}, "h100": {"cpus": 96, "gpus": 8, "max": 4}},
        "queue": "",
        "queues": [],
        "priority": "",
        "priorities": ["echotrain-low", "echotrain-high"],
        "wandb": {"enabled": False, "url": ""},
        "dashboard": "",
        **platform,
    }
    data = {"rayjob.yaml": yaml.safe_dump(manifest or rayjob()), "platform.json": json.dumps(offered)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "echotrain-rayjob", "namespace": "team"}, "data": data}


def template(**platform: Any) -> Template:
    """Return it parsed."""
    return parse_template(config_map(**platform), version=VERSION)


def rayjob() -> dict[str, Any]:
    """Return the manifest, with a group for data and one of GPUs."""
    groups = [
        {
            "groupName": name,
            "replicas": 0,
            "minReplicas": 0,
            "maxReplicas": 0,
            "rayStartParams": {},
            "template": _pod("worker", "ray-worker"),
        }
        for name in ("data", "h100")
    ]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"labels": {"app.kubernetes.io/part-of": "echotrain"}},
        "spec": {
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 0,
            "activeDeadlineSeconds": 86400,
            "backoffLimit": 2,
            "rayClusterSpec": {
                "rayVersion": "2.60.0",
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": _pod("head", "ray-head")},
                "workerGroupSpecs": groups,
            },
            "submitterPodTemplate": _pod("submitter", "submitter"),
        },
    }


def _pod(component: str, container: str) -> dict[str, Any]:
    # KubeRay gives its pods the name kuberay, unless the template has one.
    labels = {"app.kubernetes.io/name": "echotrain", "app.kubernetes.io/part-of": "echotrain", "app.kubernetes.io/component": component}
    spec = {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": container,
                "image": "registry.example/echotrain:0.1.0",
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shared", "mountPath": "/shared"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}],
    }
    return {"metadata": {"labels": labels}, "spec": spec}
