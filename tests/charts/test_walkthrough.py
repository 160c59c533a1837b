"""The walk-through of k8s/README.md: whatever needs no node is run, in order, in one shell; the rest is read."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from ray_jobs import launch
from ray_jobs.launchable import VERBS
from tests.k8s.chart import chart_for
from tests.k8s.crds import KUEUE, NEWEST
from tests.k8s.kustomize import GROUND, build, named

ROOT = GROUND.parent
README = GROUND / "README.md"
# What a test cannot have: machines that run pods, other people's servers, a container engine, accounts.
NEEDS = {"", "nodes", "internet", "containers", "aws", "gcloud", "wandb"}


@dataclass(frozen=True, kw_only=True)
class Block:
    line: int
    needs: str
    text: str


def blocks():
    """Return the shell blocks of the README in order."""
    found, start, needs, lines = [], 0, "", []
    for number, line in enumerate(README.read_text().splitlines(), start=1):
        opening = re.fullmatch(r"```sh(?: needs=(\w+))?", line)
        if opening:
            start, needs, lines = number, opening[1] or "", []
        elif line == "```" and start:
            found.append(Block(line=start, needs=needs, text="\n".join(lines)))
            start = 0
        elif start:
            lines.append(line)
    return found


BLOCKS = blocks()


def commands(text):
    """Yield the words of each command, continued lines joined; here-documents and loops are left to the shell."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if words:
            yield words[1:] if words[0] == "!" else words


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line {block.line}")
def test_every_block_is_shell_and_says_what_it_needs(block):
    assert block.needs in NEEDS
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_files_that_the_readme_names_exist():
    words = {word for block in BLOCKS for words in commands(block.text) for word in words}
    files = {word for word in words if re.match(r"(k8s|helm|sweeps)/", word) and "*" not in word}
    assert len(files) >= 5
    assert not {file for file in files if not (ROOT / file).exists()}


def test_the_launcher_takes_every_job_of_the_walk_through():
    seen = set()
    for words in (words for block in BLOCKS for words in commands(block.text)):
        if words[:3] == ["python", "-m", "ray_jobs.launch"]:
            mine, (verb, *arguments) = launch.split(words[3:])
            launch.own_parser().parse_args(mine)
            if verb not in launch.COMMANDS:
                VERBS[verb].ask(arguments)
            seen.add(verb)
    assert seen == {"prepare", "sweep", "list", "prune"}


def test_versions_are_those_that_the_charts_are_tested_with():
    text = README.read_text()
    kuberay, kueue = NEWEST.rpartition("-")[2], KUEUE.rpartition("-")[2]
    assert f"| {kuberay} (its CRDs" in text
    assert f"?ref=v{kuberay}" in text
    assert f"--version {kuberay} --skip-crds" in text
    assert f"| {kueue} |" in text
    assert f"/v{kueue}/manifests.yaml" in text
    for name in ("kube-prometheus-stack", "gpu-operator"):
        (version,) = re.findall(rf"{name} \S+/{name} --version v?([0-9.]+)", text)
        assert f"| {version} |" in text


def test_no_command_holds_a_secret():
    literals = re.findall(r"--from-literal=\w+=(\S+)", README.read_text())
    assert all(literal.startswith('"$') or literal == "echotrain" for literal in literals)


@pytest.mark.helm
@pytest.mark.usefixtures("kubectl")
def test_an_overlay_of_ones_own_names_groups_and_quotas(kubectl, tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    mine = yaml.safe_load(text)
    mine["resources"] = [os.path.relpath(GROUND / "overlays/eks", tmp_path)]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(mine))
    done = subprocess.run(
        [kubectl, "kustomize", "--load-restrictor=LoadRestrictionsNone", tmp_path], capture_output=True, text=True, check=True
    )
    documents = list(yaml.safe_load_all(done.stdout))
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        assert named(documents, kind, "echotrain-operators")["subjects"][0]["name"] == "mri-platform@example.org"
    changed, theirs = (
        named(each, "ClusterQueue", "echotrain")["spec"]["resourceGroups"][0]["flavors"][1]["resources"][3]
        for each in (documents, build("overlays/eks"))
    )
    assert (changed["name"], changed["nominalQuota"], theirs["nominalQuota"]) == ("nvidia.com/gpu", 8, 16)


@pytest.mark.helm
@pytest.mark.cluster
@pytest.mark.slow
def test_an_operator_who_types_the_walk_through_gets_to_the_sweep(api_server, helm, kubectl, tmp_path):
    if not api_server.is_own:
        pytest.skip("the walk-through is for an empty cluster: it would change the namespace echotrain of this one")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "helm").symlink_to(helm.executable)
    (tools / "kubectl").symlink_to(kubectl)
    here = tmp_path / "checkout"
    here.mkdir()
    for name in ("k8s", "ray_jobs", "sweeps"):
        (here / name).symlink_to(ROOT / name)
    (here / "helm").mkdir()
    (here / "helm/echotrain").symlink_to(chart_for(api_server, tmp_path))
    # The other Helm has walked here before.
    api_server.run(kubectl, "--namespace", "echotrain", "delete", "secret", "--all", check=False)
    # What Python does is the same beside either Helm: typed once.
    to_type = [block for block in BLOCKS if not block.needs and (helm.major == 4 or "python " not in block.text)]
    typed = "\n".join(f"echo '>> line {block.line}' >&2\n{block.text}" for block in to_type)
    done = api_server.run(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        f"cd {here}\n{typed}",
        check=False,
        env={
            "PATH": f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "library"),
            **{f"HELM_{name}_HOME": str(helm.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")},
        },
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    # Who may do what; a shell goes on after a ! that did not hold.
    assert re.findall(r"^(?:yes|no)$", done.stdout, re.MULTILINE) == ["yes", "no", "no", "yes"]
    if helm.major == 4:
        assert done.stdout.count("kueue.x-k8s.io/queue-name: echotrain") == 2  # The two jobs that would be made.
        assert len(list((here / "build/scans").rglob("*.h5"))) == 9
