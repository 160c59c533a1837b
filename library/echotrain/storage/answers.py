"""What a store's answer means: fine, try again, or a typed error that names the remedy."""

import re

from echotrain.errors import CredentialsError, ObjectMissingError, StorageError, StorageFullError
from echotrain.storage.retry import TransientError

__all__ = ["TakenError", "answer_error", "client_error", "error_code", "is_status"]

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_REFUSED = {
    "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "InvalidToken", "MissingSecurityHeader", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}  # fmt: skip
_ELSEWHERE = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect"}
_FULL = {"InsufficientStorage", "NoSpaceLeftOnDevice", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_TRANSIENT = {
    "ConditionalRequestConflict", "InternalError", "OperationAborted", "OperationTimedOut", "RequestTimeout", "ServerBusy",
    "ServiceUnavailable", "SlowDown", "Throttling",
}  # fmt: skip
_MISSING = {"NoSuchKey", "NoSuchBucket", "NotFound", "BlobNotFound", "ContainerNotFound"}

_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_ENDPOINT"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or the workload's service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or the workload's identity",
}
_CERTIFICATES = {"s3": "AWS_CA_BUNDLE", "gs": "SSL_CERT_FILE", "az": "SSL_CERT_FILE"}


class TakenError(StorageError):
    """A conditional write met an object that is there."""


def error_code(body: bytes) -> str:
    """Return the ``<Code>`` of an error document, or an empty string."""
    found = re.search(rb"<Code>\s*([A-Za-z0-9]+)\s*</Code>", body)
    return found.group(1).decode("ascii") if found else ""


def answer_error(what: str, status: int, code: str = "") -> Exception:
    """Return the error that an unsuccessful answer stands for.

    Args:
        what: The object's URI.
        status: HTTP status.
        code: The store's error code, empty where the answer has no body.

    Returns:
        A ``TransientError`` where another attempt may help, else a typed ``StorageError``.
    """
    said, scheme = f"{status} {code}".rstrip(), _scheme(what)
    if code in _ELSEWHERE or status in (301, 302, 307, 308):
        return StorageError(what, f"the bucket is in another region ({said})", "Set AWS_REGION to the region of the bucket.")
    if code in _EXPIRED:
        return CredentialsError(
            what, f"the credentials have expired ({said})", "Renew them (aws sso login, or new AWS_SESSION_TOKEN) and run again."
        )
    if code in _REFUSED or status in (401, 403):
        return CredentialsError(
            what, f"the store refused the credentials ({said})", f"Check {_CREDENTIALS[scheme]}, and that they may reach this bucket."
        )
    if code in _FULL or status == 507:
        return StorageFullError(what, f"no space is left in the store ({said})", "Free space or raise the quota, then run again.")
    if code in _MISSING or status == 404:
        return ObjectMissingError(what, f"does not exist ({said})", f"Check the URI and {_ENDPOINTS[scheme]}, or prepare the data again.")
    if status == 412:
        return StorageError(what, f"a condition of the request does not hold ({said})", "Somebody else writes there; run again.")
    if status == 501:
        return StorageError(what, f"the store cannot do this ({said})", "Use a store that speaks S3.")
    if code in _TRANSIENT or status in (408, 429) or status >= 500:
        return TransientError(said)
    return StorageError(what, f"the store answered {said}", "Check the URI and the endpoint.")


def is_status(error: Exception, status: int) -> bool:
    """Tell whether an error of obstore's stands for an answer of that HTTP status."""
    return _status(str(error)) == status


def client_error(what: str, error: Exception, *, silence_s: float) -> Exception:
    """Return what an error of obstore's stands for, as ``answer_error`` does.

    obstore says what happened in words alone. They hold the URL of the request, which may be signed, so that few are passed on.

    Args:
        what: The object's URI.
        error: Of obstore's.
        silence_s: Longest silence that was waited for.
    """
    said = str(error)
    if (status := _status(said)) is not None:
        return answer_error(what, status, error_code(said.encode()))
    scheme, kinds = _scheme(what), set(re.findall(r"\bkind: (\w+)", said))
    if isinstance(error, FileNotFoundError):
        return answer_error(what, 404)
    if "credential provider" in said or "token request" in said:
        reason = said.partition("\n")[0].rpartition("credential provider: ")[2][:200]
        return CredentialsError(what, f"the credentials could not be had ({reason})", f"Check {_CREDENTIALS[scheme]}; log in again.")
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return answer_error(what, 403)
    if "redirect without LOCATION" in said:
        return answer_error(what, 301)
    if "non-partial response" in said:
        limit = "the store answered a request for a range with the whole object (200)"
        return StorageError(what, limit, "Use a store that serves ranged GETs, as S3 does: `rclone serve s3` does not.")
    if isinstance(error, ValueError):
        return StorageError(what, said.partition("\n")[0], "Copy the object to another key.")
    if "UnknownIssuer" in said or "invalid peer certificate" in said:
        remedy = f"Check the endpoint; where its authority is your own, name its certificate in {_CERTIFICATES[scheme]}."
        return StorageError(what, "the server's certificate is not trusted", remedy)
    if "Timeout" in kinds:
        return TransientError(f"the store was silent for {silence_s:g} s")
    reason = next((words for kind, words in _REASONS.items() if kind in kinds), "")
    return TransientError(f"the connection failed{reason}") if kinds else TransientError(said.partition("\n")[0][:200])


_REASONS = {
    "ConnectionRefused": " (refused)", "ConnectionReset": " (reset)", "BrokenPipe": " (closed)", "UnexpectedEof": " (the body broke off)",
    "Connect": " (no connection; is the address right?)",
}  # fmt: skip


def _status(said: str) -> int | None:
    found = re.search(r"status code: (\d{3})", said)
    return int(found.group(1)) if found else None


def _scheme(what: str) -> str:
    scheme = what.partition("://")[0]
    return scheme if scheme in _ENDPOINTS else "s3"
