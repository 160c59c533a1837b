"""Rules about the cluster that a RayCluster and a RayJob describe; see kuberay_rules.py."""

from collections.abc import Callable, Iterable, Iterator

from tests.k8s.names import DNS_LABEL, is_label_value, is_qualified_name
from tests.k8s.ray_resources import Cluster, part, pod_spec, ray_container, version_numbers

__all__ = ["CLUSTER_RULES"]

_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"


def group_names_are_distinct(cluster: Cluster) -> Iterator[str]:
    """Not in validation.go: pods of two groups of one name are counted together."""
    names = [group.get("groupName") for group in cluster.groups]
    yield from (
        f"{name!r} names {names.count(name)} worker groups" for name in sorted({str(name) for name in names if names.count(name) > 1})
    )


def group_name_is_a_label(cluster: Cluster) -> Iterator[str]:
    """Not in validation.go: the name becomes the label ray.io/group of each pod."""
    for group in cluster.groups:
        if not is_label_value(str(group.get("groupName"))):
            yield f"{group.get('groupName')!r} can be no label's value"


def every_group_has_a_container(cluster: Cluster) -> Iterator[str]:
    for where, group in cluster.named_groups:
        if not pod_spec(group).get("containers"):
            yield f"{where} has none"


def replicas_are_within_their_bounds(cluster: Cluster) -> Iterator[str]:
    """That ``replicas`` itself is within is not in validation.go: without the autoscaler KubeRay cuts it down and says nothing."""
    for group in cluster.groups:
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        replicas = group.get("replicas", low)
        name = group.get("groupName")
        if low < 0 or high < 0:
            yield f"worker group {name} has a negative bound ({low}, {high})"
        if low > high:
            yield f"worker group {name} has minReplicas {low} above maxReplicas {high}"
        elif not low <= replicas <= high:
            yield f"worker group {name} has {replicas} replicas, outside {low} to {high}"


def resources_are_given_once(cluster: Cluster) -> Iterator[str]:
    for where, group in cluster.named_groups:
        given = [key for key in ("num-cpus", "num-gpus", "memory", "resources") if part(group, "rayStartParams").get(key)]
        if given and group.get("resources"):
            yield f"{where} has resources and rayStartParams {', '.join(given)}"


def group_labels_are_labels(cluster: Cluster) -> Iterator[str]:
    for where, group in cluster.named_groups:
        if "labels" in part(group, "rayStartParams"):
            yield f"{where} has labels in rayStartParams; they belong into the group's own labels"
        for key, value in part(group, "labels").items():
            if not is_qualified_name(key) or not is_label_value(value):
                yield f"{where} has the label {key}={value}"


def suspended_groups_have_no_autoscaler(cluster: Cluster) -> Iterator[str]:
    if cluster.autoscales:
        yield from (f"worker group {group.get('groupName')} is suspended" for group in cluster.groups if group.get("suspend"))


def restart_policy_suits_autoscaler_v2(cluster: Cluster) -> Iterator[str]:
    if cluster.autoscales and cluster.is_v2:
        for where, group in cluster.named_groups:
            policy = pod_spec(group).get("restartPolicy")
            if policy not in (None, "", "Never"):
                yield f"{where} has restartPolicy {policy}; it must be Never or unset"


def group_idle_timeout_needs_autoscaler_v2(cluster: Cluster) -> Iterator[str]:
    for group in cluster.groups:
        timeout = group.get("idleTimeoutSeconds")
        if timeout is not None and timeout < 0:
            yield f"worker group {group.get('groupName')} has idleTimeoutSeconds {timeout}"
        if timeout is not None and not _has_v2(cluster):
            yield f"worker group {group.get('groupName')} has idleTimeoutSeconds, and autoscalerOptions.version is not v2"


def group_priority_needs_autoscaler_v2_and_ray_2_56(cluster: Cluster) -> Iterator[str]:
    version = version_numbers(cluster.spec.get("rayVersion"))
    for group in cluster.groups:
        if group.get("priority") and (version is None or version < (2, 56)):
            yield f"worker group {group.get('groupName')} has a priority, and rayVersion is {cluster.spec.get('rayVersion')}"
        if group.get("priority") and not _has_v2(cluster):
            yield f"worker group {group.get('groupName')} has a priority, and autoscalerOptions.version is not v2"


def _has_v2(cluster: Cluster) -> bool:
    return cluster.is_v2 or cluster.head_env.get(_AUTOSCALER_V2) in ("1", "true")


def autoscaler_version_is_said_once(cluster: Cluster) -> Iterator[str]:
    said = cluster.head_env.get(_AUTOSCALER_V2)
    if not cluster.autoscales and said in ("1", "true"):
        yield f"the head's environment has {_AUTOSCALER_V2}={said}, and enableInTreeAutoscaling is off"
    if cluster.autoscales and _AUTOSCALER_V2 in cluster.head_env and "version" in part(cluster.spec, "autoscalerOptions"):
        yield f"the head's environment has {_AUTOSCALER_V2}, and autoscalerOptions.version is set"


def autoscaler_options_are_in_range(cluster: Cluster) -> Iterator[str]:
    options = part(cluster.spec, "autoscalerOptions")
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield f"idleTimeoutSeconds is {options['idleTimeoutSeconds']}"
    if any(entry.get("name") == "KUBERAY_GEN_AUTOSCALER_START_CMD" for entry in options.get("env") or []):
        yield "env has KUBERAY_GEN_AUTOSCALER_START_CMD, which is KubeRay's own"


