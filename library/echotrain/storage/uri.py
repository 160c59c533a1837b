"""What a URI says, before anything is opened."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from echotrain.errors import ConfigError

__all__ = ["SCHEMES", "BucketKey", "has_dots", "in_bucket", "local_path", "split_uri"]

# Of objects in buckets.
SCHEMES = ("s3", "gs", "az")
_FILE = "file://"


class BucketKey(NamedTuple):
    """A URI taken apart; the slash between bucket and key belongs to neither."""

    scheme: str
    bucket: str
    key: str


def split_uri(uri: str) -> BucketKey:
    """Take ``scheme://bucket/key`` apart; the key keeps every character."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return BucketKey(scheme, bucket, key)


def has_dots(key: str) -> bool:
    """Tell whether a key has a part that a URL takes for a step, here (``.``) or upwards (``..``)."""
    return not {".", ".."}.isdisjoint(key.split("/"))


def in_bucket(uri: str) -> bool:
    """Tell whether a URI names something in a bucket."""
    return uri.partition("://")[0] in SCHEMES and "://" in uri


def local_path(uri: str) -> Path | None:
    """Return the path that a URI names on this machine, or None where it names something else.

    A path is taken as it is; in a ``file://`` URI ``%20`` stands for a blank, and whatever else a path may hold for itself.

    Raises:
        ConfigError: The URI is empty, or a file of another machine.
    """
    if uri.startswith(_FILE):
        if not uri.startswith(f"{_FILE}/"):
            raise ConfigError(repr(uri), "names a file of another machine", "Write three slashes, file:///path, for one of this machine.")
        # No URI of a file has a query or a fragment: whoever writes a # or a ? means a file that is called so.
        return Path(unquote(uri.removeprefix(_FILE)))
    if "://" in uri:
        return None
    if not uri:
        raise ConfigError("an empty URI", "names no place", "Give a path or s3://bucket/prefix.")
    return Path(uri)
