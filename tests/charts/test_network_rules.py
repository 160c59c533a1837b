"""The evaluator of NetworkPolicies, on toy policies: each rule of networking.k8s.io/v1 that a chart's policies lean on."""

from typing import Any

import pytest

from tests.k8s.network import Machine, Network, Pod, matches

WEB = Pod(namespace="shop", labels={"app": "web"})
DATABASE = Pod(namespace="shop", labels={"app": "db"}, ports={"sql": 5432})
STRANGER = Pod(namespace="street", labels={"app": "web"})
OUTSIDE = Machine(address="203.0.113.7")


def policy(app: str | None, namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    """Return a policy for the pods of an app, or for all of the namespace."""
    selector = {} if app is None else {"matchLabels": {"app": app}}
    return {"kind": "NetworkPolicy", "metadata": {"namespace": namespace}, "spec": {"podSelector": selector, **spec}}


def ingress(*rules: dict[str, Any]) -> Network:
    """Return a network where the database takes connections by these rules."""
    return Network([policy("db", policyTypes=["Ingress"], ingress=list(rules))])


def egress(*rules: dict[str, Any]) -> Network:
    """Return a network where the web pods make connections by these rules."""
    return Network([policy("web", policyTypes=["Egress"], egress=list(rules))])


def test_pods_that_no_policy_selects_are_open():
    network = Network([policy("cache", policyTypes=["Ingress", "Egress"])])
    assert network.allows(STRANGER, DATABASE, 5432)
    assert network.allows(DATABASE, OUTSIDE, 22)


def test_a_policy_is_about_pods_of_its_own_namespace():
    network = Network([policy("web", namespace="street", policyTypes=["Egress"])])
    assert network.allows(WEB, OUTSIDE, 443)
    assert not network.allows(STRANGER, OUTSIDE, 443)


@pytest.mark.parametrize("rules", [{}, {"ingress": []}, {"ingress": None}])
def test_a_policy_without_rules_denies(rules: dict[str, Any]):
    assert not Network([policy(None, policyTypes=["Ingress"], **rules)]).allows(WEB, DATABASE, 5432)


def test_a_policy_without_types_is_of_ingress_and_of_egress_where_it_has_rules_for_it():
    assert Network([policy("db")]).allows(DATABASE, OUTSIDE, 443)
    assert not Network([policy("db")]).allows(WEB, DATABASE, 5432)
    assert not Network([policy("db", egress=[{"ports": [{"port": 53}]}])]).allows(DATABASE, OUTSIDE, 443)


@pytest.mark.parametrize("rule", [{}, {"from": []}, {"from": None}, {"ports": []}])
def test_a_rule_without_peers_and_ports_is_for_all(rule: dict[str, Any]):
    for source in (WEB, STRANGER, OUTSIDE):
        assert ingress(rule).allows(source, DATABASE, 5432, "UDP")


def test_policies_add_up():
    only_web = policy("db", policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}])
    street = policy("db", policyTypes=["Ingress"], ingress=[{"from": [{"namespaceSelector": {}}], "ports": [{"port": 1}]}])
    both = Network([only_web, street])
    assert both.allows(WEB, DATABASE, 5432)
    assert both.allows(STRANGER, DATABASE, 1)
    assert not both.allows(STRANGER, DATABASE, 5432)


def test_a_connection_must_be_allowed_at_both_ends():
    out = policy("web", policyTypes=["Egress"], egress=[{"ports": [{"port": 5432}]}])
    into = policy("db", policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}])
    assert Network([out, into]).allows(WEB, DATABASE, 5432)
    assert not Network([out, into]).allows(WEB, DATABASE, 5433)
    assert not Network([out, into]).allows(STRANGER, DATABASE, 5432)


def test_a_pod_selector_alone_is_of_the_policy_s_namespace():
    network = ingress({"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]})
    assert network.allows(WEB, DATABASE, 5432)
    assert not network.allows(STRANGER, DATABASE, 5432)
    assert not network.allows(OUTSIDE, DATABASE, 5432)


def test_selectors_of_one_peer_must_both_hold_and_peers_are_alternatives():
    street = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "street"}}}
    cache = {"podSelector": {"matchLabels": {"app": "cache"}}}
    assert not ingress({"from": [street | cache]}).allows(STRANGER, DATABASE, 5432)
    assert ingress({"from": [street, cache]}).allows(STRANGER, DATABASE, 5432)


def test_a_namespace_is_selected_by_its_labels():
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"team": "mri"}}}]}
    policies = [policy("db", policyTypes=["Ingress"], ingress=[rule])]
    assert Network(policies, {"street": {"team": "mri"}}).allows(STRANGER, DATABASE, 5432)
    assert not Network(policies).allows(STRANGER, DATABASE, 5432)


def test_an_address_range_is_for_machines_outside_alone():
    anywhere = egress({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})
    assert anywhere.allows(WEB, OUTSIDE, 443)
    assert not anywhere.allows(WEB, DATABASE, 5432)
    assert not anywhere.allows(WEB, Machine(address="10.0.0.1", is_node=True), 6443)
    assert egress({}).allows(WEB, Machine(address="10.0.0.1", is_node=True), 6443)


def test_an_address_range_has_exceptions():
    network = egress({"to": [{"ipBlock": {"cidr": "203.0.0.0/8", "except": ["203.0.113.0/24"]}}]})
    assert network.allows(WEB, Machine(address="203.1.1.1"), 443)
    assert not network.allows(WEB, OUTSIDE, 443)
    assert not network.allows(WEB, Machine(address="198.51.100.1"), 443)
    assert not network.allows(WEB, Machine(address="2001:db8::1"), 443)


def test_ports_are_numbers_ranges_and_names_of_one_protocol():
    def network(**port: Any) -> Network:
        return ingress({"ports": [port]})

    assert network(port=5432).allows(WEB, DATABASE, 5432)
    assert not network(port=5432).allows(WEB, DATABASE, 5432, "UDP")
    assert network(port=53, protocol="UDP").allows(WEB, DATABASE, 53, "UDP")
    assert network(port=1000, endPort=2000).allows(WEB, DATABASE, 2000)
    assert not network(port=1000, endPort=2000).allows(WEB, DATABASE, 2001)
    assert network(port="sql").allows(WEB, DATABASE, 5432)
    assert not network(port="sql").allows(WEB, DATABASE, 5433)
    assert not ingress({"ports": [{"port": "http"}]}).allows(WEB, DATABASE, 80)
    assert network(protocol="UDP").allows(WEB, DATABASE, 7, "UDP")
    assert not network(protocol="UDP").allows(WEB, DATABASE, 7)


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [
        ("In", ["web"], {"web"}),
        ("NotIn", ["web"], {"db", None}),
        ("Exists", None, {"web", "db"}),
        ("DoesNotExist", None, {None}),
    ],
)
def test_expressions_select_by_one_label(operator: str, values: list[str] | None, selected: set[str | None]):
    selector = {"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}
    assert {app for app in ("web", "db", None) if matches(selector, {"app": app} if app else {})} == selected


def test_an_empty_selector_selects_everything_and_all_parts_must_hold():
    assert matches({}, {})
    both = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}
    assert matches(both, {"app": "web", "tier": "1"})
    assert not matches(both, {"app": "web"})
