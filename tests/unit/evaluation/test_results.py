import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from echotrain.errors import CatalogError, ObjectMissingError, PayloadError, StorageFullError
from echotrain.evaluation.results import VolumeAttributes, join_scores
from echotrain.evaluation.stored import read_evaluation, write_evaluation
from echotrain.metrics.collector import VolumeScore
from echotrain.storage.local import LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def score(volume: str, psnr: float) -> VolumeScore:
    return VolumeScore(dataset="d", volume=volume, num_slices=3, quality={"nmse": 0.1, "psnr": psnr, "ssim": 0.9})


def test_what_was_written_is_read_back_exactly(store, evaluation):
    write_evaluation(store, evaluation)
    again = read_evaluation(store)
    assert dataclasses.replace(again, examples=()) == dataclasses.replace(evaluation, examples=())
    assert list(again.methods) == list(evaluation.methods)
    for first, second in zip(again.examples, evaluation.examples, strict=True):
        assert (first.volume, first.slice, first.attributes, first.max_value) == (
            second.volume,
            second.slice,
            second.attributes,
            second.max_value,
        )
        assert [name for name, _ in first.arrays()] == ["zero_filled", "model", "target", "masked_kspace"]
        for (_, array), (_, other) in zip(first.arrays(), second.arrays(), strict=True):
            np.testing.assert_array_equal(array, other)


def test_pictures_of_before_kspace_was_kept_are_read_without_it(store, evaluation):
    """One of the two has none: so had all, in an older evaluation."""
    first, second = evaluation.examples
    assert (first.masked_kspace is None, second.masked_kspace is None) == (False, False)
    without = dataclasses.replace(second, masked_kspace=None)
    write_evaluation(store, dataclasses.replace(evaluation, examples=(first, without)))
    with np.load(io.BytesIO(store.read("examples.npz"))) as arrays:
        assert [name for name in arrays.files if name.startswith("masked")] == ["masked_kspace_000"]
    found = read_evaluation(store).examples
    np.testing.assert_array_equal(found[0].masked_kspace, first.masked_kspace)
    assert found[1].masked_kspace is None


def test_the_layout_is_three_plain_files_that_other_programs_can_read(store, evaluation):
    write_evaluation(store, evaluation)
    assert [info.key for info in store.list()] == ["examples.npz", "metrics.csv", "summary.json"]
    rows = list(csv.DictReader(io.StringIO(store.read("metrics.csv").decode())))
    assert list(rows[0]) == [
        *("dataset", "volume", "anatomy", "contrast", "acceleration", "num_slices"),
        *("nmse_model", "psnr_model", "ssim_model", "nmse_zero_filled", "psnr_zero_filled", "ssim_zero_filled"),
    ]
    summary = json.loads(store.read("summary.json"))
    assert summary["psnr_model"] == pytest.approx(np.mean([float(row["psnr_model"]) for row in rows]))
    assert (summary["num_volumes"], summary["num_slices"], summary["num_examples"], summary["split"]) == (8, 80, 2, "test")


def test_names_with_commas_quotes_and_line_ends_survive(store, volume_result, evaluation_of):
    volume = volume_result('a,"b"\n;c', 30, anatomy="knee, left")
    evaluation = evaluation_of([volume], name="ü")
    write_evaluation(store, evaluation)
    assert read_evaluation(store) == evaluation


def test_a_perfect_score_is_null_in_the_summary_and_infinite_in_the_table(store, volume_result, evaluation_of):
    worse = volume_result("a", 30)
    perfect = dataclasses.replace(worse, scores={**worse.scores, "model": {"nmse": 0.0, "psnr": float("inf"), "ssim": 1.0}})
    write_evaluation(store, evaluation_of([perfect]))
    assert json.loads(store.read("summary.json"), parse_constant=pytest.fail)["psnr_model"] is None
    assert read_evaluation(store).volumes == (perfect,)


def test_an_evaluation_that_failed_half_way_is_not_taken_for_a_whole_one(store, evaluation, monkeypatch):
    write_evaluation(store, evaluation)
    write = store.write

    def full(key, data, **options):
        if key == "examples.npz":
            raise StorageFullError(key, "no space is left", "Free some.")
        return write(key, data, **options)

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(StorageFullError):
        write_evaluation(store, dataclasses.replace(evaluation, volumes=evaluation.volumes[:3]))
    with pytest.raises(ObjectMissingError):
        read_evaluation(store)


def test_an_evaluation_without_volumes_is_refused(store, evaluation):
    with pytest.raises(CatalogError, match="at least one volume"):
        write_evaluation(store, dataclasses.replace(evaluation, volumes=()))


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        ("summary.json", lambda data: data[: len(data) // 2]),
        ("summary.json", lambda data: b"[]"),
        ("summary.json", lambda data: data.replace(b'"num_volumes": 8', b'"num_volumes": 9')),
        ("metrics.csv", lambda data: data[: data.rindex(b"\nmosaic") + 1]),
        ("metrics.csv", lambda data: data.replace(b"psnr_model", b"psnr")),
        ("metrics.csv", lambda data: b"\xff" + data),
        ("examples.npz", lambda data: b""),
        ("examples.npz", lambda data: b"no archive"),
        ("examples.npz", lambda data: data[: len(data) // 2]),
        ("examples.npz", lambda data: data[:300] + bytes(40) + data[340:]),
    ],
)
def test_damaged_objects_are_a_typed_error_that_names_the_place(store, evaluation, key, damage):
    write_evaluation(store, evaluation)
    store.write(key, damage(store.read(key)))
    with pytest.raises(PayloadError, match="Run the evaluation again") as caught:
        read_evaluation(store)
    assert caught.value.value == store.uri


def test_pickled_objects_are_never_loaded(store, evaluation):
    write_evaluation(store, evaluation)
    data = io.BytesIO()
    np.savez(data, labels=np.array([object()], dtype=object))
    store.write("examples.npz", data.getvalue())
    with pytest.raises(PayloadError, match="allow_pickle"):
        read_evaluation(store)


def test_scores_of_all_methods_are_joined_by_volume():
    attributes = {("d", "a"): VolumeAttributes("knee", "PD", 4), ("d", "b"): VolumeAttributes("brain", "T2", 8)}
    paired = join_scores({"x": [score("a", 30), score("b", 35)], "y": [score("b", 25), score("a", 20)]}, attributes)
    assert [(v.volume, v.scores["x"]["psnr"], v.scores["y"]["psnr"], v.attributes.anatomy) for v in paired] == [
        ("a", 30, 20, "knee"),
        ("b", 35, 25, "brain"),
    ]


@pytest.mark.parametrize(("model", "zero_filled", "known"), [("ab", "a", "ab"), ("a", "ab", "ab"), ("ab", "ab", "a")])
def test_a_volume_without_its_counterpart_is_refused(model, zero_filled, known):
    attributes = {("d", name): VolumeAttributes("", "", 4) for name in known}
    with pytest.raises(CatalogError, match="d/b"):
        join_scores({"x": [score(name, 30) for name in model], "y": [score(name, 20) for name in zero_filled]}, attributes)
