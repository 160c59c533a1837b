"""What pods must be: Kubernetes' Pod Security level "restricted", and a few rules of the project's own.

The first part follows the Pod Security Standards, check by check; the second asks for what keeps a cluster of Ray alive and its secrets
secret. A check yields a line for each thing it has against a pod.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.k8s.ray_resources import part

__all__ = ["POD_CHECKS"]

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies"),
    *("net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout"),
    *("net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|(^|_)API_?KEY|ACCESS_KEY)", re.IGNORECASE)
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def _containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod["spec"].get(key) or []


def _contexts(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the security context of the pod and of each container."""
    yield "the pod", part(pod["spec"], "securityContext")
    yield from _container_contexts(pod)


def _container_contexts(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for container in _containers(pod):
        yield container["name"], part(container, "securityContext")


# --- Pod Security Standards ---


def no_host_namespaces(pod: dict[str, Any]) -> Iterator[str]:
    yield from (f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod["spec"].get(key))


def no_privileged_containers(pod: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name} is privileged" for name, context in _container_contexts(pod) if context.get("privileged"))


def all_capabilities_are_dropped(pod: dict[str, Any]) -> Iterator[str]:
    for name, context in _container_contexts(pod):
        capabilities = part(context, "capabilities")
        if "ALL" not in (capabilities.get("drop") or []):
            yield f"{name} does not drop ALL"
        yield from (f"{name} adds {added}" for added in capabilities.get("add") or [] if added != "NET_BIND_SERVICE")


def volumes_are_of_safe_types(pod: dict[str, Any]) -> Iterator[str]:
    for volume in pod["spec"].get("volumes") or []:
        yield from (f"volume {volume['name']} is a {kind}" for kind in volume if kind not in {"name", *_VOLUMES})


def no_host_ports(pod: dict[str, Any]) -> Iterator[str]:
    for container in _containers(pod):
        yield from (
            f"{container['name']} takes host port {port['hostPort']}" for port in container.get("ports") or [] if port.get("hostPort")
        )


def no_hosts_in_probes(pod: dict[str, Any]) -> Iterator[str]:
    for container in _containers(pod):
        hooks = [part(container, key) for key in _PROBES] + [part(part(container, "lifecycle"), key) for key in ("postStart", "preStop")]
        for action in (part(hook, key) for hook in hooks for key in ("httpGet", "tcpSocket")):
            if action.get("host"):
                yield f"{container['name']} probes the host {action['host']}"


def app_armor_is_on(pod: dict[str, Any]) -> Iterator[str]:
    for name, context in _contexts(pod):
        if part(context, "appArmorProfile").get("type", "RuntimeDefault") == "Unconfined":
            yield f"{name} is unconfined"


def selinux_options_are_safe(pod: dict[str, Any]) -> Iterator[str]:
    for name, context in _contexts(pod):
        options = part(context, "seLinuxOptions")
        if options.get("type", "") not in _SELINUX or options.get("user") or options.get("role"):
            yield f"{name} sets {options}"


def proc_is_masked(pod: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name} unmasks /proc" for name, context in _container_contexts(pod) if context.get("procMount", "Default") != "Default")


def sysctls_are_safe(pod: dict[str, Any]) -> Iterator[str]:
    names = [entry["name"] for entry in part(pod["spec"], "securityContext").get("sysctls") or []]
    yield from (f"{name} is set" for name in names if name not in _SYSCTLS)


def seccomp_is_on(pod: dict[str, Any]) -> Iterator[str]:
    contexts = list(_contexts(pod))
    whole = part(contexts[0][1], "seccompProfile").get("type")
    for name, context in contexts[1:]:
        if part(context, "seccompProfile").get("type", whole) not in ("RuntimeDefault", "Localhost"):
            yield f"{name} has no seccomp profile"


def privileges_cannot_grow(pod: dict[str, Any]) -> Iterator[str]:
    for name, context in _container_contexts(pod):
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name} allows escalation"


def nothing_runs_as_root(pod: dict[str, Any]) -> Iterator[str]:
    contexts = list(_contexts(pod))
    whole = contexts[0][1].get("runAsNonRoot")
    yield from (f"{name} runs as user 0" for name, context in contexts if context.get("runAsUser") == 0)
    yield from (f"{name} does not say runAsNonRoot" for name, context in contexts[1:] if context.get("runAsNonRoot", whole) is not True)


# --- the project's own ---


def root_file_system_is_read_only(pod: dict[str, Any]) -> Iterator[str]:
    for name, context in _container_contexts(pod):
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{name} can write to it"


def memory_is_guaranteed(pod: dict[str, Any]) -> Iterator[str]:
    """Ray's object store is sized by the limit: a pod that gets less than that is killed under load."""
    for container in pod["spec"]["containers"]:
        resources = part(container, "resources")
        requested, limit = (part(resources, key).get("memory") for key in ("requests", "limits"))
        if limit is None or (requested if requested is not None else limit) != limit:
            yield f"{container['name']} requests {requested} of memory and is limited to {limit}"


def cpu_is_requested(pod: dict[str, Any]) -> Iterator[str]:
    for container in pod["spec"]["containers"]:
        resources = part(container, "resources")
        if "cpu" not in {**part(resources, "limits"), **part(resources, "requests")}:
            yield f"{container['name']} requests no CPU"


def secrets_are_taken_by_reference(pod: dict[str, Any]) -> Iterator[str]:
    for container in _containers(pod):
        for entry in container.get("env") or []:
            if entry.get("value") and _SECRET_NAME.search(entry["name"]):
                yield f"{container['name']} has the value of {entry['name']}"


def images_have_a_version(pod: dict[str, Any]) -> Iterator[str]:
    for container in _containers(pod):
        image = str(container.get("image", ""))
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            yield f"{container['name']} runs {image or 'no image'}"


def mounts_have_their_volumes(pod: dict[str, Any]) -> Iterator[str]:
    """What an API server asks of a pod, and tells nobody while the pod is a template in a custom resource."""
    volumes = {volume["name"] for volume in pod["spec"].get("volumes") or []}
    for container in _containers(pod):
        mounts = container.get("volumeMounts") or []
        yield from (f"{container['name']} mounts {mount['name']}, which is no volume" for mount in mounts if mount["name"] not in volumes)
        paths = [mount["mountPath"] for mount in mounts]
        yield from (f"{container['name']} mounts {path} twice" for path in sorted({path for path in paths if paths.count(path) > 1}))


POD_CHECKS: dict[str, Callable[[dict[str, Any]], Iterable[str]]] = {
    check.__name__: check
    for check in (
        no_host_namespaces,
        no_privileged_containers,
        all_capabilities_are_dropped,
        volumes_are_of_safe_types,
        no_host_ports,
        no_hosts_in_probes,
        app_armor_is_on,
        selinux_options_are_safe,
        proc_is_masked,
        sysctls_are_safe,
        seccomp_is_on,
        privileges_cannot_grow,
        nothing_runs_as_root,
        root_file_system_is_read_only,
        memory_is_guaranteed,
        cpu_is_requested,
        secrets_are_taken_by_reference,
        images_have_a_version,
        mounts_have_their_volumes,
    )
}
