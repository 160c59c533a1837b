"""Every error that echotrain raises on purpose.

A message says three things, in this order: the offending value, the limit it broke, and the remedy.
Arguments are positional so that an error survives the pickling between Ray processes. No message tells the password of an address.
"""

import unicodedata

from echotrain.redaction import without_credentials

__all__ = [
    "BartError",
    "CatalogError",
    "CheckpointError",
    "ClusterError",
    "ClusterUnreachableError",
    "ConfigError",
    "CredentialsError",
    "EchotrainError",
    "LaunchError",
    "LeakageError",
    "LeaseError",
    "NotFiniteError",
    "ObjectMissingError",
    "PayloadError",
    "ResourceError",
    "ScanError",
    "StorageError",
    "StorageFullError",
    "SubmissionError",
    "TrainingError",
    "printable",
]

# Besides the control characters proper: formats (bidirectional marks, zero widths), surrogates of names that are no UTF-8, line separators.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """Return a text on one line, without what moves a terminal's cursor, colours it, or forges a line: all that is escaped.

    File names may hold anything but a slash.
    """
    return "".join(_escaped(character) if unicodedata.category(character) in _UNPRINTABLE else character for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


class EchotrainError(Exception):
    """Base of all errors a user can act on."""

    def __init__(self, value: str, limit: str, remedy: str) -> None:
        value, limit, remedy = map(without_credentials, (value, limit, remedy))
        super().__init__(value, limit, remedy)
        self.value = value
        self.limit = limit
        self.remedy = remedy

    def __str__(self) -> str:
        # What is wrong may be a stranger's file name. The remedy is ours, and a submission's has a line for each of its problems.
        remedy = "\n".join(map(printable, self.remedy.split("\n")))
        return f"{printable(self.value)}: {printable(self.limit)}. {remedy}"


class ConfigError(EchotrainError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class ResourceError(EchotrainError):
    """The machine or cluster does not have what the run asks for."""


class ScanError(EchotrainError):
    """A scanner file is truncated, malformed, hostile, or not what its header says."""


class CatalogError(EchotrainError):
    """A catalog is missing, of another version, inconsistent, or a selection of it is empty."""


class LeakageError(CatalogError):
    """A patient, or data of a held-out split, would reach training."""


class PayloadError(EchotrainError):
    """The bytes of a slice are not those that the catalog promised."""


class StorageError(EchotrainError):
    """An object store or a file system failed after bounded retries."""


class ObjectMissingError(StorageError):
    """An object that was named does not exist."""


class CredentialsError(StorageError):
    """The object store refused the credentials: none, wrong, or expired."""


class StorageFullError(StorageError):
    """No space is left where something was to be written."""


class LeaseError(EchotrainError):
    """Another process writes to a run's or a sweep's folder, or has taken it over."""


class CheckpointError(EchotrainError):
    """A checkpoint is damaged, of another model, or not resumable by this run."""


class TrainingError(EchotrainError):
    """Training cannot go on: it has diverged, or workers died."""


class NotFiniteError(TrainingError):
    """A loss, a gradient or an image is not finite."""


class BartError(EchotrainError):
    """The BART toolbox failed, was killed, or took too long."""


class SubmissionError(EchotrainError):
    """A submission breaks its challenge's rules; the remedy has a line for each of its problems."""


class LaunchError(EchotrainError):
    """A job is not one that the operator's template, or the cluster, can run."""


class ClusterError(EchotrainError):
    """The Kubernetes API refused a request: no permission, no such object, an object that it does not take."""


class ClusterUnreachableError(ClusterError):
    """The Kubernetes API did not answer, or was cut off; jobs that run on the cluster go on."""
