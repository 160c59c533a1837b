"""What researchers may do, asked of a real API server."""

from pathlib import Path

import pytest

from tests.k8s.chart import Release, chart_for, make_namespace
from tests.k8s.cluster import Cluster
from tests.k8s.helm import Helm

pytestmark = [pytest.mark.cluster, pytest.mark.helm]

MAY = [
    "create rayjobs.ray.io",
    "get rayjobs.ray.io",
    "watch rayjobs.ray.io",
    "delete rayjobs.ray.io",
    "get rayclusters.ray.io",
    "get configmap/echotrain-rayjob",
    "list pods",
    "get pods --subresource=log",
    "list events",
    "list localqueues.kueue.x-k8s.io",
    "watch workloads.kueue.x-k8s.io",
]
MAY_NOT = [
    "create rayclusters.ray.io",
    "patch rayclusters.ray.io",
    "delete rayclusters.ray.io",
    "patch rayjobs.ray.io",
    "get secrets",
    "list secrets",
    "get secret/echotrain",
    "list configmaps",
    "get configmap/other",
    "create pods",
    "create pods --subresource=exec",
    "create pods --subresource=portforward",
    "create serviceaccounts --subresource=token",
    "create rolebindings.rbac.authorization.k8s.io",
]


@pytest.fixture(scope="module")
def release(helm4: Helm, api_server: Cluster, kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Return a release with a group, a user and a ServiceAccount of researchers."""
    chart = chart_for(api_server, tmp_path_factory.mktemp("rbac"))
    namespace = make_namespace(api_server, kubectl)
    release = Release(helm=helm4, cluster=api_server, kubectl=kubectl, namespace=namespace, chart=chart)
    release.install(
        "--set", "rbac.researchers.groups={mri},rbac.researchers.users={bert},rbac.researchers.serviceAccounts={pipeline-runner}"
    )
    return release


def can_i(release: Release, action: str, kubeconfig: Path, namespace: str = "") -> bool:
    flags = ("--namespace", namespace or release.namespace)
    done = release.cluster.run(release.kubectl, "auth", "can-i", *action.split(), *flags, kubeconfig=kubeconfig, check=False)
    assert done.stdout.strip() in {"yes", "no"}, done.stderr
    return done.stdout.strip() == "yes"


def test_researchers_may_run_jobs_and_nothing_else(release: Release):
    anna = release.cluster.as_user("anna", "mri")
    assert [action for action in MAY if not can_i(release, action, anna)] == []
    assert [action for action in MAY_NOT if can_i(release, action, anna)] == []


def test_every_kind_of_subject_is_bound_and_nobody_else(release: Release):
    runner = release.cluster.as_user(f"system:serviceaccount:{release.namespace}:pipeline-runner")
    for kubeconfig in (release.cluster.as_user("bert"), runner):
        assert can_i(release, "create rayjobs.ray.io", kubeconfig)
    assert not can_i(release, "create rayjobs.ray.io", release.cluster.as_user("carol", "surgeons"))


def test_rights_end_at_the_namespace(release: Release):
    anna = release.cluster.as_user("anna", "mri")
    assert not can_i(release, "create rayjobs.ray.io", anna, namespace="default")


def test_the_pods_account_is_given_nothing_by_the_chart(release: Release):
    """KubeRay gives it what the autoscaler needs; a token of it is in no other container (``test_chart_render.py``)."""
    pods = release.cluster.as_user(f"system:serviceaccount:{release.namespace}:echotrain")
    assert [action for action in (*MAY, *MAY_NOT) if can_i(release, action, pods)] == []
