"""How large an object may be that is read whole."""

from echotrain.errors import StorageError

__all__ = ["check_size"]


def check_size(uri: str, size: int, limit: int) -> None:
    """Refuse an object of more bytes than are read of its kind.

    Raises:
        StorageError: Naming it, its size and the limit.
    """
    if size > limit:
        raise StorageError(
            uri, f"has {size} bytes, and at most {limit} are read of such an object", "It is damaged, or not what it is called."
        )
