"""What NetworkPolicies let through, read as networking.k8s.io/v1 says it, and where plug-ins differ as the strictest does.

network = Network(policies)
assert network.allows(worker, head, 6379)

A connection must be allowed where it leaves and where it arrives. Policies add up; a pod that none selects for a direction is open in it.
Not modelled: a pod and itself, host networking, and nodes as sources, whose kubelets are let through to their own pods.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.k8s.ray_resources import part

__all__ = ["Machine", "Network", "Pod", "matches", "pod_of"]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as policies see it.

    Attributes:
        namespace: Where it is.
        labels: Its own.
        ports: Numbers of the ports that it names.
    """

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is no pod.

    Attributes:
        address: IP.
        is_node: Whether it is a node of the cluster, such as one with the API server on it. Cilium as it comes takes no address range for
            one, 0.0.0.0/0 neither; only a rule without peers reaches it (cilium/cilium#20550).
    """

    address: str
    is_node: bool = False


class Network:
    """The pods' network under policies.

    Args:
        policies: NetworkPolicies, each with its namespace; documents of other kinds are passed over.
        namespaces: Labels of namespaces beyond ``kubernetes.io/metadata.name``, which each has.
    """

    def __init__(self, policies: Iterable[dict[str, Any]], namespaces: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._policies = [policy for policy in policies if policy["kind"] == "NetworkPolicy"]
        self._namespaces = namespaces or {}

    def allows(self, source: Pod | Machine, target: Pod | Machine, port: int, protocol: str = "TCP") -> bool:
        """Return whether a connection can be made; ``port`` is the target's own, which a Service's may differ from."""
        return all(
            self._lets_through(direction, end, peer, _ports(target), port, protocol)
            for direction, end, peer in (("Egress", source, target), ("Ingress", target, source))
            if isinstance(end, Pod)
        )

    def _lets_through(self, direction: str, pod: Pod, peer: Pod | Machine, names: Mapping[str, int], port: int, protocol: str) -> bool:
        policies = [policy for policy in self._policies if direction in _directions(policy) and _is_about(policy, pod)]
        rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        return not policies or any(
            self._has_peer(rule.get(peers), pod.namespace, peer) and _has_port(rule.get("ports"), names, port, protocol)
            for policy in policies
            for rule in policy["spec"].get(rules) or []
        )

    def _has_peer(self, peers: list[dict[str, Any]] | None, namespace: str, peer: Pod | Machine) -> bool:
        return not peers or any(self._is_peer(each, namespace, peer) for each in peers)

    def _is_peer(self, rule: dict[str, Any], namespace: str, peer: Pod | Machine) -> bool:
        if isinstance(peer, Machine):
            return "ipBlock" in rule and not peer.is_node and _is_within(rule["ipBlock"], peer.address)
        if "ipBlock" in rule:
            return False
        if rule.get("namespaceSelector") is None:
            is_near = peer.namespace == namespace
        else:
            labels = {"kubernetes.io/metadata.name": peer.namespace, **self._namespaces.get(peer.namespace, {})}
            is_near = matches(rule["namespaceSelector"], labels)
        return is_near and matches(rule.get("podSelector") or {}, peer.labels)


def pod_of(manifest: dict[str, Any]) -> Pod:
    """Return a Pod's manifest as policies see it."""
    metadata = manifest["metadata"]
    ports = [port for container in manifest["spec"]["containers"] for port in container.get("ports") or []]
    named = {port["name"]: port["containerPort"] for port in ports if "name" in port}
    return Pod(namespace=metadata["namespace"], labels=metadata.get("labels") or {}, ports=named)


def matches(selector: dict[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a LabelSelector selects; an empty one selects everything."""
    exact = all(labels.get(key) == value for key, value in part(selector, "matchLabels").items())
    return exact and all(_holds(each, labels) for each in selector.get("matchExpressions") or [])


def _holds(expression: dict[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    # A label that is absent is not in any set, which NotIn holds of.
    return {
        "In": key in labels and labels[key] in values,
        "NotIn": key not in labels or labels[key] not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]


def _directions(policy: dict[str, Any]) -> list[str]:
    spec = policy["spec"]
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _is_about(policy: dict[str, Any], pod: Pod) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and matches(part(policy["spec"], "podSelector"), pod.labels)


def _is_within(block: dict[str, Any], address: str) -> bool:
    one = ipaddress.ip_address(address)
    return one in ipaddress.ip_network(block["cidr"]) and all(one not in ipaddress.ip_network(cidr) for cidr in block.get("except") or [])


def _ports(target: Pod | Machine) -> Mapping[str, int]:
    return target.ports if isinstance(target, Pod) else {}


def _has_port(ports: list[dict[str, Any]] | None, names: Mapping[str, int], port: int, protocol: str) -> bool:
    return not ports or any(each.get("protocol", "TCP") == protocol and _is_port(each, names, port) for each in ports)


def _is_port(rule: dict[str, Any], names: Mapping[str, int], port: int) -> bool:
    first = rule.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return names.get(first) == port
    return bool(first <= port <= rule.get("endPort", first))
