"""What KubeRay writes on the pods that it makes, and by what its Services find them.

As KubeRay 1.7 does it: ``labelPod`` (``common/pod.go``), ``getSubmitterTemplate`` (``rayjob_controller.go``), ``BuildServiceForHeadPod``
(``common/service.go``) and ``buildRedisCleanupJob`` (``raycluster_controller.go``).
"""

from typing import Any

from tests.k8s.ray_resources import part, ray_container

__all__ = ["cleanup_labels", "head_service", "ray_labels", "submitter_labels"]

_APPLICATION = "app.kubernetes.io/name"
_BY_KUBERAY = {"app.kubernetes.io/created-by": "kuberay-operator"}
_LABEL_LIMIT = 63


def ray_labels(cluster: str, node_type: str, group: dict[str, Any]) -> dict[str, str]:
    """Return the labels of a Ray pod of a cluster's head (``node_type`` head) or of a worker group."""
    fixed = {
        "ray.io/cluster": cluster,
        "ray.io/node-type": node_type,
        "ray.io/group": "headgroup" if node_type == "head" else str(group.get("groupName")),
    }
    own = {**part(part(part(group, "template"), "metadata"), "labels"), **part(group, "labels")}
    default = {"ray.io/is-ray-node": "yes", "ray.io/identifier": _identifier(cluster, node_type), _APPLICATION: "kuberay", **_BY_KUBERAY}
    return {**default, **own, **fixed}


def cleanup_labels(cluster: str, head_group: dict[str, Any]) -> dict[str, str]:
    """Return the labels of the pod that takes an ended cluster's state out of Redis."""
    return {**ray_labels(cluster, "head", head_group), "ray.io/node-type": "redis-cleanup"}


def submitter_labels(job: str, template: dict[str, Any]) -> dict[str, str]:
    """Return the labels of a RayJob's submitter; the last two are what Kubernetes adds to the pods of a Job."""
    origin = {"ray.io/originated-from-cr-name": job, "ray.io/originated-from-crd": "RayJob"}
    of_job = {"job-name": job, "batch.kubernetes.io/job-name": job}
    return {**part(part(template, "metadata"), "labels"), **origin, **_BY_KUBERAY, **of_job}


def head_service(cluster: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the Service by which everyone finds the head of a RayCluster (one without ``headService``)."""
    own = part(part(part(part(spec, "headGroupSpec"), "template"), "metadata"), "labels")
    selector = {
        "ray.io/cluster": cluster,
        "ray.io/node-type": "head",
        "ray.io/identifier": _identifier(cluster, "head"),
        # Of the pod's own labels KubeRay heeds this one only.
        _APPLICATION: own.get(_APPLICATION, "kuberay"),
        **_BY_KUBERAY,
    }
    ports = {port["name"]: port["containerPort"] for port in ray_container(part(spec, "headGroupSpec")).get("ports") or []}
    return {"name": f"{cluster}-head-svc", "selector": selector, "ports": ports}


def _identifier(cluster: str, node_type: str) -> str:
    # KubeRay cuts at the front, where names of different clusters differ.
    cut = f"{cluster}-{node_type}"[-_LABEL_LIMIT:]
    return cut if cut[0].isalnum() else f"r{cut[1:]}"
