"""Clients of S3 are many and short-lived: what botocore knows of services is read once, what the environment says each time."""

from botocore.loaders import JSONFileLoader

from echotrain.storage.aws import _models, s3_client


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


def test_clients_leave_no_trace_in_what_they_share(monkeypatch):
    """A session of boto3 adds a folder to search: thousands of clients would look into it as often."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_DATA_PATH", raising=False)
    s3_client()
    before = list(_models(None).search_paths)
    for _ in range(3):
        s3_client()
    assert _models(None).search_paths == before
    assert len(set(before)) == len(before)
