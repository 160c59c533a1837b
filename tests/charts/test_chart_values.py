"""What the chart takes as values, and what it refuses before anything is made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.chart import CHART
from tests.k8s.helm import Helm

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Values of free keys: a label, an environment variable, a group by name.
FREE = {"commonLabels", "labels", "annotations", "nodeSelector", "env", "podAnnotations", "resources", "create", "training", "matchLabels"}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def schema_at(path: tuple[str, ...]) -> dict[str, Any] | None:
    here = SCHEMA
    for key in path:
        here = resolved(here)
        here = here.get("properties", {}).get(key, here.get("additionalProperties", None))
        if not isinstance(here, dict):
            return None
    return resolved(here)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].removeprefix("#/definitions/")]
    return schema


def paths(values: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield (*above, key)
            yield from paths(value, (*above, key))


def objects(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield where, schema
        for key, value in schema.items():
            yield from objects(value, f"{where}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from objects(value, f"{where}/{index}")


def test_every_value_is_in_the_schema():
    assert [path for path in paths(read(CHART / "values.yaml")) if schema_at(path) is None] == []


def test_the_schema_is_closed_at_every_level():
    open_objects = [where for where, schema in objects(SCHEMA) if schema.get("additionalProperties", True) is True]
    assert open_objects == ["/properties/global"], "an umbrella chart's globals are the only thing that is not this chart's to know"


def test_every_value_of_the_schema_has_a_default_but_those_of_groups_and_refused_secrets():
    defaults = set(paths(read(CHART / "values.yaml")))

    def leaves(schema: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for key, value in resolved(schema).get("properties", {}).items():
            if value.get("$ref", "").endswith(("refused", "group", "Affinity", "spill")) or key == "global":
                continue
            yield (*above, key)
            yield from leaves(value, (*above, key))

    assert [path for path in leaves(SCHEMA, ()) if path not in defaults] == []


@pytest.mark.helm
@pytest.mark.parametrize("path", [path for path in paths(read(CHART / "values.yaml")) if FREE.isdisjoint(path[:-1])], ids=".".join)
def test_a_misspelt_key_is_refused(helm4: Helm, tmp_path: Path, path: tuple[str, ...]):
    misspelt: Any = 1
    for key in reversed((*path[:-1], f"{path[-1]}x")):
        misspelt = {key: misspelt}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(misspelt))
    done = helm4.run("template", "echotrain", CHART, "--values", tmp_path / "values.yaml", check=False)
    assert done.returncode != 0
    assert f"additional properties '{path[-1]}x' not allowed" in done.stderr


GROUP = '{"cpu": 8, "memory": "64Gi", "shm": "16Gi", "spill": {"size": "50Gi"}, "gpus": 8, "minReplicas": 0, "maxReplicas": 2}'
AMD = GROUP.replace('"gpus"', '"gpuResource": "amd.com/gpu", "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], "gpus"')
REFUSED = {
    "a W&B key": (["wandb.apiKey=x"], "wandb.apiKey: a secret must not stand in values", "set wandb.existingSecret"),
    "an S3 key": (["storage.secretAccessKey=x"], "storage.secretAccessKey: a secret must not", "set storage.existingSecret"),
    "a Redis password": (["gcs.redis.password=x"], "gcs.redis.password: a secret must not", "set gcs.redis.existingSecret"),
    "a Ray token": (["auth.token=x"], "auth.token: a secret must not", "set auth.existingSecret"),
    "a salt": (["deidentification.salt=x"], "deidentification.salt: a secret must not", "set deidentification.existingSecret"),
    "a secret in the environment": (["pods.env.HF_TOKEN=x"], "pods.env.HF_TOKEN: looks like a secret", "pods.envFromSecrets"),
    "a password in an address": (["storage.endpoint=https://me:pass@s3.lab"], "storage.endpoint: has a user or password", "existingSecret"),
    "no storage": (["storage.uri="], "storage.uri: is empty", "Set storage.uri=s3://bucket/prefix"),
    "storage unset": (["storage.uri=null"], "storage.uri: is empty", "Set storage.uri=s3://bucket/prefix"),
    "a folder": (["storage.uri=/data"], "storage.uri=/data: pods share no disk", "s3://bucket/prefix"),
    "a bucket that no store has": (["storage.uri=az://my_runs"], "storage.uri=az://my_runs: pods share no disk", "az://container/prefix"),
    "the S3 server of the ground for Google": (
        ["storage.uri=gs://mri"],
        "storage.endpoint=http://s3.echotrain.svc.cluster.local:9000: is an S3 server",
        'Set storage.endpoint=""',
    ),
    "GPUs without tolerations": (
        [f"training.h100={GROUP}"],
        "training.h100: asks for GPUs and does not tolerate the taint nvidia.com/gpu",
        "key: nvidia.com/gpu, operator: Exists",
    ),
    "GPUs of another kind than the taint tolerated": (
        [f"training.mi300={AMD}"],
        "training.mi300: asks for GPUs and does not tolerate the taint amd.com/gpu",
        "key: amd.com/gpu, operator: Exists",
    ),
    "a Secret among own objects": (
        ['extraObjects=[{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"a": "b"}}]'],
        "extraObjects: Secret keys: a secret must not stand in values",
        "Make it with kubectl",
    ),
    "a name too long for KubeRay": (
        ["fullnameOverride=" + "a" * 51],
        "has 51 characters, and KubeRay takes 50",
        "Shorten the release's name",
    ),
    "a name that begins with a digit": (["fullnameOverride=3t"], "3t: KubeRay takes names of lower-case", "set fullnameOverride"),
    "a label of KubeRay's": (
        [r"commonLabels.app\.kubernetes\.io/created-by=me"],
        "commonLabels.app.kubernetes.io/created-by: is the chart's or KubeRay's",
        "Use a label of your own",
    ),
    "a group's name": ([f"training.H100={GROUP}"], "training.H100: names of groups", "Rename the group"),
    "a second data group": ([f"training.data={GROUP}"], "training.data: the name is taken", "Rename the training group"),
    "shared memory that is all memory": (["data.shm=6Gi"], "data.shm=6Gi: shared memory counts as memory", "Lower shm or raise memory"),
    "more pods at least than at most": (["data.minReplicas=3"], "data.minReplicas=3: is more than maxReplicas=2", "Raise maxReplicas"),
    "Redis without address": (["gcs.faultTolerance=redis"], "gcs.redis.address: is empty", "redis://HOST:6379"),
    "queues without a default": (["kueue.queues={a,b}"], "kueue.queue: is empty", "Name the queue"),
    "a default priority not offered": (["priorities.default=high"], "priorities.default=high: is not among", "Add it there"),
    "a Ray too old for tokens": (["ray.version=2.50.0"], "ray.version=2.50.0: token authentication needs Ray 2.52", "newer image"),
    "a KubeRay too old for tokens": (["kuberay.version=1.4.2"], "auth.mode=token: the installed KubeRay CRDs do not know it", "1.5.1"),
    "a KubeRay too old for Recreate": (
        ["kuberay.version=1.5.1", "cluster.upgradeStrategy=Recreate"],
        "cluster.upgradeStrategy=Recreate: the installed KubeRay CRDs do not know it, they are older than 1.6.0",
        "delete pods yourself",
    ),
    "a KubeRay too old for RocksDB": (
        ["kuberay.version=1.6.2", "gcs.faultTolerance=rocksdb"],
        "gcs.faultTolerance=rocksdb: the installed KubeRay CRDs do not know it",
        "or use redis",
    ),
}


@pytest.mark.helm
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_the_remedy(helm: Helm, case: str):
    settings, reason, remedy = REFUSED[case]
    flags = [part for setting in settings for part in ("--set-json" if ": " in setting else "--set", setting)]
    done = helm.run("template", "echotrain", CHART, *flags, check=False)
    assert done.returncode != 0
    assert reason in done.stderr
    assert remedy in done.stderr
