"""The API server of the tests' own: users, ServiceAccounts, strict CRDs, and a played kubelet."""

import json
import ssl
import threading
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from echotrain.errors import ResourceError
from tests.k8s.api_server import ApiServer, find_api_server
from tests.k8s.certificates import make_authority
from tests.k8s.cluster import Cluster, GivenCluster
from tests.k8s.crds import NEWEST, crd_files

CLUSTERS = "/apis/ray.io/v1/namespaces/default/rayclusters"


@pytest.fixture
def server(api_server: Cluster) -> ApiServer:
    """Return the cluster where it is the tests' own."""
    if not isinstance(api_server, ApiServer):
        pytest.skip("this is about the tests' own API server")
    return api_server


def role(server: ApiServer, name: str, subject: dict[str, str]) -> None:
    """Let somebody list pods."""
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    server.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": name}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    server.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)


@pytest.mark.cluster
@pytest.mark.helm
def test_a_user_may_do_what_the_users_group_may(server: ApiServer, kubectl: Path) -> None:
    role(server, "list-pods", {"kind": "Group", "name": "researchers", "apiGroup": "rbac.authorization.k8s.io"})
    anna, bert = server.as_user("anna", "researchers"), server.as_user("bert")
    assert server.run(kubectl, "auth", "can-i", "list", "pods", kubeconfig=anna).stdout == "yes\n"
    assert server.run(kubectl, "auth", "can-i", "list", "pods", kubeconfig=bert, check=False).stdout == "no\n"
    assert server.run(kubectl, "auth", "can-i", "create", "pods", kubeconfig=anna, check=False).stdout == "no\n"


@pytest.mark.cluster
@pytest.mark.helm
def test_a_service_account_gets_a_token_that_the_server_knows(server: ApiServer, kubectl: Path) -> None:
    server.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}})
    role(server, "robot", {"kind": "ServiceAccount", "name": "robot", "namespace": "default"})
    assert server.run(kubectl, "get", "pods", kubeconfig=server.as_service_account("default", "robot")).returncode == 0


@pytest.mark.cluster
def test_an_unknown_field_of_a_custom_resource_is_refused_where_one_asks_for_it(server: ApiServer) -> None:
    body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "typo"}, "spec": {"rayVersoin": "2.60.0"}}
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        server.request("POST", f"{CLUSTERS}?dryRun=All&fieldValidation=Strict", body)
    assert "rayVersoin" in json.loads(caught.value.read())["message"]


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[int]:
    """Answer every request over HTTPS with its path, as a kubelet would that has only logs."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    pair = make_authority(tmp_path, "kubelet").sign("node", "/CN=node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with HTTPServer(("127.0.0.1", 0), Echo) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_address[1]
        http.shutdown()


@pytest.mark.cluster
def test_logs_of_a_pod_come_from_whoever_plays_its_nodes_kubelet(server: ApiServer, kubelet: int) -> None:
    server.request("POST", "/api/v1/nodes", {"metadata": {"name": "node"}})
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet}}}
    node = server.request("GET", "/api/v1/nodes/node")
    server.request("PUT", "/api/v1/nodes/node/status", {**node, "status": status})
    spec = {"nodeName": "node", "containers": [{"name": "main", "image": "image"}]}
    server.request("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "talker"}, "spec": spec})
    log = server.request("GET", "/api/v1/namespaces/default/pods/talker/log?container=main&tailLines=5")
    assert log == "/containerLogs/default/talker/main?tailLines=5"


@pytest.mark.cluster
@pytest.mark.helm
def test_a_given_cluster_is_used_as_it_is(server: ApiServer, kubectl: Path, tmp_path: Path) -> None:
    given = GivenCluster(server.kubeconfig, kubectl, tmp_path)
    role(server, "given", {"kind": "Group", "name": "given", "apiGroup": "rbac.authorization.k8s.io"})
    assert given.run(kubectl, "auth", "can-i", "list", "pods", kubeconfig=given.as_user("anna", "given")).stdout == "yes\n"
    assert given.run(kubectl, "auth", "can-i", "list", "pods", kubeconfig=given.as_user("anna"), check=False).stdout == "no\n"
    server.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "given"}})
    role(server, "given-robot", {"kind": "ServiceAccount", "name": "given", "namespace": "default"})
    assert given.run(kubectl, "get", "pods", kubeconfig=given.as_service_account("default", "given")).returncode == 0
    given.install_crds(path for path in crd_files(NEWEST) if "rayclusters" in path.name)
    with pytest.raises(ResourceError, match=r"lacks the CRDs raycronjobs\.ray\.io, rayservices\.ray\.io"):
        given.install_crds(crd_files(NEWEST))


def test_a_folder_without_the_servers_is_named_with_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOTRAIN_API_SERVER", str(tmp_path))
    with pytest.raises(ResourceError, match=r"lacks etcd, kube-apiserver, apiextensions-apiserver.*make api-server"):
        find_api_server()


def test_a_given_kubeconfig_that_is_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="ECHOTRAIN_TEST_KUBECONFIG"):
        GivenCluster(tmp_path / "nothing", Path("kubectl"), tmp_path)
