"""A thin client of the Kubernetes API: plain objects in and out, and errors that say what to do."""

import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import urllib3
import urllib3.exceptions
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from echotrain.errors import ClusterError, ClusterUnreachableError, LaunchError

__all__ = ["ApiRefusalError", "KubeClient"]

# Where the chart is installed unless somebody says otherwise.
_DEFAULT_NAMESPACE = "echotrain"
_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CONNECT_S, _READ_S = 10.0, 30.0
# The server has trouble of its own, or asks for patience.
_PASSING = {429, 500, 502, 503, 504}
_NOT_PERMITTED = re.compile(r'User ".*" cannot ')

T = TypeVar("T")


class ApiRefusalError(ClusterError):
    """The API answered with an error; its ``status`` is the HTTP status."""

    def __init__(self, value: str, limit: str, remedy: str, status: int = 0) -> None:
        super().__init__(value, limit, remedy)
        self.status = status


class KubeClient:
    """The API server that a kubeconfig's context names, or, within a pod, that of its cluster.

    Args:
        context: Of the kubeconfig; "" takes the current one.
        namespace: "" takes the context's, else ``echotrain``.

    Attributes:
        context, user: As the kubeconfig calls them.
        namespace: Of every request.
        server: URL, for messages.

    Raises:
        LaunchError: There is no such context, or no kubeconfig.
    """

    def __init__(self, *, context: str = "", namespace: str = "") -> None:
        self._asked = context
        self.context, self.user, self.namespace = context, "", namespace
        self._api = self._load()
        self.namespace = self.namespace or _DEFAULT_NAMESPACE
        self.server = str(self._api.configuration.host)

    def get(self, path: str, **query: str) -> Any:
        """Return an object, or a list of them.

        Raises:
            ApiRefusalError: The server refuses; ``status`` says how.
            ClusterUnreachableError: It does not answer.
        """
        return self._json("GET", path, query)

    def post(self, path: str, body: Mapping[str, Any], **query: str) -> Any:
        """Create an object and return it; errors are those of ``get``."""
        return self._json("POST", path, query, body)

    def delete(self, path: str, body: Mapping[str, Any]) -> Any:
        """Delete an object; errors are those of ``get``."""
        return self._json("DELETE", path, {}, body)

    def lines(self, path: str, *, idle_s: float, **query: str) -> Generator[str]:
        """Yield the lines of an answer as they come, without their ends; a last one without an end was cut, and is left out.

        Args:
            path: Of a log or a watch.
            idle_s: Seconds without a byte after which the connection counts as lost.
            query: Of the request.

        Raises:
            ApiRefusalError, ClusterUnreachableError: As ``get``; also in the middle.
        """
        response = self._request("GET", path, query, None, idle_s)
        rest = b""
        try:
            while chunk := self._guarded(lambda: response.read1(1 << 16)):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace")
        finally:
            # Closed, not given back: what is left of an endless answer would be waited for.
            response.close()

    def _json(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None) -> Any:
        response = self._request(method, path, query, body, _READ_S)
        data = self._guarded(lambda: response.data)
        return json.loads(data) if data else None

    def _request(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None, read_s: float
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; one that is not let in is sent once more with fresh credentials."""
        response = self._send(method, path, query, body, read_s)
        if response.status == 401:
            self._api = self._load()
            response = self._send(method, path, query, body, read_s)
        if 200 <= response.status < 300:
            return response
        raise self._refusal(response.status, self._guarded(lambda: response.data))

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None, read_s: float
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
        request = self._api.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = self._guarded(lambda: self._api.call_api(*request, _request_timeout=(_CONNECT_S, read_s)).response)
        assert isinstance(response, urllib3.BaseHTTPResponse)
        return response

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        # The client makes an exception of its own, without a status, of TLS that is broken off.
        except (urllib3.exceptions.HTTPError, OSError, kubernetes_client.ApiException) as error:
            cause = getattr(error, "reason", None) or error
            if "CERTIFICATE" in str(cause):
                remedy = "Check certificate-authority of the context, or get a new kubeconfig."
            else:
                remedy = "Check the network (a VPN?), the context (--context) and, with kubectl get --raw /readyz, the server."
            where = f"the API server {self.server}" + (f" of context {self.context}" if self.context else "")
            raise ClusterUnreachableError(where, f"does not answer ({_short(cause)})", remedy) from error

    def _refusal(self, status: int, data: bytes) -> ClusterError:
        """Return the error for an HTTP status, by what the server says."""
        message = data.decode(errors="replace").strip()
        with suppress(ValueError, AttributeError):
            message = json.loads(data).get("message") or message
        who = f"user {self.user or 'of this pod'}"
        if status in _PASSING:
            limit = f"answers with HTTP {status} ({_short(message)})"
            return ClusterUnreachableError(f"the API server {self.server}", limit, "Try again, or tell the cluster's admin.")
        if status == 401:
            return ApiRefusalError(
                who,
                f"is not let in by {self.server} (HTTP 401)",
                "Log in to the cluster again.",
                status,
            )
        # Anything else that is forbidden (by a quota, a policy, the end of the namespace) is no matter of permissions.
        if status == 403 and _NOT_PERMITTED.search(message):
            remedy = "Ask the operator to name one of your groups in the chart's rbac.researchers.groups, or choose another --namespace."
            return ApiRefusalError(who, f"lacks a permission: {message}", remedy, status)
        return ApiRefusalError("the cluster", f"refuses this (HTTP {status}): {message}", "Correct it, or tell the operator.", status)

    def _load(self) -> kubernetes_client.ApiClient:
        """Read the kubeconfig; called again when credentials have run out, for its plug-ins then fetch new ones."""
        configuration = kubernetes_client.Configuration()
        try:
            self._read_config(configuration)
        except (kubernetes_config.ConfigException, OSError) as error:
            which = f"context {self._asked}" if self._asked else "the kubeconfig"
            remedy = "Let KUBECONFIG name one, choose a --context that kubectl config get-contexts shows, or ask the operator for one."
            raise LaunchError(which, f"cannot be used ({error})", remedy) from error
        # Retries are decided here, by who knows what a repeated request would do.
        configuration.retries = False
        return kubernetes_client.ApiClient(configuration)

    def _read_config(self, configuration: kubernetes_client.Configuration) -> None:
        is_given = bool(self._asked or os.environ.get("KUBECONFIG"))
        if not is_given and os.environ.get("KUBERNETES_SERVICE_HOST") and _ACCOUNT_NAMESPACE.is_file():
            kubernetes_config.load_incluster_config(client_configuration=configuration)
            self.namespace = self.namespace or _ACCOUNT_NAMESPACE.read_text().strip()
            return
        # Named, because the client remembers what KUBECONFIG was when it was imported.
        file = os.environ.get("KUBECONFIG") or None
        contexts, active = kubernetes_config.list_kube_config_contexts(file)
        chosen = next((each for each in contexts if each["name"] == self._asked), None) if self._asked else active
        if chosen is None:
            raise kubernetes_config.ConfigException(f"there is no context of this name; there are {', '.join(c['name'] for c in contexts)}")
        self.context = str(chosen["name"])
        self.user = str(chosen["context"].get("user", ""))
        self.namespace = self.namespace or str(chosen["context"].get("namespace", ""))
        kubernetes_config.load_kube_config(file, context=self.context, client_configuration=configuration)


def _short(cause: object) -> str:
    """Return an error without the object that it happened to."""
    return " ".join(str(cause).rpartition(">: ")[2].split()) or type(cause).__name__
