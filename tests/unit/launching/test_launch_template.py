import copy
import json
import re
import shlex
import subprocess
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.data.formats.deidentify import SALT_VARIABLE
from echotrain.errors import LaunchError
from echotrain.launching.naming import MAX_NAME, check_name, job_name
from echotrain.launching.ordering import Choices, make_order
from echotrain.launching.places import check_places, shared_mounts
from echotrain.launching.template import JobOrder, fill, has_variable, parse_template, submit_command
from ray_jobs.launchable import VERBS
from tests.k8s.rayjob_template import VERSION, config_map, rayjob, template

COMMAND = ("python", "-m", "ray_jobs.train", "varnet_mosaic_x8")


def order(**changes):
    return JobOrder(**{"name": "knee-x8", "command": COMMAND, "group": "h100", "pods": 2, **changes})


def as_a_pod_runs_it(entrypoint: str, variables: dict[str, str]) -> list[str]:
    """Return the words that a driver gets: by way of the kubelet, KubeRay's shell, ray job submit and Ray's shell."""

    def expanded(found: re.Match) -> str:
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    expanded_text = re.sub(r"\$\$|\$\(([A-Za-z_]+)\)", expanded, entrypoint)
    show = ["bash", "-c", f"printf '%s\\0' {expanded_text}"]
    submitted = subprocess.run(show, capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    again = ["/bin/sh", "-c", f"printf '%s\\0' {shlex.join(submitted)}"]
    return subprocess.run(again, capture_output=True, check=True).stdout.decode().split("\0")[:-1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1), min_size=1, max_size=3))
def test_whatever_is_said_on_the_command_line_arrives_in_the_pod(words):
    assert as_a_pod_runs_it(submit_command(words), {"HOME": "/x"}) == words


@pytest.mark.parametrize(
    "word", ["$(HOME)", "$$", "$HOME", "data.mask={accelerations: [4, 8]}", "title='a \"b\"'; rm -rf /", "a\nb", "`id`", "*"]
)
def test_what_a_shell_or_a_kubelet_would_expand_arrives_as_it_is(word):
    assert as_a_pod_runs_it(submit_command(["python", word]), {"HOME": "/x"}) == ["python", word]


@pytest.mark.parametrize(
    ("environment", "may_have"),
    [
        ({}, False),
        ({"env": [{"name": "AWS_REGION", "value": "x"}]}, False),
        ({"env": [{"name": SALT_VARIABLE, "valueFrom": {"secretKeyRef": {"name": "deid", "key": SALT_VARIABLE}}}]}, True),
        # What a whole Secret brings is not known here.
        ({"envFrom": [{"secretRef": {"name": "anything"}}]}, True),
    ],
)
def test_whether_the_driver_may_find_the_key_of_the_pseudonyms_is_told_before_a_job_is_made(environment, may_have):
    manifest = rayjob()
    cluster = manifest["spec"]["rayClusterSpec"]
    cluster["headGroupSpec"]["template"]["spec"]["containers"][0].update(environment)
    one = parse_template(config_map(manifest=manifest), version=VERSION)
    assert has_variable(one, SALT_VARIABLE) == may_have
    asked = VERBS["prepare"].ask(["s3://raw", "--to", "s3://c"])
    client = SimpleNamespace(user="rita", namespace="team")
    if may_have:
        assert make_order("prepare", asked, one, Choices(), client).group == "data"
    else:
        with pytest.raises(LaunchError, match=r"no ECHOTRAIN_DEID_SALT.*deidentification\.existingSecret"):
            make_order("prepare", asked, one, Choices(), client)
    # Other verbs make no pseudonyms.
    make_order("filter", VERBS["filter"].ask(["s3://c", "--name", "n", "--anatomies", "knee"]), one, Choices(), client)


def test_filling_in_gives_the_group_its_pods_and_leaves_the_template_as_it_was():
    one = template()
    before = copy.deepcopy(one.manifest)
    spec = fill(one, order())["spec"]
    assert one.manifest == before
    groups = {
        group["groupName"]: (group["replicas"], group["minReplicas"], group["maxReplicas"])
        for group in spec["rayClusterSpec"]["workerGroupSpecs"]
    }
    assert groups == {"data": (0, 0, 0), "h100": (2, 2, 2)}
    assert spec["backoffLimit"] == 2
    assert spec["activeDeadlineSeconds"] == 86400


