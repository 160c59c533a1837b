"""Where S3 is, settled once by botocore's own rules, so that all of our clients agree: environment, profile, AWS's defaults."""

import functools
import os
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.loaders
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, CredentialRetrievalError, PartialCredentialsError

from echotrain.errors import ConfigError, CredentialsError
from echotrain.redaction import without_credentials

__all__ = ["S3Place", "s3_client", "s3_place"]


_SETTINGS = (
    "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_DEFAULT_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_PROFILE", "AWS_REGION", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT",
    "REQUESTS_CA_BUNDLE",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class S3Place:
    """How the store is reached.

    Attributes:
        endpoint: ``https://host``, of AWS or of a compatible server; requests are signed, so a user and a password in it are of no use.
        region: To sign for.
        ca_file: Certificates that a server's is held against; empty where none were named, then each client has its own.
        has_default_endpoint: Whether it is AWS's own: then a bucket is part of the host's name, else of the path.
    """

    endpoint: str
    region: str
    ca_file: str
    has_default_endpoint: bool


def s3_place() -> S3Place:
    """Return where S3 is for this process.

    ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` choose an S3-compatible server, ``AWS_REGION`` or ``AWS_DEFAULT_REGION`` the region,
    ``AWS_CA_BUNDLE`` the certificates; each may also stand in the profile that ``AWS_PROFILE`` names.

    Raises:
        ConfigError: botocore cannot make sense of the settings.
    """
    return _place(tuple((name, os.environ.get(name, "")) for name in _SETTINGS))


def s3_client(*, timeout_s: float = 20.0) -> Any:
    """Return a boto3 client that leaves retries to us.

    Raises:
        ConfigError: botocore cannot make sense of the settings.
        CredentialsError: The credentials cannot be loaded.
    """
    place = s3_place()
    config = Config(
        connect_timeout=min(timeout_s, 5.0),
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "virtual" if place.has_default_endpoint else "path"},
        # Many compatible servers cannot read the trailing checksums that newer clients send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=16,
    )
    # An endpoint that is given would be asked for a bucket by path, whatever its name.
    endpoint = None if place.has_default_endpoint else place.endpoint
    try:
        return _session().client("s3", region_name=place.region, endpoint_url=endpoint, verify=place.ca_file or None, config=config)
    except (CredentialRetrievalError, PartialCredentialsError) as error:
        remedy = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        raise CredentialsError("AWS credentials", f"cannot be loaded ({error})", remedy) from error


def _session() -> boto3.session.Session:
    """Return a new session, which sees the environment as it is now; what botocore knows of services is read once."""
    session = botocore.session.get_session()
    models = _models(session.get_config_variable("data_path"))
    session.register_component("data_loader", models)
    made = boto3.session.Session(botocore_session=session)
    # Each session has added boto3's own folder once more, where files of a service are looked for.
    models.search_paths[:] = dict.fromkeys(models.search_paths)
    return made


@functools.cache
def _models(path: str | None) -> botocore.loaders.Loader:
    """Return what reads botocore's own data, and keeps it: megabytes of JSON, which every session would read anew."""
    return botocore.loaders.create_loader(path)


@functools.lru_cache(maxsize=32)
def _place(settings: tuple[tuple[str, str], ...]) -> S3Place:
    try:
        session = _session()
        region = dict(settings)["AWS_REGION"] or session.region_name or "us-east-1"
        # Unsigned, so that no credentials are looked for yet.
        asked = Config(signature_version=UNSIGNED)
        own = asked.merge(Config(ignore_configured_endpoint_urls=True))
        clients = (session.client("s3", region_name=region, config=kind) for kind in (asked, own))
        endpoint, default = (without_credentials(str(client.meta.endpoint_url)) for client in clients)
        bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    except (BotoCoreError, ValueError) as error:
        said, reason = ", ".join(f"{name}={value}" for name, value in settings if value), str(error)
        for value in (value for name, value in settings if "ENDPOINT" in name and "@" in value):
            # One that lacks its scheme is no URL, and has a password all the same.
            said, reason = (text.replace(value, value.rpartition("@")[2]) for text in (said, reason))
        # Not from the error: its own message has the address in full.
        raise ConfigError(said or "the AWS settings", reason, "Correct the AWS_ variables or ~/.aws/config.") from None
    return S3Place(
        endpoint=endpoint,
        region=region,
        ca_file=str(bundle or dict(settings)["REQUESTS_CA_BUNDLE"]),
        has_default_endpoint=endpoint == default,
    )
