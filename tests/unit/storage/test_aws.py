"""Clients of S3 are many and short-lived: what botocore knows of services is read once, what the environment says each time."""

from botocore.loaders import JSONFileLoader

from echotrain.storage.aws import s3_client


def test_a_second_client_reads_no_file_of_botocores_and_sees_the_environment_as_it_is_now(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    s3_client()
    read, load = [], JSONFileLoader.load_file
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda self, path: read.append(path) or load(self, path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    client = s3_client()
    assert read == []
    url = client.generate_presigned_url("get_object", Params={"Bucket": "lab", "Key": "key"})
    assert "second" in url
    assert "first" not in url
