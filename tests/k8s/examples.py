"""Small right manifests that tests of validators start from and break."""

import copy
from typing import Any

__all__ = ["cluster_queue", "local_queue", "pod_monitor", "ray_cluster", "ray_job"]


def _container(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example/echotrain:0.1.0",
        "ports": [{"containerPort": 8080, "name": "metrics"}],
        "env": [{"name": "HOME", "value": "/home/echotrain"}],
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": 2, "memory": "4Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }


def _template(name: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app.kubernetes.io/name": "echotrain"}},
        "spec": {
            "serviceAccountName": "echotrain",
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_container(name)],
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
        },
    }


def ray_cluster() -> dict[str, Any]:
    """Return a RayCluster with one worker group."""
    group = {
        "groupName": "data",
        "replicas": 1,
        "minReplicas": 0,
        "maxReplicas": 4,
        "rayStartParams": {},
        "template": _template("ray-worker"),
    }
    spec = {
        "rayVersion": "2.60.0",
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": _template("ray-head")},
        "workerGroupSpecs": [group],
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "toy", "labels": {"team": "mri"}}, "spec": spec}


def ray_job() -> dict[str, Any]:
    """Return a RayJob of its own cluster."""
    spec = {
        "entrypoint": "python -m ray_jobs.train varnet_mosaic_x4_debug",
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "activeDeadlineSeconds": 86400,
        "backoffLimit": 1,
        "rayClusterSpec": copy.deepcopy(ray_cluster()["spec"]),
        "submitterPodTemplate": _template("ray-job-submitter"),
    }
    spec["submitterPodTemplate"]["spec"]["restartPolicy"] = "Never"
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "toy"}, "spec": spec}


def pod_monitor() -> dict[str, Any]:
    """Return a PodMonitor."""
    spec = {
        "selector": {"matchLabels": {"ray.io/cluster": "toy"}, "matchExpressions": [{"key": "ray.io/node-type", "operator": "Exists"}]},
        "podMetricsEndpoints": [{"port": "metrics", "interval": "30s", "relabelings": [{"action": "replace", "targetLabel": "team"}]}],
    }
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "toy"}, "spec": spec}


def local_queue() -> dict[str, Any]:
    """Return a LocalQueue."""
    spec = {"clusterQueue": "everyone", "stopPolicy": "None"}
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": "toy"}, "spec": spec}


def cluster_queue() -> dict[str, Any]:
    """Return a ClusterQueue of one flavor."""
    flavor = {"name": "default", "resources": [{"name": "cpu", "nominalQuota": "8"}, {"name": "memory", "nominalQuota": "32Gi"}]}
    spec = {
        "namespaceSelector": {},
        "preemption": {"reclaimWithinCohort": "Never", "withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": [flavor]}],
    }
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": "toy"}, "spec": spec}
