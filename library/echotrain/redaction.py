"""What is shown of addresses: without the user and the password that may stand before the host.

``AWS_ENDPOINT_URL=https://user:password@host`` and ``HTTPS_PROXY`` are such, and libraries put them into their messages.
"""

import re
from typing import Any

__all__ = ["redacted", "without_credentials"]

# Of s3:// and file:// only what has a password: `s3://lab@3` is version 3 of a catalog.
_USER_INFO = re.compile(
    r"""(?ix) (?P<scheme> (?: \b [a-z][a-z0-9+.-]* : )? //) (?:
        (?<= [a-z0-9+.-] ://) (?<! s3://) (?<! file://) [^\s/?\#'"<>]* @                      # as RFC 3986 has it
        | [^\s/?\#'"<>@]* : [^\s/?\#'"<>]* @                            # of any scheme, where there is a password
        | (?! \[ ) [^\s/:@'"<>]+ : (?! \d+ (?: [/\s'"<>] | $ )) [^\s@'"<>]* @    # a slash that somebody forgot to encode
    )"""
)


def without_credentials(text: str) -> str:
    """Return a text with the user and the password taken out of every URL."""
    return _USER_INFO.sub(lambda found: found["scheme"], text) if "@" in text else text


def redacted(values: Any) -> Any:
    """Return nested plain values with every text as ``without_credentials`` gives it."""
    if isinstance(values, str):
        return without_credentials(values)
    if isinstance(values, dict):
        return {key: redacted(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(redacted(value) for value in values)
    return values