def fault_tolerance_is_configured_by_its_options_alone(cluster: Cluster) -> Iterator[str]:
    env, start = cluster.head_env, part(cluster.head, "rayStartParams")
    if cluster.fault_tolerance is None:
        if "RAY_REDIS_ADDRESS" in env and cluster.annotations.get("ray.io/ft-enabled", "").lower() != "true":
            yield "the head's environment has RAY_REDIS_ADDRESS, and there are no gcsFaultToleranceOptions"
    else:
        beside: list[str] = [name for name in ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS") if name in env]
        beside += ["rayStartParams redis-password"] if start.get("redis-password") else []
        beside += [name for name in ("ray.io/ft-enabled", "ray.io/external-storage-namespace") if cluster.annotations.get(name)]
        yield from (f"gcsFaultToleranceOptions are set, and so is {name}" for name in beside)
    if start.get("redis-username") or "REDIS_USERNAME" in env:
        yield "a Redis user is set outside gcsFaultToleranceOptions.redisUsername"


def fault_tolerance_fits_its_backend(cluster: Cluster) -> Iterator[str]:
    options = cluster.fault_tolerance
    if options is None:
        return
    if options.get("backend", "redis") != "rocksdb":
        if "storage" in options:
            yield "storage is for the backend rocksdb"
        return
    if "GCSFaultToleranceEmbeddedStorage" not in cluster.gates:
        yield "the backend rocksdb needs the operator's feature gate GCSFaultToleranceEmbeddedStorage"
    foreign = ("redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace")
    yield from (f"{key} is for the backend redis" for key in foreign if options.get(key))
    storage = part(options, "storage")
    if storage.get("claimName") and any(storage.get(key) for key in ("size", "storageClassName", "accessModes")):
        yield "storage.claimName excludes size, storageClassName and accessModes"
    yield from (f"the head's environment has {name}" for name in ("RAY_gcs_storage", "RAY_gcs_storage_path") if name in cluster.head_env)
    mounts = ray_container(cluster.head).get("volumeMounts") or []
    if any(mount.get("name") == "gcs-storage" or mount.get("mountPath") == "/data/gcs" for mount in mounts):
        yield "the head mounts gcs-storage or /data/gcs, which are KubeRay's own"
    if any(volume.get("name") == "gcs-storage" for volume in pod_spec(cluster.head).get("volumes") or []):
        yield "the head has a volume gcs-storage, which is KubeRay's own"


def token_authentication_has_a_ray_that_knows_it(cluster: Cluster) -> Iterator[str]:
    options = part(cluster.spec, "authOptions")
    by_kubernetes, version = options.get("enableK8sTokenAuth"), version_numbers(cluster.spec.get("rayVersion"))
    if options.get("mode") != "token":
        if by_kubernetes:
            yield "enableK8sTokenAuth needs mode token"
        return
    if version is None or version < (2, 52):
        yield f"mode token needs rayVersion 2.52.0 or later, it is {cluster.spec.get('rayVersion')}"
    elif by_kubernetes and version < (2, 55):
        yield f"enableK8sTokenAuth needs rayVersion 2.55.0 or later, it is {cluster.spec.get('rayVersion')}"
    if by_kubernetes and options.get("secretName"):
        yield "enableK8sTokenAuth excludes secretName"


def fields_behind_feature_gates_have_them(cluster: Cluster) -> Iterator[str]:
    gates = {
        "networkPolicy": "RayClusterNetworkPolicy",
        "tlsOptions": "RayClusterMTLS",
        "historyServerOptions": "RayClusterHistoryServer",
    }
    for field, gate in gates.items():
        if cluster.spec.get(field) is not None and gate not in cluster.gates:
            yield f"{field} needs the operator's feature gate {gate}"


def network_policy_of_kuberay_is_consistent(cluster: Cluster) -> Iterator[str]:
    policy = cluster.spec.get("networkPolicy")
    if policy is None:
        return
    names = [group.get("groupName", "") for group in cluster.groups]
    yield from (f"worker group {name!r} becomes part of a policy's name" for name in names if not DNS_LABEL.fullmatch(name))
    mode = policy.get("mode", "DenyAll")
    useless = {"DenyAllEgress": "ingressRules", "DenyAllIngress": "egressRules"}.get(mode)
    for entry in filter(None, [policy.get("head"), policy.get("worker"), *(policy.get("workerGroups") or [])]):
        if useless and entry.get(useless):
            yield f"{useless} have no meaning in mode {mode}"
    for entry in policy.get("workerGroups") or []:
        if entry.get("groupName") not in names:
            yield f"{entry.get('groupName')!r} is no worker group"


CLUSTER_RULES: dict[str, Callable[..., Iterable[str]]] = {
    rule.__name__: rule
    for rule in (
        group_names_are_distinct,
        group_name_is_a_label,
        every_group_has_a_container,
        replicas_are_within_their_bounds,
        resources_are_given_once,
        group_labels_are_labels,
        suspended_groups_have_no_autoscaler,
        restart_policy_suits_autoscaler_v2,
        group_idle_timeout_needs_autoscaler_v2,
        group_priority_needs_autoscaler_v2_and_ray_2_56,
        autoscaler_version_is_said_once,
        autoscaler_options_are_in_range,
        fault_tolerance_is_configured_by_its_options_alone,
        fault_tolerance_fits_its_backend,
        token_authentication_has_a_ray_that_knows_it,
        fields_behind_feature_gates_have_them,
        network_policy_of_kuberay_is_consistent,
    )
}
