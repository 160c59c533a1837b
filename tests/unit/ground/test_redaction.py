"""No password of an address is shown: not in errors, not in logs, not by a verb, not to Weights & Biases."""

import io
import logging
import pickle

import pytest

from echotrain.errors import ConfigError, StorageError
from echotrain.log import setup_logging
from echotrain.redaction import redacted, without_credentials
from echotrain.storage.aws import s3_place
from echotrain.storage.open import open_store
from echotrain.storage.retry import RetryPolicy, TransientError, retrying
from ray_jobs import bench, evaluate, filter, prepare, reconstruct, report, train

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://user:{SECRET}@host/x", "https://host/x"),
        (f"HTTPS://user:{SECRET}@host", "HTTPS://host"),
        (f'to "http://user:{SECRET}@127.0.0.1:9000/b": x', 'to "http://127.0.0.1:9000/b": x'),
        (f"http://{SECRET}@host", "http://host"),
        (f"http://:{SECRET}@host", "http://host"),
        (f"https://user:p@{SECRET}@host/x", "https://host/x"),
        (f"https://user:{SECRET}/x@host/y", "https://host/y"),
        (f"http://user:1234/{SECRET}@h", "http://h"),
        ("http://user:1234/5@h", "http://h"),
        ("http://user:1234/5@h:9000/b", "http://h:9000/b"),
        ("http://jane.doe:123456/5@h", "http://h"),
        ("http://user:12/3/4@10.0.0.1/b", "http://10.0.0.1/b"),
        (f"https://user:{SECRET}%2F@host", "https://host"),
        (f"socks5h://u:{SECRET}@proxy:1080, https://u:{SECRET}@b", "socks5h://proxy:1080, https://b"),
        (f"s3://key:{SECRET}@bucket/x", "s3://bucket/x"),
        (f"//u:{SECRET}@h", "//h"),
        (f"a=https://u:{SECRET}@h\nb=https://u:{SECRET}@h", "a=https://h\nb=https://h"),
    ],
)
def test_user_and_password_are_taken_out_of_every_url(text, shown):
    assert without_credentials(text) == shown
    assert without_credentials(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://lab@3", "//data@3", "s3://lab/knee@3", "s3://lab/user@site/x", "/data/knee@3", "https://host.lab:9000/user@site",
        "http://localhost:9000/user@site", "http://10.0.0.1:9000/b/u@x", "http://minio:9000/lab/knee@3",
        "http://minio:9000/b", "http://[::1]:9000/a@b",
        "mail me@host.org", "file:///data/a@3", "https://host/?q=a@b", "runs/a:b@3",
    ],
)  # fmt: skip
def test_what_is_no_password_stays(text):
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Credential={SECRET}%2F1%2Fus&X-Amz-Security-Token={SECRET}&X-Amz-Signature={SECRET}",
            "https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Credential=***&X-Amz-Security-Token=***&X-Amz-Signature=***",
        ),
        (f"'https://h/k?sv=1&sig={SECRET}%3D' is gone", "'https://h/k?sv=1&sig=***' is gone"),
        (f"https://h/k?token={SECRET}#x", "https://h/k?token=***#x"),
        (f"https://h/k?access_token={SECRET}&a=b", "https://h/k?access_token=***&a=b"),
        (f"https://h/k?AWSAccessKeyId={SECRET}&Expires=1&Signature={SECRET}", "https://h/k?AWSAccessKeyId=***&Expires=1&Signature=***"),
        (f"https://h/k?x-goog-signature={SECRET}", "https://h/k?x-goog-signature=***"),
        (f"https%3A%2F%2Fh%2Fk%3FX-Amz-Signature%3D{SECRET}", "https%3A%2F%2Fh%2Fk%3FX-Amz-Signature%3D***"),
        (f"{{'X-Amz-Security-Token': b'{SECRET}', 'a': 'b'}}", "{'X-Amz-Security-Token': b'***', 'a': 'b'}"),
        (f"https://u:{SECRET}@h/k?sig={SECRET}", "https://h/k?sig=***"),
    ],
)
def test_what_gives_access_in_a_query_is_hidden(text, shown):
    assert without_credentials(text) == shown
    assert without_credentials(shown) == shown
    assert SECRET not in str(StorageError(text, text, text))


@pytest.mark.parametrize("text", ["tokens=3", "https://h/k?tokenizer=bpe", "https://h/k?page=2&signal=7", "sig=3", "https://h/token=x/y"])
def test_what_only_resembles_a_secret_of_a_query_stays(text):
    assert without_credentials(text) == text


