"""An S3 bucket, or anything that speaks its protocol, as a store."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from boto3.exceptions import Boto3Error, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from s3transfer.exceptions import S3DownloadFailedError

from echotrain.errors import CredentialsError, ObjectMissingError, StorageError
from echotrain.storage.answers import TakenError, answer_error
from echotrain.storage.aws import s3_client
from echotrain.storage.local import atomic_file
from echotrain.storage.object_size import check_size
from echotrain.storage.retry import RetryPolicy, TransientError, retrying
from echotrain.storage.store import ObjectInfo

__all__ = ["S3Store"]

T = TypeVar("T")

_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=64 << 20, max_concurrency=4, num_download_attempts=2)


class S3Store:
    """Objects below ``s3://bucket/prefix``; see ``Store`` for what each method promises."""

    def __init__(self, uri: str, *, retry: RetryPolicy | None = None, timeout_s: float = 20.0) -> None:
        self._uri = uri.removesuffix("/")
        bucket, _, prefix = self._uri.removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._retry = retry or RetryPolicy()
        self._timeout_s = timeout_s
        self._client = s3_client(timeout_s=timeout_s)

    def __reduce__(self) -> tuple[Callable[..., "S3Store"], tuple[str]]:
        """Pickle as the URI alone: boto3 clients do not cross processes."""
        return (type(self), (self._uri,))

    @property
    def uri(self) -> str:
        """The URI this store was opened with, without a trailing slash."""
        return self._uri

    def read(self, key: str, *, at_most: int | None = None) -> bytes:
        """Return a whole object; of one of more bytes than ``at_most`` only the size is looked at, in the head of the same answer."""

        def get() -> bytes:
            answer = self._client.get_object(**self._at(key))
            with contextlib.closing(answer["Body"]) as body:
                if at_most is not None:
                    check_size(f"{self._uri}/{key}", int(answer["ContentLength"]), at_most)
                return bytes(body.read())

        return self._call(key, get)

    def read_range(self, key: str, first: int, last: int) -> bytes:
        """Return an object's bytes from ``first`` to ``last``, or as many of them as there are."""

        def get() -> bytes:
            answer = self._client.get_object(**self._at(key), Range=f"bytes={first}-{last}")
            with contextlib.closing(answer["Body"]) as body:
                told = str(answer.get("ContentRange", "all of them"))
                if not told.startswith(f"bytes {first}-"):
                    limit = f"the store answered a request for bytes {first} to {last} with others ({told})"
                    raise StorageError(f"{self._uri}/{key}", limit, "Use a store that serves ranged GETs, as S3 does.")
                return bytes(body.read())

        return self._call(key, get)

    def write(self, key: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """Write a whole object; with ``only_if_absent`` return False, unchanged, where it exists already.

        The check is atomic on servers that honour ``If-None-Match`` (AWS, MinIO, Ceph). On those that ignore it an object
        that exists is still seen, but of two writers at the same instant the later one wins.
        """
        if not only_if_absent:
            self._call(key, lambda: self._client.put_object(**self._at(key), Body=data))
            return True
        if self.size(key) is not None:
            return False
        tries = 0

        def put() -> None:
            nonlocal tries
            tries += 1
            self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*")

        try:
            self._call(key, put)
        except TakenError:
            # A retry after a lost answer meets our own object: it is ours if the bytes are.
            return tries > 1 and self.read(key) == data
        except _UnsupportedError:
            self._call(key, lambda: self._client.put_object(**self._at(key), Body=data))
        return True

    def upload(self, path: Path, key: str, *, consume: bool = False) -> None:
        """Copy a local file into the bucket, in parallel parts where it is large."""
        at = self._at(key)
        self._call(key, lambda: self._client.upload_file(str(path), at["Bucket"], at["Key"], Config=_TRANSFER))

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file; the file appears whole or not at all."""
        at = self._at(key)
        with atomic_file(path) as temporary:
            self._call(key, lambda: self._client.download_file(at["Bucket"], at["Key"], str(temporary), Config=_TRANSFER))

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None where there is none."""
        try:
            return int(self._call(key, lambda: self._client.head_object(**self._at(key)))["ContentLength"])
        except ObjectMissingError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with ``prefix``, in key order."""
        token: dict[str, str] = {}
        while True:
            arguments = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **token}
            page = self._call(prefix, lambda arguments=arguments: self._client.list_objects_v2(**arguments))  # type: ignore[misc]
            for found in page.get("Contents", ()):
                version = f"{found.get('ETag', '')} {found.get('LastModified', '')}"
                yield ObjectInfo(found["Key"].removeprefix(self._prefix), int(found["Size"]), version)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        self._call(key, lambda: self._client.delete_object(**self._at(key)))

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _call(self, key: str, action: Callable[[], T]) -> T:
        what = f"s3://{self._bucket}/{self._prefix}{key}"
        return retrying(lambda: _typed(what, action), what, self._retry)


class _UnsupportedError(StorageError):
    """The server knows no conditional writes."""


def _typed(what: str, action: Callable[[], T]) -> T:
    """Call ``action`` and turn boto3's errors into typed or transient ones."""
    try:
        return action()
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(error.response.get("Error", {}).get("Code", ""))
        answer = answer_error(what, status, "" if code.isdigit() else code)
        kind = {412: TakenError, 501: _UnsupportedError}.get(status)
        raise (answer if kind is None else kind(*answer.args)) from error
    except S3UploadFailedError as error:
        cause = error.__context__
        if isinstance(cause, ClientError | BotoCoreError):
            return cast(T, _typed(what, lambda: _raise(cause)))
        raise TransientError(str(error)) from error
    except (Boto3Error, S3DownloadFailedError) as error:  # Parts of a transfer broke off too often, or the object changed meanwhile.
        raise TransientError(str(error)) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise CredentialsError(
            what, f"no usable credentials ({error})", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ) from error
    except (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError, ConnectionError, TimeoutError) as error:
        raise TransientError(str(error)) from error
    except BotoCoreError as error:
        raise StorageError(what, str(error), "Check the URI and AWS_ENDPOINT_URL.") from error


def _raise(error: BaseException) -> Any:
    raise error
