"""The real thing, small: a standing cluster, ``ray job submit``, data and checkpoints in S3, and a driver that is asked to end."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from echotrain.orchestration.runtime.prometheus import GAUGES
from echotrain.storage.embedded import free_ports, serve_folder
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint, load_weights
from ray_jobs import train
from tests.charts.exported_metrics import labels_of
from tests.charts.promql import asked
from tests.scrape import Scraper
from tests.simulated import write_simulated_catalog

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass
class Cluster:
    """A standing cluster with an S3 server beside it, and what Prometheus would have seen of it."""

    dashboard: str
    address: str
    bucket: str
    env: dict[str, str]
    scraper: Scraper

    def run(self, *command: str, address: str = "", timeout: float = 240) -> subprocess.CompletedProcess[str]:
        env = {**self.env, **({"RAY_ADDRESS": address} if address else {})}
        return subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True, timeout=timeout, check=False)

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        store = open_store(f"{self.bucket}/runs/{name}")
        meta = find_checkpoint(store)
        assert meta is not None
        return load_weights(store, meta)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("job")
    port, dashboard, agent, client, metrics = free_ports(5)
    # A folder of its own, with a short name for its sockets: else every ``ray.init`` of this machine would find and join this cluster.
    session = Path(tempfile.mkdtemp(prefix="ray-"))
    with serve_folder(folder / "s3") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        bucket = server.create_bucket("lab")
        write_simulated_catalog(folder, to=f"{bucket}/prepared")
        # The entrypoint's ``python`` is looked up on the head's PATH; a client speaks tokens only when it is told to.
        env = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'library'}{os.pathsep}{ROOT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        ports += [f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"]
        command = [
            str(BIN / "ray"),
            "start",
            "--head",
            "--block",
            "--num-cpus=4",
            "--include-dashboard=true",
            f"--temp-dir={session}",
            *ports,
        ]
        with (folder / "head.log").open("w") as log:
            head = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"http://127.0.0.1:{dashboard}/api/version", env["RAY_AUTH_TOKEN"], head, folder / "head.log")
            with Scraper(f"http://127.0.0.1:{metrics}/metrics") as scraper:
                yield Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", bucket, env, scraper)
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            try:
                head.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait()
            shutil.rmtree(session, ignore_errors=True)


def wait_for(url: str, token: str, head: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and head.poll() is None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
    pytest.fail(f"the cluster did not start: {log.read_text()[-2000:]}")


def settings(cluster: Cluster, name: str, *more: str) -> list[str]:
    recipe = ["varnet_demo_debug", f"data.catalog={cluster.bucket}/prepared", f"storage={cluster.bucket}/runs", f"name={name}"]
    return [*recipe, "workers=2", "batch_size=2", "epochs=3", "checkpoint_every=3", "log_every=1", *more]


# What is measured of them is not their ranks.
ALONE = ("workers=1", "batch_size=1")


@pytest.fixture(scope="module")
def submitted(cluster) -> subprocess.CompletedProcess[str]:
    """Return a run that was submitted as a job, to its end."""
    command = ["python", "-m", "ray_jobs.train", *settings(cluster, "submitted")]
    return cluster.run(str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard, "--", *command)


def test_a_submitted_job_trains_to_a_checkpoint_in_s3(cluster, submitted):
    done = submitted
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "finished at step 30" in done.stdout
    assert "epoch 3/3 done" in done.stdout
    meta = find_checkpoint(open_store(f"{cluster.bucket}/runs/submitted"))
    assert meta is not None
    assert meta.position["epoch"] == 3
    assert 0 < meta.scores["ssim"] <= 1


def test_prometheus_sees_the_numbers_of_a_run_while_it_lives(cluster):
    # Ray exports every ten seconds, and a short run may be over before its first scores were.
    command = [sys.executable, "-m", "ray_jobs.train", *settings(cluster, "watched", "epochs=500", "keep_checkpoints=1", *ALONE)]
    env = {**cluster.env, "RAY_ADDRESS": cluster.address}
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            is_there = cluster.scraper.wait_for("ray_echotrain_epochs", lambda labels, _: labels.get("run") == "watched", timeout_s=90)
            assert is_there
            missing = []
            for name in GAUGES.keys() - {"echotrain_task"}:  # Reconstruction logs nothing besides its loss.
                if not cluster.scraper.wait_for(f"ray_{name}", lambda labels, _: labels.get("run") == "watched", timeout_s=15):
                    missing.append(name)
            assert missing == []
            assert run.poll() is None
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait(timeout=60)
    watched = [(labels, value) for labels, value in cluster.scraper.series("ray_echotrain_score") if labels["run"] == "watched"]
    assert {"ssim", "psnr", "nmse"} <= {labels["metric"] for labels, _ in watched}
    epochs = {value for labels, value in cluster.scraper.series("ray_echotrain_epochs") if labels["run"] == "watched"}
    assert epochs == {500}


def test_prometheus_counts_a_run_whose_loss_is_not_finite(cluster):
    done = cluster.run(
        sys.executable, "-m", "ray_jobs.train", *settings(cluster, "diverged", "optim.lr=1e37", *ALONE), address=cluster.address
    )
    assert done.returncode == 2
    assert "not finite" in done.stderr
    assert cluster.scraper.wait_for(
        "ray_echotrain_failed_runs_total",
        lambda labels, value: (labels["run"], labels["error"], value) == ("diverged", "NotFiniteError", 1.0),
        timeout_s=20,
    ), done.stderr


def test_what_dashboards_and_alerts_ask_of_ray_is_on_its_metrics_port(cluster, submitted):
    chart = ROOT / "helm" / "echotrain"
    boards = [json.loads(path.read_text()) for path in (chart / "dashboards").glob("*.json")]
    expressions = [target["expr"] for board in boards for panel in board["panels"] for target in panel.get("targets", ())]
    groups = yaml.safe_load((chart / "files" / "alerts.yaml").read_text())["groups"]
    expressions += [rule["expr"] for group in groups for rule in group["rules"]]
    metrics = {metric for expression in expressions for metric in asked(expression).matched if metric.startswith("ray_")}
    # Not here: a GPU, and a worker that died.
    metrics = {metric for metric in metrics if not re.match(r"ray_(echotrain_|node_(gpu|gram)|node_manager_|memory_manager_)", metric)}
    assert {"ray_node_mem_total", "ray_object_store_memory", "ray_resources"} <= metrics
    for metric in metrics:
        assert cluster.scraper.wait_for(metric, lambda labels, _: True, timeout_s=15), metric
        have = set().union(*(labels for labels, _ in cluster.scraper.series(metric)))
        assert labels_of(metric) <= have, metric


def test_a_driver_asked_to_end_saves_first_and_the_same_command_ends_the_run_as_if_nothing_had_happened(cluster, submitted):
    env = {**cluster.env, "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-u", "-m", "ray_jobs.train", *settings(cluster, "stopped")]
    with subprocess.Popen(command, env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        assert driver.stdout is not None
        said = []
        for line in driver.stdout:
            said.append(line)
            if "step 2/" in line:
                driver.send_signal(signal.SIGTERM)
                break
        said += list(driver.stdout)
        assert driver.wait(timeout=120) == 3, "".join(said)
    assert any("saving a checkpoint" in line for line in said)
    meta = find_checkpoint(open_store(f"{cluster.bucket}/runs/stopped"))
    assert meta is not None
    assert 2 <= meta.position["global_step"] < 30
    done = cluster.run(*command, address=cluster.address)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "resuming at step" in done.stderr
    whole, parts = cluster.weights("submitted"), cluster.weights("stopped")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_an_unknown_recipe_and_an_unknown_key_name_the_nearest_and_exit_with_2(capsys):
    assert train.main(["varnet_dem"]) == 2
    assert "Did you mean 'varnet_demo'" in capsys.readouterr().err
    assert train.main(["varnet_demo", "optim.learning_rate=1"]) == 2
    assert "Did you mean 'optim.lr'" in capsys.readouterr().err
