"""The chart's pods, of every shape, against our checks and checkov's; what need not hold is argued in policy_exceptions.yaml."""

from pathlib import Path
from typing import Any

import pytest

from echotrain.errors import ResourceError
from tests.k8s.chart import CHART, SHAPES
from tests.k8s.helm import Helm
from tests.k8s.pod_checks import POD_CHECKS
from tests.k8s.pods import pods_of
from tests.k8s.policy import Finding, find_checkov, judge, read_exceptions, scan, scan_with_checkov

pytestmark = pytest.mark.helm

EXCEPTIONS = read_exceptions(Path(__file__).with_name("policy_exceptions.yaml"))


@pytest.fixture(scope="module")
def shapes(helm4: Helm) -> dict[str, list[dict[str, Any]]]:
    """Return what each shape renders."""
    flags = ("--namespace", "echotrain", "--set", "kuberay.version=1.7.0")
    rendered = {"default": helm4.template("echotrain", CHART, *flags)}
    return rendered | {name: helm4.template("echotrain", CHART, *flags, "--values", values) for name, values in SHAPES.items()}


def named(shape: str, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return documents with the shape in front of their names."""
    return [{**one, "metadata": {**one["metadata"], "name": f"{shape}-{one['metadata']['name']}"}} for one in documents]


@pytest.fixture(scope="module")
def pods(shapes: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the pods of all shapes."""
    return [pod for shape, documents in shapes.items() for pod in named(shape, pods_of(documents))]


def assert_argued(findings: list[Finding], checks_are_ours: bool) -> None:
    """Assert that each finding is argued, and each argument needed."""
    judgement = judge(findings, [one for one in EXCEPTIONS if (one.check in POD_CHECKS) == checks_are_ours])
    assert judgement.unargued == []
    assert judgement.stale == []


def test_pods_are_restricted_and_keep_the_projects_own_rules(pods: list[dict[str, Any]]) -> None:
    assert pods
    assert_argued(scan(pods), checks_are_ours=True)


def test_what_checkov_finds_is_argued(shapes: dict[str, list[dict[str, Any]]], pods: list[dict[str, Any]]) -> None:
    try:
        python = find_checkov()
    except ResourceError as error:
        pytest.skip(str(error))
    policies = [one for shape, documents in shapes.items() for one in named(shape, documents) if one["kind"] == "NetworkPolicy"]
    assert_argued(scan_with_checkov(pods, python, beside=policies), checks_are_ours=False)
