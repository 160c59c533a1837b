"""Checkpoints too large to be held twice: written and read past the memory, and read from the store once for all ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from many_ranks import run_ranks
from toys import ToyNetwork, run_toy, toy_experiment, toy_meta, toy_state

from echotrain.errors import CheckpointError, StorageFullError
from echotrain.ranks import Ranks
from echotrain.storage.open import open_store
from echotrain.training import state_files
from echotrain.training.checkpoint import CheckpointWriter, find_checkpoint, load_file
from echotrain.training.shared_state import restore_everywhere
from echotrain.training.state import TrainState

HOLDS_LITTLE = """
import dataclasses, json, resource, sys
sys.path.insert(0, sys.argv[2])
import torch
from toys import toy_experiment, toy_meta
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import CheckpointWriter, find_checkpoint

def own_memory():
    return {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if "kB" in line}["VmData"]

store = open_store(sys.argv[1])
state = {f"layer{i}": torch.full((5_000_000,), float(i)) for i in range(20)}
writer = CheckpointWriter(store, keep=2)
meta = toy_meta(toy_experiment())
first = dataclasses.replace(meta, name="step-000000000-00000")
writer.save(first, {"weights": {"w": torch.zeros(3)}}, is_best=True)
writer.wait()
# What the process may take beyond what it has: less than a third of the 400 MB that are saved.
limit = int((own_memory() + 120) * 1e6)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
writer.save(dataclasses.replace(meta, name="step-000000001-00000"), {"weights": state}, is_best=True)
writer.close()
print(json.dumps({"name": find_checkpoint(store).name}))
"""


def test_a_state_is_saved_in_a_third_of_its_size_beside_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_LITTLE, str(tmp_path / "run"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "MALLOC_ARENA_MAX": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["name"] == "step-000000001-00000"
    store = open_store(str(tmp_path / "run"))
    weights = load_file(store, find_checkpoint(store), "weights")
    assert [float(value[-1]) for value in weights.values()] == list(range(20))


def test_what_is_read_is_the_files_own_bytes_until_it_is_used(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run_toy(toy_experiment(), store)
    tensor = load_file(store, find_checkpoint(store), "weights")["layers.0.weight"]
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "weights-" in line]
    starts, ends = zip(*([int(end, 16) for end in line.split()[0].split("-")] for line in mapped), strict=True)
    assert any(start <= tensor.data_ptr() < end for start, end in zip(starts, ends, strict=True))


def test_a_restored_state_needs_the_file_no_more(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    experiment = toy_experiment(ema_decay=0.9)
    run_toy(experiment, store)
    meta, state = find_checkpoint(store), toy_state(experiment)
    state.restore(load_file(store, meta, "weights"), load_file(store, meta, "train"), meta.position, meta.scores)
    maps = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if ".pt" in line]
    mapped = [range(int(start, 16), int(end, 16)) for start, end in maps]
    held = state_files.tensors([state.network.state_dict(), state.ema.state_dict(), state.optimizer.state_dict()])
    assert not [tensor for tensor in held if any(tensor.data_ptr() in part for part in mapped)]


def test_a_disk_that_is_too_full_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CheckpointWriter(open_store(str(tmp_path / "run")), keep=2)
    monkeypatch.setattr(state_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10 << 20))
    experiment = toy_experiment()
    with pytest.raises(StorageFullError, match="TMPDIR"):
        writer.save(toy_meta(experiment), toy_state(experiment).files(), is_best=False)
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == []


def test_what_a_killed_writer_left_on_the_runs_disk_is_removed_and_never_listed(tmp_path: Path) -> None:
    left = tmp_path / ".tmp-checkpoint-abc"
    left.mkdir()
    (left / "weights.pt").write_bytes(b"half")
    store = open_store(str(tmp_path))
    assert list(store.list()) == []
    CheckpointWriter(store, keep=2).close()
    assert not left.exists()


def _odd_network() -> torch.nn.Module:
    """A network whose state has every kind of tensor: scalars, integers, complex numbers, channels last, half precision, none."""
    network = ToyNetwork()
    network.register_buffer("count", torch.tensor(7))
    network.register_buffer("phase", torch.complex(torch.rand(3, 2), torch.rand(3, 2)))
    network.register_buffer("image", torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last))
    network.register_buffer("brief", torch.rand(3).to(torch.bfloat16))
    network.register_buffer("empty", torch.empty(0))
    return network


def _odd_state(seed: int) -> TrainState:
    torch.manual_seed(seed)
    network = _odd_network()
    state = TrainState(network, torch.optim.Adam(network.parameters(), lr=0.1), ema_decay=0.9)
    if seed:
        for _ in range(seed):
            network.eval()(torch.rand(2, 1, 16)).sum().backward()
            state.optimizer.step()
            state.ema.update(network)
    return state


def _take_over(ranks: Ranks, folder: str, fails: bool) -> None:
    state = _odd_state(0)
    called = []

    def restore(own: TrainState) -> None:
        called.append(ranks.rank)
        if fails:
            raise CheckpointError("weights.pt", "is damaged", "Remove it.")
        given = _odd_state(3)
        files = given.files()
        own.restore(files["weights"], files["train"], {"epoch": 2, "global_step": 9}, {"accuracy": 0.5})

    failure = ""
    try:
        restore_everywhere(state, ranks, restore)
    except CheckpointError as error:
        failure = str(error)
    torch.save(
        {
            "files": state.files(),
            "position": state.position.global_step,
            "scores": state.scores,
            "called": called,
            "failure": failure,
            "is_channels_last": state.network.state_dict()["image"].is_contiguous(memory_format=torch.channels_last),
        },
        f"{folder}/{ranks.rank}.pt",
    )


def taken_over(folder: Path, *, fails: bool = False) -> list[dict]:
    run_ranks(_take_over, 2, str(folder), fails)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_every_rank_has_what_the_first_has_read_alone(tmp_path: Path) -> None:
    first, second = taken_over(tmp_path)
    assert (first["called"], second["called"]) == ([0], [])
    assert first["position"] == second["position"] == 9
    assert first["scores"] == second["scores"] == {"accuracy": 0.5}
    assert second["is_channels_last"]
    expected = list(state_files.tensors(_odd_state(3).files()))
    for found in (first, second):
        ours = list(state_files.tensors(found["files"]))
        assert len(ours) == len(expected) > 20
        for mine, theirs in zip(ours, expected, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


def test_what_the_first_rank_cannot_read_every_rank_says(tmp_path: Path) -> None:
    assert [found["failure"] for found in taken_over(tmp_path, fails=True)] == ["weights.pt: is damaged. Remove it."] * 2
