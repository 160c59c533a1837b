"""What an S3 answer means: fine, try again, or a typed error that names the remedy."""

import re

from echotrain.errors import CredentialsError, ObjectMissingError, StorageError, StorageFullError
from echotrain.storage.retry import TransientError

__all__ = ["answer_error", "error_code"]

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_REFUSED = {
    "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "InvalidToken", "MissingSecurityHeader", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}  # fmt: skip
_ELSEWHERE = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect"}
_FULL = {"InsufficientStorage", "NoSpaceLeftOnDevice", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_TRANSIENT = {
    "ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
}  # fmt: skip
_MISSING = {"NoSuchKey", "NoSuchBucket", "NotFound"}


def error_code(body: bytes) -> str:
    """Return the ``<Code>`` of an S3 error document, or an empty string."""
    found = re.search(rb"<Code>\s*([A-Za-z0-9]+)\s*</Code>", body)
    return found.group(1).decode("ascii") if found else ""


def answer_error(what: str, status: int, code: str = "") -> Exception:
    """Return the error that an unsuccessful answer stands for.

    Args:
        what: The object's URI.
        status: HTTP status.
        code: The S3 error code, empty where the answer has no body.

    Returns:
        A ``TransientError`` where another attempt may help, else a typed ``StorageError``.
    """
    said = f"{status} {code}".rstrip()
    if code in _ELSEWHERE or status in (301, 302, 307, 308):
        return StorageError(what, f"the bucket is in another region ({said})", "Set AWS_REGION to the region of the bucket.")
    if code in _EXPIRED:
        return CredentialsError(
            what, f"the credentials have expired ({said})", "Renew them (aws sso login, or new AWS_SESSION_TOKEN) and run again."
        )
    if code in _REFUSED or status in (401, 403):
        return CredentialsError(
            what,
            f"the store refused the credentials ({said})",
            "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or AWS_PROFILE, and that they may reach this bucket.",
        )
    if code in _FULL or status == 507:
        return StorageFullError(what, f"no space is left in the store ({said})", "Free space or raise the quota, then run again.")
    if code in _MISSING or status == 404:
        return ObjectMissingError(what, f"does not exist ({said})", "Check the URI and AWS_ENDPOINT_URL, or prepare the data again.")
    if status == 412:
        return StorageError(what, f"a condition of the request does not hold ({said})", "Somebody else writes there; run again.")
    if status == 501:
        return StorageError(what, f"the store cannot do this ({said})", "Use a store that speaks S3.")
    if code in _TRANSIENT or status in (408, 429) or status >= 500:
        return TransientError(said)
    return StorageError(what, f"the store answered {said}", "Check the URI and the endpoint.")
