"""From a URI to a store."""

from echotrain.errors import ConfigError
from echotrain.storage.local import LocalStore
from echotrain.storage.store import Store
from echotrain.storage.uri import SCHEMES, local_path, split_uri

__all__ = ["absolute_uri", "join_uri", "local_path", "open_store", "store_of"]


def open_store(uri: str) -> Store:
    """Open a folder (``runs``, ``/data``, ``file:///data``) or a prefix of a bucket (``s3://``, ``gs://``, ``az://``) as a store.

    Nothing is contacted or made yet: a store that is not there is seen at the first read or write.

    Raises:
        ConfigError: The URI has another scheme, or no bucket.
    """
    path = local_path(uri)
    if path is not None:
        return LocalStore(path)
    scheme, bucket, _ = split_uri(uri)
    if scheme not in SCHEMES:
        remedy = "Give a path, file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."
        raise ConfigError(repr(uri), "is neither a folder nor in a bucket", remedy)
    if not bucket:
        raise ConfigError(repr(uri), "names no bucket", f"Write it as {scheme}://bucket/prefix.")
    # Their clients take half a second to import, which whoever works in folders alone need not wait for, nor have.
    if scheme == "s3":
        from echotrain.storage.s3 import S3Store

        return S3Store(uri)
    from echotrain.storage.bucket_store import BucketStore

    return BucketStore(uri)


def store_of(uri: str) -> tuple[Store, str]:
    """Return the store and the key of one object, or of the objects below a prefix: the key is what the URI says, letter by letter.

    The store is the folder of a path, and the whole bucket elsewhere: two slashes in a row, or one at either end, are as much of a key as
    any letter.

    Raises:
        ConfigError: As ``open_store``.
    """
    path = local_path(uri)
    if path is not None:
        return open_store(str(path.parent)), path.name
    scheme, bucket, key = split_uri(uri)
    return open_store(f"{scheme}://{bucket}"), key


def absolute_uri(uri: str) -> str:
    """Return a path made absolute, so that it means the same in another process; any other URI as it is."""
    path = local_path(uri)
    return uri if path is None else str(path.expanduser().absolute())


def join_uri(root: str, uri: str) -> str:
    """Return ``uri`` if it is absolute, else the object of that key below ``root``."""
    if "://" in uri or uri.startswith("/"):
        return uri
    return f"{root}{uri}" if root.endswith("/") else f"{root}/{uri}"