def test_a_job_of_the_head_alone_has_no_workers_whatever_the_template_has():
    manifest = rayjob()
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas=1, minReplicas=1, maxReplicas=4)
    one = parse_template(config_map(manifest=manifest), version=VERSION)

    def pods(**changes):
        groups = fill(one, order(**changes))["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        return {group["groupName"]: (group["replicas"], group["minReplicas"], group["maxReplicas"]) for group in groups}

    assert pods(group="", pods=0) == {"data": (0, 0, 0), "h100": (0, 0, 0)}
    assert pods() == {"data": (1, 1, 4), "h100": (2, 2, 2)}


def test_every_pod_of_a_job_carries_its_name():
    manifest = fill(template(), order())
    cluster = manifest["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"], {"template": manifest["spec"]["submitterPodTemplate"]}]
    assert {pod["template"]["metadata"]["labels"]["echotrain.io/job"] for pod in pods} == {"knee-x8"}
    assert len(pods) == 4


def test_a_priority_is_kueues_in_a_queue_and_the_pods_own_without_one():
    queued = fill(template(), order(queue="team-a", priority="high"))
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
    assert "priorityClassName" not in json.dumps(queued)
    plain = fill(template(), order(priority="high"))
    assert json.dumps(plain).count('"priorityClassName": "high"') == 4
    assert "kueue" not in json.dumps(plain)


@pytest.mark.parametrize("seconds", [0, 86401])
def test_a_time_limit_beyond_the_operators_is_refused(seconds):
    with pytest.raises(LaunchError, match="at most 24 h"):
        fill(template(), order(time_limit_s=seconds))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "is not the format 1"),
        ({"echotrain": "0.2.0"}, r"is not the 0\.1\.0 here.*helm upgrade"),
        ({"groups": {"data": {"cpus": 4, "gpus": 0}}}, r"groups\.data\.max in ConfigMap.*Field required"),
        ({"groups": {"a100": {"cpus": 4, "gpus": 0, "max": 1}}}, r"group a100: is in platform\.json and not in rayjob\.yaml"),
    ],
)
def test_a_template_that_does_not_fit_is_refused_with_who_can_help(changed, message):
    with pytest.raises(LaunchError, match=message):
        template(**changed)


def test_a_template_may_say_more_than_this_version_reads():
    assert template(novelty={"a": 1}).platform.storage == "s3://lab"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("kind",), "RayCluster", "is not a ray.io/v1 RayJob"),
        (("spec", "submissionMode"), "HTTPMode", "no submitter"),
        (("spec", "rayClusterSpec"), {}, "'headGroupSpec' is missing"),
        (("spec",), None, "is not a RayJob"),
    ],
)
def test_a_damaged_template_is_refused(path, value, message):
    manifest = rayjob()
    place = manifest
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(LaunchError, match=message):
        parse_template(config_map(manifest=manifest), version=VERSION)


@pytest.mark.parametrize("data", [{}, {"rayjob.yaml": "a: [", "platform.json": "{}"}, {"rayjob.yaml": "{}", "platform.json": "{"}])
def test_a_template_that_is_no_yaml_or_no_json_is_refused(data):
    with pytest.raises(LaunchError, match="Ask the operator"):
        parse_template({**config_map(), "data": data}, version=VERSION)


def test_a_template_with_the_token_in_the_environment_alone_is_refused():
    one = config_map()
    one["metadata"]["annotations"] = {"echotrain.io/auth": "environment"}
    with pytest.raises(LaunchError, match=r"set kuberay\.version"):
        parse_template(one, version=VERSION)


@given(st.text(min_size=1), st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True))
def test_any_words_make_a_name_that_kuberay_takes_and_that_ends_in_its_suffix(words, suffix):
    name = job_name(words, suffix)
    assert len(name) <= MAX_NAME
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert name.endswith(f"-{suffix}")


@pytest.mark.parametrize("name", ["", "8x", "Knee", "knee_x8", "knee-", "a" * 48])
def test_a_name_that_kuberay_would_refuse_is_refused(name):
    with pytest.raises(LaunchError):
        check_name(name)


def test_places_are_in_a_bucket_or_on_a_volume_that_head_and_workers_share():
    mounts = shared_mounts(rayjob(), "h100")
    assert mounts == ["/shared"]
    check_places({"a ": "s3://lab/a", "b ": "/shared/b", "c ": "file:///shared/c"}, mounts)
    for uri in ("/data", "runs", "/tmp/a", "file:///data", "/sharedx", ""):
        with pytest.raises(LaunchError, match=r"storage=.*Give an s3://"):
            check_places({"storage=": uri}, mounts)


def test_a_volume_of_the_workers_alone_is_not_shared():
    manifest = rayjob()
    head = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    head["containers"][0]["volumeMounts"] = []
    assert shared_mounts(manifest, "h100") == []


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "nodeTimeoutSeconds": 1, "groups": {"h100": {}}}'])
def test_a_template_whose_groups_cannot_be_read_is_refused(text):
    damaged = rayjob()
    damaged["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["annotations"] = {"echotrain.io/worker-groups": text}
    with pytest.raises(LaunchError, match=r"annotation echotrain.io/worker-groups.*Ask the operator"):
        parse_template(config_map(manifest=damaged), version=VERSION)
