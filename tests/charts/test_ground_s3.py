"""The S3 server of the kind overlay, started here exactly as its pod starts it, but for the port, the folder and the kubelet."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from echotrain.errors import EchotrainError
from echotrain.storage.embedded import free_ports
from echotrain.storage.open import open_store
from echotrain.storage.ranged import RangeReader
from tests.k8s.kustomize import build, named

pytestmark = [pytest.mark.helm, pytest.mark.usefixtures("kubectl")]

KEYS = {"AWS_ACCESS_KEY_ID": "echotrain", "AWS_SECRET_ACCESS_KEY": "0123456789abcdef"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Start the container's process; yield when the pod would be ready."""
    pod = named(build("overlays/kind"), "StatefulSet", "s3")["spec"]["template"]["spec"]
    port, *others = free_ports(5)
    moved = {"-dir=/data": f"-dir={tmp_path}", "-s3.port=9000": f"-s3.port={port}", "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1"}
    parts = [f"-{part}.port={other}" for part, other in zip(("master", "volume", "filer", "admin"), others, strict=True)]
    (container,) = pod["containers"]
    # A variable of a container may stand on those before it.
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": "/nonexistent"}
    for each in container["env"]:
        value = KEYS[each["name"]] if "valueFrom" in each else re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], each["value"])
        environment[each["name"]] = value
    command = [moved.get(word, word) for word in [*container["command"], *container["args"]]]
    command[0] = shutil.which(command[0], path=environment["PATH"])
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen([*command, *parts], cwd="/", env=environment, stdout=log, stderr=log, text=True)
        try:
            for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}.items():
                monkeypatch.setenv(name, value)
            wait_for_start(container["startupProbe"]["exec"]["command"], process, log)
            yield {"s3": port, "filer": others[2], "volume": others[1]}
        finally:
            process.terminate()
            process.wait(timeout=20)


def wait_for_start(probe, process, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if subprocess.run([sys.executable, *probe[1:]], check=False, capture_output=True).returncode == 0:
            return
        assert process.poll() is None, Path(log.name).read_text()
    pytest.fail("the server does not start")


def test_the_bucket_is_there_and_keeps_what_is_written(server):
    store = open_store("s3://echotrain/runs/x4")
    store.write("LATEST", b"step 3")
    assert store.read("LATEST") == b"step 3"
    assert [info.key for info in store.list()] == ["LATEST"]
    assert not store.write("LATEST", b"step 4", only_if_absent=True)


def test_what_is_a_range_is_answered_as_one(server):
    open_store("s3://echotrain").write("shard", b"0123456789")
    buffer = memoryview(bytearray(4))
    RangeReader().read_into("s3://echotrain/shard", 3, buffer)
    assert bytes(buffer) == b"3456"


def test_who_has_another_key_is_refused(server, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(EchotrainError, match="403"):
        open_store("s3://echotrain").read("LATEST")


@pytest.mark.parametrize("part", ["filer", "volume"])
def test_its_other_parts_hand_nothing_to_strangers(server, part):
    open_store("s3://echotrain").write("shard", b"secret" * 1000)
    with pytest.raises(urllib.error.HTTPError, match=r"401|403|404"):
        urllib.request.urlopen(f"http://127.0.0.1:{server[part]}/buckets/echotrain/shard", timeout=5)
