"""Installing, upgrading, going back and leaving, on a real API server with both Helms.

The known bugs of such charts are each a check that passes on this one and fails on a naive one.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.k8s.chart import NAIVE, SHAPES, MakeRelease, Release
from tests.k8s.manifests import read_manifests

pytestmark = [pytest.mark.cluster, pytest.mark.helm]

# The naive chart without the setting that is mistyped.
UNTYPED = ("--set", "autoscaler=null")


def group(release: Release, index: int = 0) -> dict[str, Any]:
    return release.raycluster()["spec"]["workerGroupSpecs"][index]


def image(release: Release) -> str:
    return group(release)["template"]["spec"]["containers"][0]["image"]


def lost(rendered: Any, stored: Any, path: str = "") -> list[str]:
    """Return the fields of a rendered object that the stored one lacks."""
    if isinstance(rendered, dict):
        return [
            name
            for key, value in rendered.items()
            if value is not None
            for name in (lost(value, stored[key], f"{path}.{key}") if isinstance(stored, dict) and key in stored else [f"{path}.{key}"])
        ]
    if isinstance(rendered, list):
        pairs = zip(rendered, stored, strict=True)
        return [name for index, (one, other) in enumerate(pairs) for name in lost(one, other, f"{path}[{index}]")]
    return []


def assert_nothing_is_lost(release: Release, *flags: str | Path) -> None:
    """Bug A: the server drops a field that it does not know, and Helm 3 says so in a line that nobody reads."""
    release.install(*flags)
    manifest = release.helm.on(release.cluster).run("get", "manifest", release.name, "--namespace", release.namespace).stdout
    rendered = next(document for document in read_manifests(manifest) if document["kind"] == "RayCluster")
    assert lost(rendered["spec"], release.raycluster()["spec"]) == []


def assert_upgrade_keeps_replicas(release: Release, *flags: str) -> None:
    """Bugs C and D: Helm 3 puts back its own number of workers, Helm 4 refuses, and forced puts it back as well."""
    release.install(*flags)
    release.scale(0, 2, marked=("pod-7",))
    release.upgrade(*flags, "--set", "image.tag=v2")
    assert image(release) == "echotrain:v2"
    assert group(release)["replicas"] == 2
    assert group(release)["scaleStrategy"] == {"workersToDelete": ["pod-7"]}


def test_no_field_is_lost_on_the_way_to_the_server(make: MakeRelease):
    assert_nothing_is_lost(make(), "--values", SHAPES["laptop"])


def test_a_field_lost_by_a_typing_error_would_be_seen(make: MakeRelease):
    with pytest.raises((AssertionError, RuntimeError), match="idleTimeoutSecs"):
        assert_nothing_is_lost(make(NAIVE))


def test_an_upgrade_keeps_what_the_autoscaler_wrote(make: MakeRelease):
    assert_upgrade_keeps_replicas(make())


def test_an_upgrade_that_scales_down_would_be_seen(make: MakeRelease):
    release = make(NAIVE)
    with pytest.raises(AssertionError, match="2"):
        assert_upgrade_keeps_replicas(release, *UNTYPED)
    assert group(release)["replicas"] == 0


def assert_old_pods_are_spoken_of(release: Release, *flags: str) -> None:
    """Bug E: a changed image changes no running pod, unless the strategy says so, and nobody notices."""
    release.install(*flags)
    said = release.upgrade(*flags, "--set", "image.tag=v2")
    assert image(release) == "echotrain:v2"
    assert "running pods of the standing cluster keep the old one" in said
    assert f"kubectl -n {release.namespace} delete pods -l ray.io/cluster=echotrain" in said


def test_old_pods_left_unspoken_of_would_be_seen(make: MakeRelease):
    with pytest.raises(AssertionError, match="keep the old one"):
        assert_old_pods_are_spoken_of(make(NAIVE), *UNTYPED)


def test_an_upgrade_says_what_becomes_of_running_pods(make: MakeRelease):
    release = make()
    assert_old_pods_are_spoken_of(release)
    assert "has not changed; nothing restarts" in release.upgrade("--set", "image.tag=v2", "--set", "rbac.researchers.groups={mri}")
    said = release.upgrade("--set", "image.tag=v3", "--set", "cluster.upgradeStrategy=Recreate")
    assert "KubeRay now replaces ALL pods" in said
    assert release.raycluster()["spec"]["upgradeStrategy"] == {"type": "Recreate"}


def test_scaling_is_no_change_of_the_pods(make: MakeRelease):
    release = make()
    release.install()
    release.scale(0, 2)
    assert "nothing restarts" in release.upgrade("--set", "data.maxReplicas=7")
    assert group(release)["replicas"] == 2
    assert group(release)["maxReplicas"] == 7


def test_replicas_stay_within_new_limits(make: MakeRelease):
    release = make()
    release.install("--set", "data.maxReplicas=8")
    release.scale(0, 8)
    release.upgrade("--set", "data.maxReplicas=3")
    assert group(release)["replicas"] == 3


def test_a_rollback_brings_back_the_old_pods_and_an_upgrade_to_the_old_values_their_number_too(make: MakeRelease):
    release = make()
    release.install()
    release.scale(0, 2)
    release.upgrade("--set", "image.tag=v2")
    release.rollback(1)
    assert image(release) == "echotrain:0.1.0"
    release.scale(0, 2)
    before = release.helm.on(release.cluster).run(
        "get", "values", "echotrain", "--namespace", release.namespace, "--revision", "1", "--output", "yaml"
    )
    release.upgrade("--values", "-", stdin=before.stdout)
    assert image(release) == "echotrain:0.1.0"
    assert group(release)["replicas"] == 2


def test_running_jobs_are_not_touched(make: MakeRelease):
    release = make()
    release.install()
    template = release.get("configmap", "echotrain-rayjob")["data"]["rayjob.yaml"]
    named = template.replace("metadata:\n", "metadata:\n  name: running\n", 1)
    release.cluster.run(release.kubectl, "create", "--namespace", release.namespace, "--filename=-", stdin=named)
    before = release.get("rayjob", "running")
    release.upgrade("--set", "image.tag=v2", "--set", "cluster.upgradeStrategy=Recreate")
    release.rollback(1)
    release.uninstall()
    assert release.get("rayjob", "running") == before


def test_uninstalling_leaves_nothing(make: MakeRelease):
    release = make()
    release.install("--values", SHAPES["spot"], "--set", "monitoring.podMonitor=true,monitoring.alerts=true,monitoring.dashboards=true")
    kinds = "rayclusters,rayjobs,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,podmonitors,prometheusrules"
    assert len(release.get(kinds)["items"]) > 8
    release.uninstall()
    names = [(item["kind"], item["metadata"]["name"]) for item in release.get(kinds)["items"]]
    assert [name for name in names if name not in {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}] == []
    classes = release.cluster.run(release.kubectl, "get", "priorityclasses", "--output=name").stdout
    assert "echotrain" not in classes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("kueue.queue=team-a", "kueue.queue=team-a: there is no such LocalQueue in namespace"),
        ("kueue.queue=team-a,kueue.clusterQueue=budget", "kueue.clusterQueue=budget: there is no such ClusterQueue"),
    ],
)
def test_a_queue_that_does_not_exist_is_refused(make: MakeRelease, flags: str, message: str):
    assert message in make().install("--set", flags, check=False)


def test_missing_secrets_are_named_with_the_way_to_make_them(make: MakeRelease):
    release = make()
    said = release.install("--set", "wandb.existingSecret=wandb")
    assert f"kubectl -n {release.namespace} create secret generic echotrain-s3 --from-literal=AWS_ACCESS_KEY_ID=…" in said
    assert f"kubectl -n {release.namespace} create secret generic wandb --from-literal=WANDB_API_KEY=…" in said
    keys = ("--from-literal=AWS_ACCESS_KEY_ID=a", "--from-literal=AWS_SECRET_ACCESS_KEY=b")
    release.cluster.run(release.kubectl, "create", "secret", "generic", "echotrain-s3", *keys, "--namespace", release.namespace)
    assert "echotrain-s3" not in release.upgrade()
