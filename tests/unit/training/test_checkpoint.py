"""Checkpoints: whole or not at all, and never mistaken for another's."""

import dataclasses
import hashlib
import io
import json
import threading
import zipfile

import pytest
import torch
from toys import ToyNetwork, run_toy, toy_experiment, toy_meta, toy_state

from echotrain.errors import CheckpointError, LeaseError, StorageError, StorageFullError
from echotrain.storage.guarded import GuardedStore
from echotrain.storage.lease import held
from echotrain.storage.local import LocalStore
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import CheckpointWriter, find_checkpoint, load_file, load_weights, read_meta
from echotrain.training.experiment import changed_keys, science
from echotrain.training.optim import OptimConfig
from echotrain.training.state_files import tensors


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path))
    run_toy(toy_experiment(), store)
    return store


def names(store):
    return sorted({info.key.split("/")[1] for info in store.list("checkpoints/")})


def test_a_run_leaves_both_markers_and_a_few_checkpoints(store):
    latest, best = find_checkpoint(store), find_checkpoint(store, "best")
    assert latest.position["global_step"] == 6
    assert best is not None
    assert len(names(store)) <= 3
    assert latest.name in names(store)


def test_the_best_checkpoint_outlives_the_latest(tmp_path):
    store = open_store(str(tmp_path))
    writer = CheckpointWriter(store, keep=2)
    experiment = toy_experiment()
    state, meta = toy_state(experiment), toy_meta(experiment)
    for step in range(6):
        name = f"step-{step:09d}-00000"
        writer.save(dataclasses.replace(meta, name=name), state.files(), is_best=step == 1)
    writer.close()
    assert [int(name.split("-")[1]) for name in names(store)] == [1, 4, 5]
    assert find_checkpoint(store, "best").name == "step-000000001-00000"


def test_what_a_cut_off_run_left_beyond_the_marker_is_cleared(tmp_path):
    store = open_store(str(tmp_path))
    store.write("checkpoints/step-000000099-00000/weights.pt", b"half a checkpoint")
    writer = CheckpointWriter(store, keep=2)
    experiment = toy_experiment()
    writer.save(
        dataclasses.replace(toy_meta(experiment), name="step-000000001-00000"),
        toy_state(experiment).files(),
        is_best=False,
    )
    writer.close()
    assert names(store) == ["step-000000001-00000"]


def test_no_marker_means_no_checkpoint(tmp_path):
    assert find_checkpoint(open_store(str(tmp_path))) is None


@pytest.mark.parametrize("file", ["weights", "train"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]])
def test_a_damaged_file_is_refused_by_name(store, file, damage):
    meta = find_checkpoint(store)
    store.write(meta.key(file), damage(store.read(meta.key(file))))
    with pytest.raises(CheckpointError, match=f"{meta.key(file)}.*is damaged"):
        load_file(store, meta, file)


