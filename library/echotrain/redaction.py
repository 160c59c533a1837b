"""What is shown of addresses: without the user and the password before the host, and the signatures and tokens of a query.

``AWS_ENDPOINT_URL=https://user:password@host`` and ``HTTPS_PROXY`` are such, as are pre-signed URLs, and libraries put them into
their messages.
"""

import re
from typing import Any

__all__ = ["redacted", "without_credentials"]

# Of s3:// and file:// only what has a password: `s3://lab@3` is version 3 of a catalog.
_USER_INFO = re.compile(
    r"""(?ix) (?P<scheme> (?: \b [a-z][a-z0-9+.-]{0,30} : )? //) (?:
        (?<= [a-z0-9+.-] ://) (?<! s3://) (?<! file://) [^\s/?\#'"<>]* @                      # as RFC 3986 has it
        | [^\s/?\#'"<>@]* : [^\s/?\#'"<>]* @                            # of any scheme, where there is a password
        # A slash that somebody forgot to encode. After at most five digits it may stand behind a port: of a host with a dot it does,
        # and where a version follows, not a host.
        | (?! \[ ) [^\s/:@'"<>]+ : (?! \d{1,5} (?: [/\s'"<>] | $ )) [^\s@'"<>]* @
        | (?! \[ | localhost: ) [^\s/:@'"<>.]+ : \d{1,5} / [^\s@'"<>]* @ (?! \d+ (?: [\s/'"<>,;:)] | $ ))
    )"""
)
# AWS, Google and Azure sign queries; others put a token there.
_QUERY_SECRET = re.compile(
    r"""(?ix) (?P<name>
        (?: [?&;] | %3F | %26 )
        (?: Signature | AWSAccessKeyId | GoogleAccessId | sig | (?: [a-z]{1,16} [_-]? )? token | api[_-]?key | password | secret )
        (?: = | %3D )
        | X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token) (?: = | %3D | ['"]? \s? : \s? (?: b?['"] )? )
    ) (?! [\s'"] ) [^\s&;\#'"<>]+"""
)
_HIDDEN = "***"


def without_credentials(text: str) -> str:
    """Return a text with the user and the password taken out of every URL, and what gives access in its query hidden."""
    text = _USER_INFO.sub(lambda found: found["scheme"], text) if "@" in text else text
    return _QUERY_SECRET.sub(lambda found: f"{found['name']}{_HIDDEN}", text)


def redacted(values: Any) -> Any:
    """Return nested plain values with every text as ``without_credentials`` gives it."""
    if isinstance(values, str):
        return without_credentials(values)
    if isinstance(values, dict):
        return {key: redacted(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(redacted(value) for value in values)
    return values
