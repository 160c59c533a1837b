"""Where S3 is, settled once by botocore's own rules, so that all of our clients agree: environment, profile, AWS's defaults."""

import functools
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.httpsession
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from echotrain.errors import ConfigError

__all__ = ["S3Place", "s3_client", "s3_place"]


@dataclass(frozen=True, kw_only=True)
class S3Place:
    """How the store is reached.

    Attributes:
        endpoint: ``https://host``, of AWS or of a compatible server.
        region: To sign for.
        ca_file: Certificates that a server's is held against.
        is_aws: Whether this is AWS, where a bucket is part of the host's name; elsewhere it is part of the path.
    """

    endpoint: str
    region: str
    ca_file: str
    is_aws: bool


def s3_place() -> S3Place:
    """Return where S3 is for this process.

    ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` choose an S3-compatible server, ``AWS_REGION`` or ``AWS_DEFAULT_REGION`` the region,
    ``AWS_CA_BUNDLE`` the certificates; each may also stand in the profile that ``AWS_PROFILE`` names.

    Raises:
        ConfigError: botocore cannot make sense of the settings.
    """
    return _place(tuple((name, os.environ.get(name, "")) for name in _SETTINGS))


def s3_client(*, timeout_s: float = 20.0) -> Any:
    """Return a boto3 client that leaves retries to us."""
    place = s3_place()
    # Only an endpoint that botocore chose itself makes it put the bucket into the host's name.
    endpoint = None if place.is_aws else place.endpoint
    config = Config(
        connect_timeout=min(timeout_s, 5.0),
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "auto" if place.is_aws else "path"},
        # Many compatible servers cannot read the trailing checksums that newer clients send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=16,
    )
    return boto3.session.Session().client("s3", region_name=place.region, endpoint_url=endpoint, verify=place.ca_file, config=config)


_SETTINGS = (
    "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_DEFAULT_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_PROFILE", "AWS_REGION", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT",
)  # fmt: skip


@functools.lru_cache(maxsize=32)
def _place(settings: tuple[tuple[str, str], ...]) -> S3Place:
    try:
        session = boto3.session.Session()
        region = dict(settings)["AWS_REGION"] or session.region_name or "us-east-1"
        endpoint = str(session.client("s3", region_name=region).meta.endpoint_url)
        bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    except (BotoCoreError, ValueError) as error:
        said = ", ".join(f"{name}={value}" for name, value in settings if value)
        raise ConfigError(said or "the AWS settings", str(error), "Correct the AWS_ variables or ~/.aws/config.") from error
    host = urlsplit(endpoint).hostname or ""
    return S3Place(
        endpoint=endpoint,
        region=region,
        ca_file=str(bundle or botocore.httpsession.get_cert_path(True)),
        is_aws=host.endswith((".amazonaws.com", ".amazonaws.com.cn")),
    )