def repack(store, meta, content):
    """Put other content in the place of a checkpoint's weights, with a description that vouches for it."""
    store.write(meta.key("weights"), content)
    files = {**meta.files, "weights.pt": {**meta.files["weights.pt"], "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    return dataclasses.replace(meta, files=files)


def test_weights_that_unpack_to_more_than_they_are_are_refused_unread(store):
    meta = find_checkpoint(store)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    for content, words in ((packed.getvalue(), "packed"), (b"no archive", "not a zip file"), (pickled(print), "code to be run")):
        with pytest.raises(CheckpointError, match=f"{meta.key('weights')}: .* tensors and plain values.*{words}"):
            load_file(store, repack(store, meta, content), "weights")
    with pytest.raises(StorageError, match="and at most 3 are read"):
        load_file(store, dataclasses.replace(meta, files={"weights.pt": {**meta.files["weights.pt"], "size": 3}}), "weights")
    with pytest.raises(CheckpointError, match="no name, size or checksum"):
        load_file(store, dataclasses.replace(meta, files={}), "weights")


def pickled(value):
    sink = io.BytesIO()
    torch.save({"weight": value}, sink)
    return sink.getvalue()


def test_a_missing_file_and_a_broken_description_are_refused(store):
    meta = find_checkpoint(store)
    store.delete(meta.key("weights"))
    with pytest.raises(CheckpointError, match="is missing"):
        load_weights(store, meta)
    store.write(f"checkpoints/{meta.name}/meta.json", b'{"name": "x"')
    with pytest.raises(CheckpointError, match=r"damaged meta\.json"):
        find_checkpoint(store)
    store.delete(f"checkpoints/{meta.name}/meta.json")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_meta(store, meta.name)


def test_a_checkpoint_of_another_model_names_what_differs(store):
    meta = find_checkpoint(store)
    experiment = toy_experiment()
    wider = ToyNetwork()
    wider.layers[0] = torch.nn.Linear(16, 9)
    wider.layers.append(torch.nn.Linear(1, 1))
    state = toy_state(experiment)
    state.network = wider
    with pytest.raises(CheckpointError, match=r"another model.*lacks 2.*layers\.4\.bias.*disagrees in 2 shapes.*\(8,\).*\(9,\)"):
        state.restore(load_weights(store, meta), load_file(store, meta, "train"), meta.position, meta.scores)


def test_a_checkpoint_without_an_average_does_not_serve_a_run_with_one(store):
    meta = find_checkpoint(store)
    state = toy_state(toy_experiment(ema_decay=0.9))
    with pytest.raises(CheckpointError, match="ema_decay"):
        state.restore(load_weights(store, meta), load_file(store, meta, "train"), meta.position, meta.scores)


def test_changed_science_is_told_by_its_keys_and_place_is_not_science():
    before = science(toy_experiment())
    assert changed_keys(before, science(toy_experiment(workers=2, epochs=9, storage="elsewhere", checkpoint_every=7))) == {}
    assert changed_keys(before, science(toy_experiment(seed=1, optim=OptimConfig(lr=1.0)))) == {"optim.lr": (3e-4, 1.0), "seed": (42, 1)}


def test_a_setting_that_came_after_a_checkpoint_was_as_its_default_is():
    before = science(toy_experiment())
    del before["data.subset"]
    assert changed_keys(before, science(toy_experiment())) == {}
    chosen = dataclasses.replace(toy_experiment().data, subset="knee-like")
    assert changed_keys(before, science(dataclasses.replace(toy_experiment(), data=chosen))) == {"data.subset": ("", "knee-like")}


def test_a_store_that_is_full_fails_the_next_save_and_moves_no_marker(tmp_path):
    store = open_store(str(tmp_path))

    class Full(type(store)):
        is_full = False

        def upload(self, path, key, **options):
            if self.is_full and "/train-" in key:
                raise StorageFullError(key, "no space left", "Free some.")
            super().upload(path, key, **options)

    full = Full(tmp_path)
    experiment = toy_experiment()
    writer = CheckpointWriter(full, keep=2)
    meta, files = toy_meta(experiment), toy_state(experiment).files()
    writer.save(dataclasses.replace(meta, name="step-000000001-00000"), files, is_best=False)
    writer.wait()
    full.is_full = True
    writer.save(dataclasses.replace(meta, name="step-000000002-00000"), files, is_best=True)
    with pytest.raises(StorageFullError):
        writer.close()
    assert find_checkpoint(store).name == "step-000000001-00000"
    assert find_checkpoint(store, "best") is None


class Late(LocalStore):
    """A store whose uploads are finished only when they are let go; as if in a bucket, where nobody clears another's temporary files."""

    uri = "s3://lab/run"

    def __init__(self, folder):
        super().__init__(folder)
        self.began, self.let_go = threading.Event(), threading.Event()

    def upload(self, path, key, **options):
        self.began.set()
        assert self.let_go.wait(30)
        super().upload(path, key, **options)


def test_whoever_lost_the_folder_replaces_no_file_of_the_one_that_has_it(tmp_path):
    experiment, late = toy_experiment(), Late(tmp_path)
    meta = dataclasses.replace(toy_meta(experiment), name="step-000000001-00000")
    one, two = toy_state(experiment).files(), toy_state(dataclasses.replace(experiment, seed=5)).files()
    with held(late, silence_s=60) as lost:
        loser = CheckpointWriter(GuardedStore(late, lost), keep=2)
        loser.save(meta, one, is_best=False)
        assert late.began.wait(30)
        lost.release()
        with held(open_store(str(tmp_path)), silence_s=60) as lease:
            store = GuardedStore(open_store(str(tmp_path)), lease)
            winner = CheckpointWriter(store, keep=2)
            winner.save(meta, two, is_best=True)
            winner.wait()
            late.let_go.set()
            with pytest.raises(LeaseError):
                loser.close()
            found = find_checkpoint(store)
            for file, written in two.items():
                loaded = load_file(store, found, file)
                assert all(torch.equal(a, b) for a, b in zip(tensors(loaded), tensors(written), strict=True))
            stray = {info.key for info in store.list(f"checkpoints/{meta.name}/")}
            assert len(stray) == 4
            winner.save(dataclasses.replace(meta, name="step-000000002-00000"), two, is_best=False)
            winner.close()
            left = {info.key for info in store.list(f"checkpoints/{meta.name}/")}
            assert left == {found.key("weights"), found.key("train"), f"checkpoints/{meta.name}/meta.json"}


@pytest.mark.parametrize("name", ["../../../other/weights.pt", "train-0123456789abcdef.pt", "weights-1.pt", 3, None])
def test_a_description_names_no_file_but_its_own(store, name):
    meta = find_checkpoint(store)
    other = dataclasses.replace(meta, files={"weights.pt": {**meta.files["weights.pt"], "object": name}})
    with pytest.raises(CheckpointError, match="has no name, size or checksum"):
        load_weights(store, other)


def test_a_checkpoint_whose_files_have_plain_names_is_read(store):
    meta = find_checkpoint(store)
    files = {}
    for name, said in meta.files.items():
        store.write(f"checkpoints/{meta.name}/{name}", store.read(meta.key(name.removesuffix(".pt"))))
        files[name] = {key: value for key, value in said.items() if key != "object"}
        store.delete(f"checkpoints/{meta.name}/{said['object']}")
    store.write(f"checkpoints/{meta.name}/meta.json", json.dumps({**vars(meta), "files": files, "format": 2}).encode())
    assert load_weights(store, find_checkpoint(store)).keys() == ToyNetwork().state_dict().keys()


def test_what_goes_before_the_marker_is_stored_when_the_marker_is(tmp_path):
    class Ordered(LocalStore):
        def write(self, key, data, **options):
            order.append(key)
            super().write(key, data, **options)

    order, store = [], Ordered(tmp_path)
    experiment = toy_experiment()
    writer = CheckpointWriter(store, keep=2)
    meta = dataclasses.replace(toy_meta(experiment), name="step-000000001-00000")
    writer.save(meta, toy_state(experiment).files(), is_best=True, before_marker=[lambda: store.write("metrics.jsonl", b"{}\n")])
    writer.close()
    assert order[-3:] == ["metrics.jsonl", "BEST", "LATEST"]
    assert store.read("metrics.jsonl") == b"{}\n"


def test_what_has_another_name_than_checkpoints_is_somebodys_own(tmp_path):
    store, experiment = open_store(str(tmp_path)), toy_experiment()
    own = ["checkpoints/README.md", "checkpoints/the-good-one/weights.pt", "checkpoints/step-000000001-00000-mine/weights.pt"]
    for key in own:
        store.write(key, b"1")
    writer = CheckpointWriter(store, keep=1)
    for step in range(1, 4):
        writer.save(
            dataclasses.replace(toy_meta(experiment), name=f"step-00000000{step}-00000"), toy_state(experiment).files(), is_best=False
        )
    writer.close()
    folders = {info.key.split("/")[1] for info in store.list("checkpoints/")}
    assert folders == {"README.md", "the-good-one", "step-000000001-00000-mine", "step-000000003-00000"}


@pytest.mark.parametrize("format", [1, 4])
def test_a_checkpoint_of_another_format_is_refused_with_both(store, format):
    key = f"checkpoints/{find_checkpoint(store).name}/meta.json"
    store.write(key, json.dumps({**json.loads(store.read(key)), "format": format}).encode())
    with pytest.raises(CheckpointError, match=f"has format {format}, this version reads 2 and 3"):
        find_checkpoint(store)


def test_a_failed_upload_is_raised_by_the_next_save_and_by_no_other(tmp_path):
    class Failing(LocalStore):
        def write(self, key, data, **options):
            if "step-000000001" in key:
                raise StorageFullError(key, "no space left", "Free some.")
            super().write(key, data, **options)

    store, experiment = Failing(tmp_path), toy_experiment()
    writer = CheckpointWriter(store, keep=2)
    files = toy_state(experiment).files()
    first, second = (dataclasses.replace(toy_meta(experiment), name=f"step-00000000{step}-00000") for step in (1, 2))
    writer.save(first, files, is_best=False)
    with pytest.raises(StorageFullError):
        writer.save(second, files, is_best=False)
    writer.save(second, files, is_best=False)
    writer.close()
    assert find_checkpoint(store).name == second.name