@pytest.mark.timeout(60)
def test_a_long_text_is_redacted_without_going_over_it_again_and_again():
    for text in ("?token" * 20_000, "?" + "a" * 100_000, "X-Amz-Signature" * 10_000 + " @", "a-" * 50_000 + " @", "//a:1/" * 1000 + " @"):
        assert without_credentials(text)


def test_nested_values_are_cleaned_too():
    url = f"https://u:{SECRET}@h"
    assert redacted({"a": [url, 1, None], "b": {"c": (url,)}}) == {"a": ["https://h", 1, None], "b": {"c": ("https://h",)}}


def test_an_error_never_holds_a_password_nor_does_its_copy_in_another_process():
    error = StorageError(f"https://u:{SECRET}@h/x", f"failed at http://u:{SECRET}@p", f"Check https://{SECRET}@h.")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert SECRET not in str(each) + repr(each) + each.value + each.limit + each.remedy
        assert str(each) == "https://h/x: failed at http://p. Check https://h."


def test_logs_show_no_password_not_even_in_a_traceback(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        setup_logging()
        logging.getLogger("botocore").warning("Connecting to %s", f"https://u:{SECRET}@h")
        try:
            raise ValueError(f"Invalid endpoint: https://u:{SECRET}@h")
        except ValueError:
            logging.getLogger("echotrain").exception("broke")
    finally:
        root.handlers[:], root.level = before
    assert "Connecting to https://h" in stream.getvalue()
    assert "Invalid endpoint: https://h" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_a_retry_names_the_place_alone(caplog):
    def fail():
        raise TransientError(f'Could not connect to the endpoint URL: "http://u:{SECRET}@h/b"')

    with caplog.at_level("INFO"), pytest.raises(StorageError, match="http://h/b"):
        retrying(fail, "s3://b/x", RetryPolicy(attempts=2, first_delay_s=0.001))
    assert "http://h/b" in caplog.text
    assert SECRET not in caplog.text


def test_what_runs_without_network_speaks_of_endpoints_without_passwords(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9/prefix")
    place = s3_place()
    assert place.endpoint == "http://127.0.0.1:9/prefix"
    assert not place.has_default_endpoint
    for bad in (f"user:{SECRET}@host", f"http://user:{SECRET}@ho st:9"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", bad)
        with pytest.raises(ConfigError) as caught:
            s3_place()
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None


URI = "s3://lab/x"
COMMANDS = {
    "prepare": (prepare.main, [URI, "--to", "s3://lab/y"]),
    "train": (train.main, ["varnet_demo", f"data.catalog={URI}", "storage=s3://lab/runs"]),
    "train --show": (train.main, ["varnet_demo", f"storage=https://user:{SECRET}@host/runs", "--show"]),
    "evaluate": (evaluate.main, [URI]),
    "evaluate weights": (evaluate.main, [f"{URI}.pt", "--to", "s3://lab/y"]),
    "evaluate a URL": (evaluate.main, [f"https://user:{SECRET}@host/x", "--to", "s3://lab/y"]),
    "reconstruct": (reconstruct.main, [URI, "s3://lab/scans", "--to", "s3://lab/y"]),
    "filter": (filter.main, [URI, "--name", "n"]),
    "report": (report.main, [URI, "--out", "s3://lab/page.html"]),
    "bench": (bench.main, ["stream", f"catalog={URI}"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_verb_that_cannot_reach_the_store_shows_no_password(command, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECHOTRAIN_LOG", "DEBUG")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setattr("echotrain.storage.retry.time.sleep", lambda seconds: None)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    verb, arguments = COMMANDS[command]
    try:
        status = verb(arguments)
    finally:
        root.handlers[:], root.level = before
    shown = capfd.readouterr()
    assert status == (0 if "--show" in command else 2)
    assert shown.out + shown.err
    assert SECRET not in shown.out + shown.err


def test_a_store_says_what_it_could_not_reach(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setattr("echotrain.storage.retry.time.sleep", lambda seconds: None)
    with pytest.raises(StorageError, match=r"last: .*http://127\.0\.0\.1:9/lab") as caught:
        open_store("s3://lab/x").read("y")
    chain, error = "", caught.value
    while error is not None:
        chain, error = chain + repr(error) + str(error), error.__cause__ or error.__context__
    assert SECRET not in chain
