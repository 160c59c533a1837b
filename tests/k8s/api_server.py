"""A Kubernetes API server of the tests' own, on the loopback interface: real API code, no container engine.

Two servers share one etcd. In front stands kube-apiserver 1.20 (the newest that Debian's sources can build): core kinds, RBAC, Helm's
releases. Behind its aggregation layer an apiextensions-apiserver of today serves CRDs, so everything of KubeRay, Kueue and Prometheus is
handled by today's code: CEL, defaults, strict fields, server-side apply, and RBAC by real SubjectAccessReviews.

What follows from that, for who writes a test:

* There is no kubelet and no controller: a Pod stays pending, a Job makes no Pod, a deleted Namespace stays terminating (use a new one per
  test), owner references collect nothing, ``default`` has no ServiceAccount, and the ClusterRoles that others are aggregated into
  (``view``, ``edit``) are empty. ``helm --wait`` and ``helm test`` would wait for ever.
* Kinds and fields newer than 1.20 are unknown to the front: PodDisruptionBudget policy/v1, CronJob batch/v1, autoscaling/v2. Switch them
  off here; ``tests.k8s.schemas`` covers them.
* ``kubectl create`` of a custom resource warns about the versions' distance; ``kubectl create`` of a CRD needs ``--validate=false``.

    with ApiServer(find_api_server()) as server:
        server.install_crds(paths)
        server.run("helm", "install", ...)
"""

import contextlib
import itertools
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from echotrain.errors import ResourceError
from echotrain.storage.embedded import free_ports
from tests.k8s.certificates import Authority, KeyPair, make_authority, make_key
from tests.k8s.cluster import Cluster, read_documents
from tests.k8s.tools import cache_folder

__all__ = ["ApiServer", "find_api_server"]

_BINARIES = ("etcd", "kube-apiserver", "apiextensions-apiserver")
_START_TIMEOUT_S = 60.0
_CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SERVICE_PATH = "/apis/apiregistration.k8s.io/v1/apiservices"


def find_api_server() -> Path:
    """Return the folder of the servers' executables: what ``ECHOTRAIN_API_SERVER`` names, else that of ``make api-server``.

    Raises:
        ResourceError: One of them, or openssl, is missing.
    """
    named = os.environ.get("ECHOTRAIN_API_SERVER", "")
    folder = Path(named) if named else cache_folder() / "api-server" / "bin"
    missing = [name for name in _BINARIES if not os.access(folder / name, os.X_OK)]
    if missing:
        where = f"ECHOTRAIN_API_SERVER={named}" if named else "a Kubernetes API server"
        remedy = "Run make api-server (about 12 minutes, once), or let ECHOTRAIN_TEST_KUBECONFIG name a cluster for tests."
        raise ResourceError(where, f"lacks {', '.join(missing)}", remedy)
    if shutil.which("openssl") is None:
        raise ResourceError("openssl", "is not on PATH", "Install it: the API server needs certificates.")
    return folder


