"""A W&B run over restarts: one run, every row once and in order, whatever cut the earlier starts off."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import wandb
from PIL import Image

from echotrain.data.catalog.identity import SampleId
from echotrain.storage.open import open_store
from echotrain.tasks.task import Panel, ScoreTable
from echotrain.training.experiment import WandbConfig
from echotrain.training.files import RunFiles
from echotrain.training.pictures import decode
from echotrain.training.sinks import JsonLinesSink
from echotrain.training.wandb_sink import WandbSink
from tests.wandb_files import read_history_rows, read_records
from tests.wandb_service import serve_wandb

STEPS_PER_EPOCH = 3


class NoWriter:
    def close(self):
        pass


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


class Start:
    """One start of a run, which a deterministic loop goes on with from a position: ``lines`` of metrics, ``step`` done."""

    def __init__(self, store, *, lines=0, step=0):
        self.step = step
        self.metrics = JsonLinesSink(store, lines=lines)
        sink = WandbSink(WandbConfig(), store, run_id="abc", name="run", experiment={"seed": 1}, past=self.metrics.records())
        self.files = RunFiles(writer=NoWriter(), metrics=self.metrics, sinks=[sink])
        self.positions = {step: lines}

    def train(self, until):
        self.files.log({"kind": "start", "epochs": 3})
        for step in range(self.step + 1, until + 1):
            self.files.log({"kind": "train", "global_step": step, "loss": 1 / step})
            if step % STEPS_PER_EPOCH == 0:
                image = np.full((2, 2), step / 9, np.float32)
                self.files.show([Panel(sample=SampleId("d", "v", 0), caption=f"step {step}", images={"target": image}, scale=1.0)], step)
                self.files.tabulate(
                    ScoreTable(title="anatomy", columns=("anatomy", "volumes", "ssim"), rows=(("knee", 3, step / 10),)), step
                )
                self.files.log({"kind": "epoch", "global_step": step, "epoch": step // STEPS_PER_EPOCH - 1, "ssim": step / 10})
            self.positions[step] = self.metrics.num_lines
        self.step = until
        return self

    def killed(self):
        """End as SIGKILL does: what was stored with a checkpoint is there, W&B's own files are not."""
        self.metrics.close()
        (sink,) = self.files.sinks
        sink._run.finish()
        sink._folder.cleanup()


def check_whole(folder, last):
    (path,) = (folder / "wandb").rglob("*.wandb")
    rows = read_history_rows(path)
    assert [row["global_step"] for row in rows if "train/loss" in row] == list(range(1, last + 1))
    assert [row["global_step"] for row in rows] == sorted(row["global_step"] for row in rows)
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert [row["_timestamp"] for row in rows] == sorted(row["_timestamp"] for row in rows)
    epochs = [row for row in rows if "epoch/ssim" in row]
    others = [row for row in rows if "epoch/ssim" not in row]
    assert not any(name.startswith(("validation", "anatomy", "by ")) for row in others for name in row)
    ends = [step for step in range(1, last + 1) if step % STEPS_PER_EPOCH == 0]
    assert [row["global_step"] for row in epochs] == ends
    assert [row["anatomy/knee/ssim"] for row in epochs] == [row["epoch/ssim"] for row in epochs] == [step / 10 for step in ends]
    assert [row["validation/captions"] for row in epochs] == [[f"step {step}: target"] for step in ends]
    media = path.parent / "files"
    for row in epochs:
        (picture,) = row["validation/filenames"]
        with Image.open(io.BytesIO((media / picture).read_bytes())) as image:
            assert image.getpixel((0, 0)) == int(row["global_step"] / 9 * 255)
        assert json.loads((media / row["by anatomy/path"]).read_text())["data"] == [["knee", 3, row["epoch/ssim"]]]
    assert {message.run_id for kind, message in read_records(path) if kind == "run"} == {"abc"}
    return rows


@pytest.mark.parametrize(
    ("cut", "back_to", "is_killed"), [(4, 4, False), (4, 4, True), (5, 2, False), (7, 3, True), (6, 0, False), (8, 3, False)]
)
def test_after_a_restart_there_is_one_offline_run_whose_history_is_whole(tmp_path, cut, back_to, is_killed):
    store = open_store(str(tmp_path))
    first = Start(store).train(cut)
    first.killed() if is_killed else first.files.close()
    second = Start(store, lines=first.positions[back_to], step=back_to).train(9)
    second.files.close()
    check_whole(tmp_path, 9)


def test_a_history_is_kept_also_where_the_checkpoints_cannot_be_noted(tmp_path, caplog):
    store = open_store(str(tmp_path))
    start = Start(store).train(9)
    store.write("LATEST", b"step-000000009-00002")
    start.files.close()
    check_whole(tmp_path, 9)
    assert "checkpoints are not noted in W&B" in caplog.text
    assert "step-000000009-00002" in caplog.text


def test_after_every_start_there_is_exactly_one_offline_file_and_rows_keep_their_times(tmp_path):
    store = open_store(str(tmp_path))
    start = Start(store)
    seen = []
    for until in (2, 4, 9):
        start.train(until).files.close()
        rows = check_whole(tmp_path, until)
        times = [round(row["_timestamp"], 1) for row in rows]
        assert times[: len(seen)] == pytest.approx(seen, abs=0.3)
        seen = times
        start = Start(store, lines=start.metrics.num_lines, step=until)
    start.files.close()


