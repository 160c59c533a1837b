"""The S3 server of the kind overlay, started here exactly as its pod starts it, but for the port, the folder and the kubelet."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from echotrain.errors import EchotrainError
from echotrain.storage.open import open_store
from tests.k8s.kustomize import build, named

pytestmark = [pytest.mark.helm, pytest.mark.usefixtures("kubectl")]

KEYS = {"AWS_ACCESS_KEY_ID": "echotrain", "AWS_SECRET_ACCESS_KEY": "0123456789abcdef"}


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Start the container's process; yield when the pod would be ready."""
    pod = named(build("overlays/kind"), "StatefulSet", "s3")["spec"]["template"]["spec"]
    port = free_port()
    moved = {"/data": str(tmp_path / "data"), "--addr=:9000": f"--addr=127.0.0.1:{port}", "--cache-dir=/tmp": f"--cache-dir={tmp_path}"}
    for init in pod["initContainers"]:
        subprocess.run([word.replace("/data", moved["/data"]) for word in init["command"]], check=True)
    (container,) = pod["containers"]
    # A variable of a container may stand on those before it.
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": "/nonexistent"}
    for each in container["env"]:
        value = KEYS[each["name"]] if "valueFrom" in each else re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], each["value"])
        environment[each["name"]] = value
    command = [moved.get(word, word) for word in [*container["command"], *container["args"]]]
    command[0] = shutil.which(command[0], path=environment["PATH"])
    process = subprocess.Popen(command, cwd="/", env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_port(port, process)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        yield tmp_path / "data"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def wait_for_port(port, process):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    pytest.fail("the server does not listen")


def test_the_bucket_is_there_and_keeps_what_is_written(server):
    store = open_store("s3://echotrain/runs/x4")
    store.write("LATEST", b"step 3")
    assert store.read("LATEST") == b"step 3"
    assert [info.key for info in store.list()] == ["LATEST"]
    assert (server / "echotrain/runs/x4/LATEST").read_bytes() == b"step 3"


def test_who_has_another_key_is_refused(server, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(EchotrainError, match="403"):
        open_store("s3://echotrain").read("LATEST")
