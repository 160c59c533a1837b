"""Our signatures are botocore's."""

import datetime as dt

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from echotrain.storage.sigv4 import signed_get


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("target", ["/bucket/shards/a-00001.bin", "/bucket/with%20space%2B/%C3%BC.bin", "/key"])
def test_a_signature_equals_that_of_botocore(target: str, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_: now, raising=False)
    host, headers = "bucket.s3.eu-west-1.amazonaws.com", {"Range": "bytes=64-1000"}
    request = AWSRequest("GET", f"https://{host}{target}", headers=headers)
    S3SigV4Auth(Credentials("AKID", "secret", token), "s3", "eu-west-1").add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    own = signed_get(host, target, headers, region="eu-west-1", access_key="AKID", secret_key="secret", token=token, now=now)
    ours = {name.lower(): value for name, value in own.items()}
    assert theirs["x-amz-date"] == ours["x-amz-date"] == "20260304T050607Z"
    assert ours.get("x-amz-security-token") == theirs.get("x-amz-security-token") == token
    assert "SignedHeaders=host;range;" in ours["authorization"]
    assert ours["authorization"] == theirs["authorization"]
