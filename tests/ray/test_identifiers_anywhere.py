"""Identifiers from forty places, searched for in everything that the verbs write and say: prepare, train, evaluate, report, reconstruct."""

import csv
import stat
from pathlib import Path

import pytest
import ray

from echotrain.data.catalog.store import load_catalog
from ray_jobs import evaluate as evaluate_verb
from ray_jobs import prepare as prepare_verb
from ray_jobs import reconstruct as reconstruct_verb
from ray_jobs import report as report_verb
from tests.identifiers import FOLDER, IN_ATTRIBUTES, IN_HEADER, IN_TWIX, identifiers_below, identifiers_in, write_named_scans
from tests.local_cluster import run, short_experiment

pytestmark = pytest.mark.ray
pytest.importorskip("twixtools")


def test_no_identifier_is_in_what_the_verbs_write_and_say(local_ray, tmp_path, capfd, monkeypatch):
    scans, out = tmp_path / "scans", tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)  # W&B may leave files where it is
    write_named_scans(scans, num_patients=12)
    assert prepare_verb.main([str(scans), "--to", str(out / "prepared"), "--split", "50/25/25", "--dataset", "ours"]) == 0
    said = "".join(capfd.readouterr())
    assert "Left out: 2" in said
    assert "unreadable-" in said
    result = run(short_experiment(str(out / "prepared"), out / "runs"), "epochs=1", "batch_size=2", "wandb.enabled=true", "workers=1")
    assert list(out.rglob("*.wandb"))
    assert evaluate_verb.main([result.run_uri, "--split", "val", "--workers", "1", "--examples", "2"]) == 0
    assert report_verb.main([result.run_uri, "--out", str(out / "report.html")]) == 0
    assert (out / "report.html").stat().st_size > 10_000
    arguments = [result.run_uri, str(scans), "--to", str(out / "images"), "--undersample", "--workers", "1"]
    assert reconstruct_verb.main(arguments) == reconstruct_verb.SOME_FAILED
    assert len(list((out / "images").glob("volume-*.h5"))) >= 12
    said += "".join(capfd.readouterr())
    assert "left out unreadable-" in said
    # The folder is the user's own word on the command line, and says nobody's name here.
    assert identifiers_in(said) == {}
    assert identifiers_below(out) == {}
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    assert any(logs.rglob("*.log"))
    assert identifiers_below(logs) == {}


def test_the_key_file_alone_says_who_is_who_and_names_resumed_scans_too(local_ray, tmp_path, capsys):
    scans, key_file = tmp_path / "scans", tmp_path / "who.csv"
    write_named_scans(scans, num_patients=6)
    command = [str(scans), "--to", str(tmp_path / "to"), "--split", "50/25/25"]
    assert prepare_verb.main([*command, "--key-file", str(tmp_path / "to" / "who.csv")]) == 2
    assert "has no folder" in capsys.readouterr().err
    assert prepare_verb.main(command) == 0
    assert prepare_verb.main([*command, "--key-file", str(key_file)]) == 0
    said = capsys.readouterr().out
    assert "Who is who of 10 scans" in " ".join(said.split())
    assert "2 of 10 scans name nobody" in " ".join(said.split())
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    with key_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    catalog = load_catalog(str(tmp_path / "to"))
    columns = (catalog.table[name].to_pylist() for name in ("volume", "patient"))
    of_catalog = set(zip(*columns, strict=True))
    assert {(row["volume"], row["patient"]) for row in rows if row["volume"]} == of_catalog
    ids = {row["patient_id"] for row in rows}
    assert {IN_HEADER["patientID"], IN_TWIX["PatientID"], *(f"{IN_ATTRIBUTES['patient_id']}{index}" for index in range(6))} <= ids
    assert all(FOLDER in row["source"] for row in rows)
    assert identifiers_below(tmp_path / "to") == {}
    assert prepare_verb.main([*command, "--key-file", str(tmp_path / "to" / "who.csv")]) == 2
    assert "lies in the catalog" in capsys.readouterr().err
