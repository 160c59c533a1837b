"""What a URI says, before anything is opened."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from echotrain.errors import ConfigError

__all__ = ["SCHEMES", "BucketKey", "local_path", "split_uri"]

# Of objects in buckets.
SCHEMES = ("s3", "gs", "az")


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


def local_path(uri: str) -> Path | None:
    """Return the path that a URI names on this machine, or None where it names something else."""
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    if "://" in uri:
        return None
    if not uri:
        raise ConfigError("an empty URI", "names no place", "Give a path or s3://bucket/prefix.")
    return Path(uri)
