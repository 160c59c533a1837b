import json

import numpy as np
import pytest

from echotrain.errors import ObjectMissingError, PayloadError
from echotrain.evaluation.history import History, read_history
from echotrain.storage.local import LocalStore

RECORDS = [
    {"kind": "train", "epoch": 0, "step": 2, "global_step": 2, "loss": 0.5, "data_wait_s": 0.1},
    {"kind": "train", "epoch": 0, "step": 4, "global_step": 4, "loss": None},
    {"kind": "epoch", "epoch": 0, "global_step": 4, "loss": 0.4, "ssim": 0.8},
    {"kind": "epoch", "epoch": 1, "global_step": 8, "loss": 0.3},
    {"kind": "epoch", "epoch": 2, "global_step": 12, "loss": 0.2, "ssim": 0.7},
    {"kind": "later", "global_step": 12},
]


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path)
    store.write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in RECORDS).encode())
    return store


def test_curves_skip_what_was_not_recorded(store):
    history = read_history(store, "run")
    for (kind, metric), expected in {
        ("train", "loss"): ([2], [0.5]),
        ("train", "data_wait_s"): ([2], [0.1]),
        ("epoch", "loss"): ([4, 8, 12], [0.4, 0.3, 0.2]),
        ("epoch", "ssim"): ([4, 12], [0.8, 0.7]),
        ("epoch", "psnr"): ([], []),
    }.items():
        np.testing.assert_array_equal(np.array(history.curve(kind, metric)), np.array(expected).reshape(2, -1))


def test_the_best_epoch_is_the_last_that_was_kept_as_the_best_whatever_it_was_judged_by():
    epochs = [
        {"epoch": e, "global_step": e, "nmse": nmse, "is_best": best} for e, (nmse, best) in enumerate([(0.3, 1), (0.1, 1), (0.2, 0)])
    ]
    history = History(name="run", train=(), epochs=tuple(epochs))
    assert history.best()["epoch"] == 1
    assert history.metrics() == ("nmse",)
    assert History(name="run", train=(), epochs=({**epochs[0], "is_best": False},)).best() is None


def test_runs_that_did_not_say_which_epoch_was_best_were_judged_by_ssim(store):
    assert read_history(store, "run").best()["epoch"] == 0
    assert History(name="run", train=(), epochs=()).best() is None


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "3", '{"kind": "train"}', '{"global_step": 1}', '{"kind": "train", "global_step": "x"}', '{"kind": [], "global_step": 1}'],
)
def test_a_line_that_is_no_record_is_named_by_its_number(store, line):
    store.write("metrics.jsonl", store.read("metrics.jsonl") + line.encode() + b"\n")
    with pytest.raises(PayloadError, match=r"metrics\.jsonl, line 7"):
        read_history(store, "run")


def test_a_run_without_numbers_is_a_missing_object(tmp_path):
    with pytest.raises(ObjectMissingError):
        read_history(LocalStore(tmp_path), "run")