def test_a_picture_that_is_gone_is_left_out_and_the_rest_stands(tmp_path):
    store = open_store(str(tmp_path))
    first = Start(store).train(3)
    first.files.close()
    (picture,) = store.list("pictures/")
    store.delete(picture.key)
    Start(store, lines=first.metrics.num_lines, step=3).files.close()
    (path,) = (tmp_path / "wandb").rglob("*.wandb")
    (epoch,) = (row for row in read_history_rows(path) if "epoch/ssim" in row)
    assert epoch["anatomy/knee/ssim"] == 0.3
    assert "validation/captions" not in epoch


def test_files_of_other_runs_are_left_alone(tmp_path):
    store = open_store(str(tmp_path))
    store.write("wandb/offline-run-20200101_000000-other/run-other.wandb", b"another's")
    Start(store).train(1).files.close()
    assert store.read("wandb/offline-run-20200101_000000-other/run-other.wandb") == b"another's"


class Service:
    """What W&B keeps of a run that is logged online: its rows, and a summary of the last values, which a resumed run is given."""

    def __init__(self):
        self.rows, self.summary = [], {}

    def start(self, **settings):
        return OnlineRun(self)


class Settings:
    def update(self, values, **options):
        """Nothing here asks for them."""


class OnlineRun:
    id = "abc"

    def __init__(self, service):
        self.service, self.summary, self.config, self.is_cut = service, dict(service.summary), Settings(), False

    def log(self, row):
        if not self.is_cut:
            self.service.rows.append(row)
            self.service.summary |= row

    def define_metric(self, *names, **options):
        pass

    def finish(self):
        pass


@pytest.mark.parametrize(("arrived", "cut", "back_to"), [(5, 5, 3), (8, 8, 2), (3, 5, 5), (2, 6, 6), (0, 4, 4), (4, 6, 3)])
def test_online_no_row_is_doubled_by_repeated_steps_and_none_that_never_arrived_is_lost(tmp_path, monkeypatch, arrived, cut, back_to):
    service = Service()
    monkeypatch.setattr(wandb, "init", service.start)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    store = open_store(str(tmp_path))
    first = Start(store).train(arrived)
    first.files.sinks[0]._run.is_cut = True  # What is logged from here on never leaves the machine.
    first.train(cut).killed()
    Start(store, lines=first.positions[back_to], step=back_to).train(9).files.close()
    assert [row["global_step"] for row in service.rows if "train/loss" in row] == list(range(1, 10))
    epochs = [row for row in service.rows if "epoch/ssim" in row]
    assert [row["global_step"] for row in epochs] == [3, 6, 9]
    assert all(len(row["validation"]) == 1 and "by anatomy" in row and row["anatomy/knee/ssim"] == row["epoch/ssim"] for row in epochs)


def test_an_offline_file_is_superseded_by_a_run_that_goes_on_online(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    first = Start(store).train(4)
    first.files.close()
    service = Service()
    monkeypatch.setattr(wandb, "init", service.start)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    Start(store, lines=first.positions[4], step=4).train(6).files.close()
    assert [row["global_step"] for row in service.rows if "train/loss" in row] == list(range(1, 7))
    assert not list((tmp_path / "wandb").rglob("*.wandb"))


@pytest.fixture
def service():
    with serve_wandb() as service:
        yield service


def sync(folder, service):
    """Upload a run's folder as a person does."""
    environment = {**os.environ, "WANDB_BASE_URL": service.url, "WANDB_API_KEY": "x" * 40}
    folders = sorted(str(path) for path in (folder / "wandb").glob("offline-run-*"))
    command = [sys.executable, "-m", "wandb", "sync", *folders]
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_wandb_sync_makes_one_run_of_it_with_every_row_once_also_when_a_part_was_uploaded_before(tmp_path, service):
    store = open_store(str(tmp_path))
    first = Start(store).train(5)
    first.files.close()
    sync(tmp_path, service)
    assert [row["global_step"] for row in service.history("abc")] == [1, 2, 3, 3, 4, 5]
    Start(store, lines=first.positions[2], step=2).train(7).files.close()
    sync(tmp_path, service)
    assert list(service.streams) == ["abc"]
    rows = service.history("abc")
    assert [row["global_step"] for row in rows] == [1, 2, 3, 3, 4, 5, 6, 6, 7]
    assert [row["global_step"] for row in rows if "epoch/ssim" in row] == [3, 6]
    assert sum("media/images" in path for path in service.uploaded) >= 2


def test_whether_pictures_are_shown_changes_no_line_of_the_metrics(tmp_path):
    image = Panel(sample=SampleId("d", "v", 0), caption="d/v \u2192 0", images={"target": np.ones((2, 2), np.float32)}, scale=1.0)
    sink = JsonLinesSink(open_store(str(tmp_path)))
    sink.show([image], 3)
    assert sink.num_lines == 0
    ((caption, pixels),) = [decode(path.read_bytes()) for path in (tmp_path / "pictures").iterdir()]
    assert (caption, pixels.tolist()) == ("d/v \u2192 0: target", [[255, 255], [255, 255]])
