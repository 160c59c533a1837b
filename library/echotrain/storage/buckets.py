"""From the URI of an object to obstore's client of its bucket: S3, Google Cloud Storage, Azure Blob Storage.

Of S3, place, certificates and credentials are botocore's, as they are for boto3, so that both clients of a process talk to one server as
one user; of the others they are obstore's own: ``GOOGLE_APPLICATION_CREDENTIALS`` or a workload's identity, ``GOOGLE_BASE_URL``;
``AZURE_STORAGE_ACCOUNT_NAME`` with a key, a SAS or a workload's identity, ``AZURE_ENDPOINT``. Proxies are those of ``HTTPS_PROXY``,
``HTTP_PROXY`` and ``NO_PROXY``.
"""

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import botocore.session
from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from echotrain.errors import ConfigError, CredentialsError, StorageError
from echotrain.storage.aws import S3Place, s3_place
from echotrain.storage.uri import SCHEMES, has_dots, split_uri

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Credential

__all__ = ["Buckets", "Opened", "S3Address", "s3_address"]

# Longer than any request: what is bounded is silence. Retries are ours, which go on where a body broke off.
_WHOLE_REQUEST = dt.timedelta(days=1)
_NO_RETRIES: "RetryConfig" = {"max_retries": 0}
# obstore asks again five minutes before credentials end. botocore renews its own ten minutes before that at the latest.
_CREDENTIALS_LAST = dt.timedelta(minutes=8)


class Opened(NamedTuple):
    """An object: obstore's client, and the path that it knows the object by."""

    client: Any
    path: str


class Buckets:
    """Opens objects; each bucket's client, with its connections, is made once. For use by many threads.

    Args:
        timeout_s: Longest silence of a connection.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout = dt.timedelta(seconds=timeout_s)
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str, str | None], Any] = {}

    def open(self, uri: str) -> Opened:
        """Return the object that ``s3://bucket/key``, ``gs://bucket/key`` or ``az://container/key`` names; nothing is contacted.

        Raises:
            ConfigError: The settings of the store make no sense.
            CredentialsError: The credentials cannot be loaded.
            StorageError: No request can name such a key.
        """
        scheme, bucket, key = split_uri(uri)
        if scheme not in SCHEMES:
            raise ConfigError(repr(uri), "is in no store that is read", "Use a path, or s3://, gs:// or az://.")
        base, path = _split_key(uri, scheme, key)
        return Opened(self._known(scheme, bucket, base), path)

    def open_bucket(self, uri: str) -> Any:
        """Return the client of the bucket that an object or a prefix is in; errors are those of ``open``."""
        scheme, bucket, _ = split_uri(uri)
        return self._known(scheme, bucket, None)

    def close(self) -> None:
        """Let go of every client; its connections close when the last read is done."""
        with self._lock:
            self._clients.clear()

    def _known(self, scheme: str, bucket: str, base: str | None) -> Any:
        with self._lock:
            known = (scheme, bucket, base)
            if known not in self._clients:
                self._clients[known] = self._client(scheme, bucket, base)
            return self._clients[known]

    def _client(self, scheme: str, bucket: str, base: str | None) -> Any:
        options: ClientConfig = {
            "allow_http": True,  # The endpoint says which it is; the default ones are https.
            "timeout": _WHOLE_REQUEST,
            "connect_timeout": min(self._timeout, dt.timedelta(seconds=5)),
            "read_timeout": self._timeout,
        }
        try:
            if scheme == "gs":
                return GCSStore(bucket, client_options=options, retry_config=_NO_RETRIES)
            if scheme == "az":
                return AzureStore(bucket, client_options=options, retry_config=_NO_RETRIES)
            return _s3(bucket, base, options)
        except (BaseError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError(f"{scheme}://{bucket}", f"cannot be opened ({reason})", _REMEDIES[scheme]) from error


_REMEDIES = {
    "s3": "Correct the AWS_ variables or ~/.aws/config.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is.",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN.",
}


def _split_key(uri: str, scheme: str, key: str) -> tuple[str | None, str]:
    """Split a key where obstore would change it.

    Its paths have no empty parts: it drops a slash at either end and refuses two in a row, though S3 has such keys. The part up to the
    last such place, which is returned first, then counts as part of the bucket's address.
    """
    parts = key.split("/")
    if has_dots(key):
        raise StorageError(uri, "has '.' or '..' between slashes, which no request can carry", "Copy the object to another key.")
    empty = max((i for i, part in enumerate(parts) if not part), default=-1)
    if empty < 0:
        return None, key
    if scheme != "s3":
        raise StorageError(uri, "has an empty part between slashes, which only s3:// can read", "Copy the object to another key.")
    if empty == len(parts) - 1:
        return "/".join(parts[:-1]), ""
    return "/".join(parts[: empty + 1]), "/".join(parts[empty + 1 :])


class S3Address(NamedTuple):
    """Where obstore finds a bucket: ``endpoint/bucket/path``, or ``endpoint/path`` where the bucket is part of the host's name."""

    endpoint: str
    bucket: str
    is_in_host: bool


def s3_address(place: S3Place, bucket: str, base: str | None = None) -> S3Address:
    """Return the address of a bucket, or of what is below ``base/`` in it; it is the one that boto3 uses."""
    host = urlsplit(place.endpoint)
    # Certificates of AWS do not cover bucket names with a dot.
    if place.has_default_endpoint and "." not in bucket and base is None:
        return S3Address(f"{host.scheme}://{bucket}.{host.netloc}", bucket, is_in_host=True)
    below = bucket if base is None else f"{bucket}/{quote(base, safe='/-_.~')}"
    return S3Address(place.endpoint.rstrip("/"), below, is_in_host=False)


def _s3(bucket: str, base: str | None, options: "ClientConfig") -> S3Store:
    place = s3_place()
    address = s3_address(place, bucket, base)
    if place.ca_file:
        options = {**options, "root_certificate": _certificates(place.ca_file)}
    provider = _s3_credentials()
    return S3Store(
        address.bucket,
        region=place.region,
        # Both: obstore prefers the second, and would take it from the environment, where botocore may have been told to ignore it.
        endpoint=address.endpoint,
        aws_endpoint_url_s3=address.endpoint,
        virtual_hosted_style_request=address.is_in_host,
        skip_signature=provider is None,
        credential_provider=provider,
        client_options=options,
        retry_config=_NO_RETRIES,
    )


def _certificates(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"AWS_CA_BUNDLE={path}", f"cannot be read ({error.strerror})", "Name a file of certificates in PEM.") from error


def _s3_credentials() -> "Callable[[], S3Credential] | None":
    """Return what gives obstore the credentials that botocore finds and renews, or None where it finds none."""
    try:
        credentials = botocore.session.get_session().get_credentials()
    except BotoCoreError as error:
        raise CredentialsError("AWS credentials", f"cannot be loaded ({error})", "Set AWS_ACCESS_KEY_ID or AWS_PROFILE.") from error
    if credentials is None:
        return None

    def frozen() -> "S3Credential":
        now = credentials.get_frozen_credentials()
        until = dt.datetime.now(dt.UTC) + _CREDENTIALS_LAST
        return {"access_key_id": now.access_key, "secret_access_key": now.secret_key, "token": now.token, "expires_at": until}

    return frozen