class ApiServer(Cluster):
    """Starts in about five seconds, takes about 1 GB of memory, and leaves nothing.

    Attributes:
        kubeconfig: Of an administrator (group system:masters).
        url: ``https://127.0.0.1:port`` of the front.
        folder: Certificates, kubeconfigs and logs; kept where the block ends with an error.
    """

    is_own = True

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "ApiServer":
        self.folder = Path(tempfile.mkdtemp(prefix="api-server-"))
        self._make_certificates()
        etcd_port, peer_port, self._front, self._behind = free_ports(4)
        self.url = f"https://127.0.0.1:{self._front}"
        self.kubeconfig = self._write_kubeconfig("admin", _client(self._admin))
        try:
            self._start_etcd(etcd_port, peer_port)
            shared = self._shared_flags(f"http://127.0.0.1:{etcd_port}")
            self._start_front(shared)
            self._wait("/readyz", self._front)
            self._start_behind(shared)
            self._wait("/readyz", self._behind)
            self._send_crds_behind()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request as administrator and return the JSON of the answer (text, where it is none).

        Raises:
            urllib.error.HTTPError: The server refused.
        """
        return self._request(method, path, body, self._front)

    def install_crds(self, paths: Iterable[Path]) -> None:
        """Install CRDs, or replace those of the same name (another release of the same project), and wait until they are served."""
        crds = sorted((crd for path in paths for crd in read_documents(path)), key=_group)
        routed: set[tuple[str, str]] = set()
        with ThreadPoolExecutor(4) as pool:
            for _, of_group in itertools.groupby(crds, _group):
                versions = {version for served in pool.map(self._put_crd, of_group) for version in served}
                # The front takes some seconds for each, and does so while the next group is installed.
                self.register(versions)
                routed |= versions
        for group, version in sorted(routed):
            self._wait(f"/apis/{group}/{version}", self._front)

    def remove_crds(self, paths: Iterable[Path]) -> None:
        """Remove CRDs and everything of their kinds."""
        for path in paths:
            for document in read_documents(path):
                self._request("DELETE", f"{_CRD_PATH}/{document['metadata']['name']}", None, self._behind)

    def register(self, versions: Iterable[tuple[str, str]]) -> None:
        """Route (group, version) pairs to the server behind.

        ``install_crds`` does so itself; where ``helm`` installs a chart's crds/, this has to be said before or after.
        """
        for group, version in sorted(versions):
            spec = {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 1000,
                "versionPriority": 15,
                "insecureSkipTLSVerify": True,
                "service": self._service,
            }
            with _unless(409):
                self.request("POST", _SERVICE_PATH, {"metadata": {"name": f"{version}.{group}"}, "spec": spec})

    def as_user(self, name: str, *groups: str) -> Path:
        """Return a kubeconfig with a client certificate of the user ``name``, in ``groups``."""
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={name}"
        file = f"user-{name.replace(':', '-')}"
        return self._write_kubeconfig(file, _client(self._clients.sign(file, subject)))

    def as_service_account(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig with a token of a ServiceAccount that exists."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = self.request("POST", path, {"spec": {"audiences": []}})["status"]["token"]
        return self._write_kubeconfig(f"account-{namespace}-{name}", {"token": token})

    def _make_certificates(self) -> None:
        self._clients: Authority = make_authority(self.folder, "clients")
        self._proxies: Authority = make_authority(self.folder, "proxies")
        self._admin = self._clients.sign("admin", "/O=system:masters/CN=admin")
        self._aggregator = self._proxies.sign("aggregator", "/CN=aggregator")
        self._server = self._clients.sign("server", "/CN=127.0.0.1", alternatives="IP:127.0.0.1,DNS:localhost")
        self._account_key = make_key(self.folder / "accounts.key")
        context = ssl.create_default_context(cafile=str(self._clients.certificate))
        context.load_cert_chain(self._admin.certificate, self._admin.key)
        # No proxy of the environment stands between a test and its own machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))

    def _shared_flags(self, etcd: str) -> list[str]:
        return [
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={self._server.certificate}",
            f"--tls-private-key-file={self._server.key}",
            f"--client-ca-file={self._clients.certificate}",
            f"--requestheader-client-ca-file={self._proxies.certificate}",
            "--requestheader-allowed-names=aggregator",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
        ]

    def _start_etcd(self, port: int, peer_port: int) -> None:
        clients, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        self._start(
            "etcd",
            "--data-dir=etcd",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )

    def _start_front(self, shared: list[str]) -> None:
        self._start(
            "kube-apiserver",
            *shared,
            f"--secure-port={self._front}",
            "--advertise-address=127.0.0.1",
            f"--service-account-key-file={self._account_key}",
            f"--service-account-signing-key-file={self._account_key}",
            "--service-account-issuer=https://127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            # Nobody makes the `default` ServiceAccounts that this plugin waits for.
            "--disable-admission-plugins=ServiceAccount",
            f"--proxy-client-cert-file={self._aggregator.certificate}",
            f"--proxy-client-key-file={self._aggregator.key}",
            # A test may play the kubelet of a Node with an InternalIP and a kubeletEndpoint port. No authority is given to check it by.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={self._admin.certificate}",
            f"--kubelet-client-key={self._admin.key}",
        )

    def _start_behind(self, shared: list[str]) -> None:
        self._start(
            "apiextensions-apiserver",
            *shared,
            f"--secure-port={self._behind}",
            "--etcd-prefix=/crds",
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            "--authentication-skip-lookup",
            "--enable-priority-and-fairness=false",
            # They watch kinds that the front is too old to have.
            "--disable-admission-plugins=MutatingAdmissionWebhook,ValidatingAdmissionWebhook,ValidatingAdmissionPolicy,MutatingAdmissionPolicy",
        )

    def _send_crds_behind(self) -> None:
        """Let the front send CRDs themselves to the newer server, where helm and kubectl then find them."""
        self._service = {"name": "crds", "namespace": "kube-system", "port": self._behind}
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": self._behind}]}
        self.request("POST", "/api/v1/namespaces/kube-system/services", {"metadata": {"name": "crds"}, "spec": spec})
        path = f"{_SERVICE_PATH}/v1.apiextensions.k8s.io"
        service = self.request("GET", path)
        service["spec"].update(service=self._service, insecureSkipTLSVerify=True)
        self.request("PUT", path, service)
        self._wait(_CRD_PATH, self._front)

    def _put_crd(self, crd: dict[str, Any]) -> list[tuple[str, str]]:
        """Install or replace one, and return its served (group, version) pairs."""
        crd = {key: value for key, value in crd.items() if key != "status"}
        strict = "fieldValidation=Strict"
        try:
            self._request("POST", f"{_CRD_PATH}?{strict}", crd, self._behind)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            path = f"{_CRD_PATH}/{crd['metadata']['name']}"
            there = self._request("GET", path, None, self._behind)
            metadata = {**crd["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}
            self._request("PUT", f"{path}?{strict}", {**crd, "metadata": metadata}, self._behind)
            # Nothing tells when the handlers of the old schema are gone; it takes some milliseconds.
            time.sleep(0.5)
        return [(crd["spec"]["group"], version["name"]) for version in crd["spec"]["versions"] if version["served"]]

    def _start(self, name: str, *flags: str) -> None:
        # Where this process is killed, Linux ends the servers too.
        tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        command = [*tied, str(self._binaries / name), *flags]
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()  # The state is thrown away: there is nothing to flush.
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def _wait(self, path: str, port: int) -> None:
        """Wait until a path is served."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and all(process.poll() is None for process in self._processes):
            try:
                self._request("GET", path, None, port)
            except OSError:  # URLError and HTTPError are OSErrors
                time.sleep(0.1)
            else:
                return
        raise ResourceError(
            f"the API server's {path}", f"did not answer within {_START_TIMEOUT_S:.0f} s", f"Read the logs in {self.folder}."
        )

    def _request(self, method: str, path: str, body: Any, port: int) -> Any:
        request = urllib.request.Request(
            f"https://127.0.0.1:{port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with self._opener.open(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] == b"{" else text.decode()

    def _write_kubeconfig(self, name: str, user: dict[str, str]) -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self._clients.certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": "tests", "cluster": cluster}],
            "contexts": [{"name": name, "context": {"cluster": "tests", "user": name}}],
            "users": [{"name": name, "user": user}],
        }
        path = self.folder / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path


def _group(crd: dict[str, Any]) -> str:
    name: str = crd["spec"]["group"]
    return name


def _client(pair: KeyPair) -> dict[str, str]:
    return {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}


@contextlib.contextmanager
def _unless(code: int) -> Any:
    """Let one HTTP status pass."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code != code:
            raise
