"""The prepare job on a local Ray: whole, killed, resumed, fed with bad scans."""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from ray.data._internal.metadata_exporter import sanitize_for_struct

from echotrain.benchmarks.throttled import Fault, serve_throttled
from echotrain.config import override
from echotrain.data.catalog.store import load_catalog
from echotrain.data.config import StreamConfig
from echotrain.data.formats.deidentify import PUBLIC_SALT
from echotrain.data.formats.protocol_kinds import MOSAIC_KINDS, PROTOCOL_KINDS
from echotrain.data.formats.sources import find_sources
from echotrain.data.planned import PlannedStream
from echotrain.data.preparing.convert import ConvertConfig
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.data.splits.given import GivenSplitConfig
from echotrain.data.splits.made import SplitConfig
from echotrain.errors import CatalogError, ConfigError, CredentialsError, StorageError
from echotrain.orchestration.jobs import prepare as prepare_module
from echotrain.orchestration.jobs.inference import InferenceConfig, WorkerSetup
from echotrain.orchestration.jobs.prepare import PrepareConfig, prepare
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.notes import Attempts
from echotrain.orchestration.runtime.sample_maker import Recipe
from echotrain.orchestration.runtime.workers import WorkerArguments
from echotrain.storage.embedded import serve_folder
from echotrain.storage.local import LocalStore
from echotrain.storage.open import open_store
from echotrain.storage.ranged import RangeReader
from echotrain.training.experiment import Experiment
from ray_jobs.prepare import main, parser, read
from tests.faults.test_bad_scans import not_hdf5, truncated, with_a_terabyte_never_written, with_an_xml_bomb
from tests.scans import header_xml, object_kspace, random_kspace, write_scan

ROOT = Path(__file__).resolve().parents[2]
SUBJECT = """<subjectInformation><patientName>Doe^Jane</patientName><patientID>MRN-0042</patientID>
<patientBirthdate>1970-03-14</patientBirthdate></subjectInformation>
<acquisitionSystemInformation><institutionName>Saint Elsewhere</institutionName></acquisitionSystemInformation>"""

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    simulate(SimulationConfig(num_patients=9, volumes_per_patient=1, num_slices=2, matrix=48), folder)
    return folder


def everything_in(folder: Path) -> bytes:
    return b"\n".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def assert_payloads_are_whole(catalog, *, has_checksums: bool = True) -> None:
    reader = RangeReader()
    for row in catalog.rows():
        for part in ("", "target_"):
            uri = getattr(row, f"{part}uri")
            uri = uri if uri.startswith(("/", "s3://")) else f"{catalog.root}/{uri}"
            buffer = memoryview(bytearray(getattr(row, f"{part}nbytes")))
            (found,) = reader.read_into(uri, getattr(row, f"{part}offset"), buffer)
            if has_checksums and (row.kind != "lines" or part):
                assert found == getattr(row, f"{part}checksum")
    reader.close()


@pytest.mark.parametrize("payload", ["packed", "lines", "raw"])
def test_a_folder_becomes_a_catalog(local_ray, scans, tmp_path, payload):
    report = prepare(PrepareConfig(source=str(scans), to=str(tmp_path / "to"), convert=ConvertConfig(payload=payload)))
    catalog = load_catalog(str(tmp_path / "to"), trusted=[str(scans)])
    setting = f"Its bytes stay where the scans are, so whoever reads it says that they trust that place: data.trusted=[{scans}]"
    assert (setting in report.notes) == (payload == "raw")
    assert report.is_new
    assert (report.num_scans, report.num_resumed, report.left_out) == (9, 0, [])
    assert len(catalog) == 18
    assert set(catalog.table["kind"].to_pylist()) == {payload}
    assert set(catalog.table["split"].to_pylist()) == {"train", "val", "test"}
    assert_payloads_are_whole(catalog)
    assert list(LocalStore(tmp_path / "to").list("attempts/")) == []


def test_an_s3_prefix_becomes_a_catalog_in_s3(local_ray, scans, tmp_path, monkeypatch, capsys):
    with serve_folder(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        bucket = server.create_bucket("lab")
        for path in sorted(scans.iterdir())[:4]:
            open_store(f"{bucket}/raw").upload(path, path.name)
        assert main([f"{bucket}/raw", "--to", f"{bucket}/packed", "--dtype", "float16", "--split", "50/25/25"]) == 0
        assert "8 slices" in capsys.readouterr().out
        packed = load_catalog(f"{bucket}/packed")
        assert set(packed.table["dtype"].to_pylist()) == {"float16"}
        assert_payloads_are_whole(packed)
        assert main([f"{bucket}/raw", "--to", f"{bucket}/indexed", "--payload", "raw"]) == 0
        assert f"data.trusted=[{bucket}/raw]" in capsys.readouterr().out
        with pytest.raises(CatalogError, match=r"data\.trusted=\[s3://lab/raw\]"):
            load_catalog(f"{bucket}/indexed")
        indexed = load_catalog(f"{bucket}/indexed", trusted=[f"{bucket}/raw"])
        assert all(uri.startswith("s3://lab/raw/simulated_") for uri in indexed.table["uri"].to_pylist())
        assert_payloads_are_whole(indexed)
        # Credentials that expired: an error at once, and nothing counted as done.
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
        with pytest.raises(CredentialsError):
            prepare(PrepareConfig(source=f"{bucket}/raw", to=f"{bucket}/other"))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        assert list(open_store(f"{bucket}/other").list()) == []


def test_indexing_in_s3_fetches_a_slice_of_each_scan_and_a_store_that_fails_is_no_bad_scan(local_ray, tmp_path, monkeypatch):
    for number in range(2):
        kspace = object_kspace((8, 8, 256, 128), seed=number)
        write_scan(tmp_path / "s3" / "lab" / f"scan{number}.h5", kspace, attributes={"max": 99.0, "patient_id": str(number)})
    nbytes = sum(path.stat().st_size for path in (tmp_path / "s3" / "lab").iterdir())
    with serve_throttled(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        convert = ConvertConfig(payload="raw", index_only=True, safe_names=(r"scan\d",))
        server.inject(Fault(kind="unavailable", key=".h5", method="GET"))
        with pytest.raises(StorageError, match=r"scan\d\.h5.*failed 5 times"):
            prepare(PrepareConfig(source="s3://lab", to=str(tmp_path / "to"), convert=convert, workers=1))
        server.inject()
        server.reset()
        report = prepare(PrepareConfig(source="s3://lab", to=str(tmp_path / "to"), convert=convert, split=SplitConfig(ratios=(1, 0, 0))))
        assert report.left_out == []
        assert server.stats().bytes < nbytes / 8 * 1.2
        assert_payloads_are_whole(report.catalog, has_checksums=False)


def test_bad_scans_among_good_ones_are_left_out_with_their_reasons(local_ray, scans, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for index, path in enumerate(sorted(scans.iterdir())[:4]):
        (source / f"good{index}.h5").write_bytes(path.read_bytes())
    for make in (truncated, not_hdf5, with_a_terabyte_never_written, with_an_xml_bomb):
        make(source / f"bad_{make.__name__}.h5")
    (source / "twin.h5").write_bytes((source / "good0.h5").read_bytes())
    kspace = random_kspace((3, 3, 32, 24))
    kspace[1] = np.nan
    write_scan(source / "hole.h5", kspace)
    write_scan(source / "volume3d.h5", header=header_xml(32, 24, depth=8))
    assert main([str(source), "--to", str(tmp_path / "to"), "--workers", "2", "--safe-names", r"good\d", "--safe-names", "hole"]) == 0
    table = capsys.readouterr().out
    catalog = load_catalog(str(tmp_path / "to"))
    assert set(catalog.table["volume"].to_pylist()) == {"good0", "good1", "good2", "good3", "hole"}
    left_out = catalog.manifest["left_out"]
    reasons = " / ".join(sorted(entry["reason"] for entry in left_out))
    for expected in ("complete HDF5", "no format", "1.1 TB", "never expanded", "duplicate of good0", "3D encode of 8", "NaN"):
        assert expected in reasons
        assert expected.split()[0] in table
    assert len(left_out) == 7
    assert [entry["slices"] for entry in left_out if "NaN" in entry["reason"]] == [[1]]
    # A file that could not be opened may be named after its patient: a person's terminal may say so, a log and the catalog not.
    assert "unreadable-" in table
    assert "bad_truncated" not in "".join(table.split())
    assert b"bad_truncated" not in everything_in(tmp_path / "to")


def test_only_bad_scans_make_no_catalog_and_exit_2(local_ray, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    truncated(source / "bad.h5")
    assert main([str(source), "--to", str(tmp_path / "to")]) == 2
    assert "complete HDF5" in capsys.readouterr().err
    with pytest.raises(CatalogError, match="holds no catalog"):
        load_catalog(str(tmp_path / "to"))


def test_no_byte_that_prepare_writes_names_the_patient(local_ray, tmp_path):
    source = tmp_path / "source"
    header = header_xml(32, 24, extra=SUBJECT, protocol="knee of Jane Doe")
    for index, name in enumerate(("Doe_Jane", "knee_14031970", "scan_MRN-0042", "harmless")):
        attributes = {"patient_id": "MRN-0042", "acquisition": "DOE"}
        write_scan(source / f"{name}.h5", random_kspace((1, 3, 32, 24), seed=index), header=header, attributes=attributes)
    truncated(source / "Jane.h5")
    for payload in ("packed", "raw"):
        convert = ConvertConfig(payload=payload, safe_names=(".*",))
        config = PrepareConfig(source=str(source), to=str(tmp_path / payload), convert=convert, salt="secret")
        report = prepare(config)
        written = everything_in(tmp_path / payload).lower()
        assert len(report.catalog) == 4
        assert pc.count_distinct(report.catalog.table["patient"]).as_py() == 1
        for secret in (b"doe", b"jane", b"14031970", b"19700314", b"1970-03-14", b"mrn-0042", b"elsewhere", b"secret"):
            assert secret not in written
    assert sorted(set(report.catalog.table["kind"].to_pylist())) == ["packed", "raw"], "only the harmless name is pointed to"


def test_new_scans_make_a_new_version_and_everybody_keeps_their_split(local_ray, scans, tmp_path):
    source, to = tmp_path / "source", str(tmp_path / "to")
    source.mkdir()
    paths = sorted(scans.iterdir())
    for path in paths[:5]:
        (source / path.name).write_bytes(path.read_bytes())
    first = prepare(PrepareConfig(source=str(source), to=to)).catalog
    again = prepare(PrepareConfig(source=str(source), to=to))
    assert (again.is_new, again.num_resumed, again.catalog.version) == (False, 5, 1)
    for path in paths[5:]:
        (source / path.name).write_bytes(path.read_bytes())
    report = prepare(PrepareConfig(source=str(source), to=to))
    assert (report.num_resumed, report.catalog.version, len(report.catalog)) == (5, 2, 18)
    before, after = (dict(zip(t["patient"].to_pylist(), t["split"].to_pylist(), strict=True)) for t in (first.table, report.catalog.table))
    assert {patient: after[patient] for patient in before} == before
    assert len(load_catalog(f"{to}@1")) == 10
    with pytest.raises(ConfigError, match="salt"):
        prepare(PrepareConfig(source=str(source), to=to, salt="another"))


def write_split_folders(folder: Path) -> None:
    """A data set with a leaking patient, a scan in two splits, a copy of twice its values, and what belongs to no split."""
    kspace = [random_kspace((1, 3, 32, 24), seed=seed) for seed in range(8)]
    scans = {
        "multicoil_train/Doe_Jane": (kspace[0], "17"),
        "multicoil_train/file2": (kspace[1], "18"),
        "multicoil_train/file3": (kspace[2], "19"),
        "multicoil_val/file4": (kspace[3], "17"),
        "multicoil_val/file5": (kspace[1], "20"),
        "multicoil_val/file6": (kspace[2] * 2, "21"),
        "multicoil_test/file7": (kspace[4], "22"),
        "anatomy_generalization_challenge/ankle/file8": (kspace[5], "23"),
        "elsewhere/file9": (kspace[6], "24"),
    }
    for name, (values, patient) in scans.items():
        write_scan(folder / f"{name}.h5", values, attributes={"patient_id": patient})
    header = header_xml(32, 24, protocol="AAKnee_Scout")
    write_scan(folder / "multicoil_train/file10.h5", kspace[7], header=header, attributes={"patient_id": "25"})


def splits_in(catalog) -> dict[str, str]:
    return dict(zip(catalog.table["volume"].to_pylist(), catalog.table["split"].to_pylist(), strict=True))


def test_the_split_of_a_data_sets_folders_is_kept_and_what_it_leaks_is_told(local_ray, tmp_path, capsys):
    source, to = tmp_path / "source", str(tmp_path / "to")
    write_split_folders(source)
    command = [str(source), "--to", to, "--split-from", "folders", "--leave-out", "localizers", "--safe-names", r"file\d+"]
    assert main(command) == 0
    told = " ".join(capsys.readouterr().out.split())
    catalog = load_catalog(to)
    splits = splits_in(catalog)
    jane = next(volume for volume in splits if volume.startswith("volume-") or volume == "Doe_Jane")
    assert splits == {jane: "train", "file3": "train", "file4": "val", "file5": "val", "file6": "val", "file7": "test"}
    assert len(catalog.manifest["leaks"]["patients"]) == 1
    assert catalog.manifest["leaks"]["scaled_copies"] == [[["scans", "file3"], ["scans", "file6"]]]
    for sentence in ("leaks 1 patients (1 in train and val)", "1 scans are in two given splits", "2 scans are copies of one another"):
        assert sentence in told
    reasons = " / ".join(sorted(entry["reason"] for entry in catalog.manifest["left_out"]))
    assert len(catalog.manifest["left_out"]) == 4
    for reason in ("held out in val", "name: localizers", "challenge's own test set", "in no folder of the given split"):
        assert reason in reasons
    # The same command changes nothing; another rule is refused; new scans join by the same rule.
    assert main(command) == 0
    assert load_catalog(to).version == 1
    assert main([str(source), "--to", to]) == 2
    assert "was split from folders" in capsys.readouterr().err
    write_scan(source / "multicoil_test/file11.h5", random_kspace((1, 3, 32, 24), seed=11), attributes={"patient_id": "26"})
    assert main(command) == 0
    assert splits_in(load_catalog(to)) == splits | {"file11": "test"}


def test_a_list_of_files_or_patients_in_s3_splits_a_source_by_its_own_names(local_ray, tmp_path, monkeypatch):
    source = tmp_path / "source"
    for number in range(4):
        write_scan(source / f"Doe_{number}.h5", random_kspace((1, 3, 32, 24), seed=number), attributes={"patient_id": f"MRN-{number}"})
    with serve_folder(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ECHOTRAIN_DEID_SALT", "a secret of some length")
        bucket = server.create_bucket("lab")
        open_store(bucket).write("files.csv", b"file,split\nDoe_0,train\nDoe_1.h5,val\nDoe_2,test\n")
        open_store(bucket).write("patients.json", b'{"train": ["MRN-0"], "val": ["mrn-1"], "test": ["MRN-2"]}')
        catalogs = []
        for kind in ("files=" + f"{bucket}/files.csv", "patients=" + f"{bucket}/patients.json"):
            to = tmp_path / kind.partition("=")[0]
            assert main([str(source), "--to", str(to), "--split-from", kind]) == 0
            catalogs.append(load_catalog(str(to)))
            assert b"mrn-1" not in everything_in(to).lower()
    assert [sorted(catalog.table["split"].to_pylist()) for catalog in catalogs] == [["test", "train", "val"]] * 2
    assert splits_in(catalogs[0]) == splits_in(catalogs[1])
    assert [len(catalog.manifest["left_out"]) for catalog in catalogs] == [1, 1]


def test_a_catalog_of_the_public_key_goes_on_and_keeps_its_ids_whatever_they_would_be_today(local_ray, tmp_path, monkeypatch):
    source, to = tmp_path / "source", str(tmp_path / "to")
    for number in range(4):
        write_scan(source / f"knee_of_Doe_{number}.h5", random_kspace((1, 2, 32, 24), seed=number))
    # As such catalogs were made: every name was taken for a safe one.
    old = ConvertConfig(safe_names=(".*",))
    first = prepare(PrepareConfig(source=str(source), to=to, convert=old, salt=PUBLIC_SALT))
    assert first.notes == ()
    report = prepare(PrepareConfig(source=str(source), to=to))
    assert report.num_resumed == 0, "other settings, so that every scan is converted anew"
    assert "goes on with it" in report.notes[0]
    assert report.notes[1].startswith("4 scans keep the volume ids")
    columns = ["dataset", "volume", "slice", "patient", "split"]
    assert report.catalog.table.select(columns).equals(first.catalog.table.select(columns))
    assert report.catalog.manifest["salt_check"] == first.catalog.manifest["salt_check"]


def test_of_a_small_study_numbered_from_1_nobody_is_in_two_splits(local_ray, tmp_path):
    for subject in range(1, 10):
        for index, contrast in enumerate(("AXT1", "AXT2")):
            subject_xml = f"<subjectInformation><patientID>{subject}</patientID></subjectInformation>"
            header, kspace = header_xml(32, 24, extra=subject_xml), random_kspace((1 + subject % 3, 2, 32, 24), seed=2 * subject + index)
            write_scan(tmp_path / "study" / f"s{subject}_{contrast}.h5", kspace, header=header, attributes={"patient_id": ""})
    convert = ConvertConfig(safe_names=(r"s\d_AXT\d",))
    table = prepare(PrepareConfig(source=str(tmp_path / "study"), to=str(tmp_path / "to"), convert=convert)).catalog.table
    rows = zip(table["volume"].to_pylist(), table["split"].to_pylist(), strict=True)
    splits: dict[str, set[str]] = {}
    for volume, split in rows:
        splits.setdefault(volume[:2], set()).add(split)
    assert [len(found) for found in splits.values()] == [1] * 9
    assert set.union(*splits.values()) == {"train", "val", "test"}


def test_a_job_that_is_overtaken_commits_on_top_of_what_the_other_wrote(local_ray, scans, tmp_path, monkeypatch):
    to, paths = str(tmp_path / "to"), sorted(scans.iterdir())
    for folder, part in (("one", paths[:5]), ("two", paths[5:])):
        (tmp_path / folder).mkdir()
        for path in part:
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    write, overtaken = LocalStore.write, []

    def overtakes(self, key, data, **options):
        if key == "catalog/v000001.json" and not overtaken:
            overtaken.append(key)
            prepare(PrepareConfig(source=str(tmp_path / "two"), to=to))
        return write(self, key, data, **options)

    monkeypatch.setattr(LocalStore, "write", overtakes)
    report = prepare(PrepareConfig(source=str(tmp_path / "one"), to=to))
    assert (report.catalog.version, len(report.catalog)) == (2, 18)
    assert load_catalog(to).table.equals(report.catalog.table)
    assert len(load_catalog(f"{to}@1")) == 8


def test_what_travels_to_the_workers_shows_no_secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    limits = PrepareConfig(source="a", to="b").limits
    deidentifier, environment = prepare_module.Deidentifier("hunter2"), DriverEnvironment.here()
    task = prepare_module._Task(store_uri="b", config=ConvertConfig(), limits=limits, deidentifier=deidentifier, environment=environment)
    setup = WorkerSetup(method=InferenceConfig(run="r"))
    training = WorkerArguments(notes=None, group_id="g", environment=environment)
    recipe = Recipe(LinesData(catalog="c"), 0, StreamConfig(), environment, 1, Attempts(None, "k", 1))
    for told in (task, setup, training, recipe):
        fields = recipe._asdict() if told is recipe else dataclasses.asdict(told)
        exported = str(sanitize_for_struct(told)) + repr(told) + str(fields)
        assert "AWS_SECRET_ACCESS_KEY" in exported
        assert "hunter2" not in exported


def test_a_scan_whose_reader_keeps_dying_is_given_up_with_a_reason(scans, tmp_path):
    store = LocalStore(tmp_path / "to")
    source = find_sources(str(scans))[0]
    item = {"uri": source.uri, "size": source.size, "version": source.version, "members": [], "key": "scan-1"}
    task = prepare_module._Task(
        store_uri=store.uri,
        config=ConvertConfig(),
        limits=PrepareConfig(source="a", to="b").limits,
        deidentifier=prepare_module.Deidentifier(),
        environment=DriverEnvironment({}),
    )
    for attempt in range(3):
        store.write(f"attempts/scan-1-{attempt}", b"")
    result = prepare_module._convert_item(item, task)
    assert "died 3 times" in str(result.values)
    assert list(store.list()) == []
    assert "died" not in str(prepare_module._convert_item(item, task).values)
    assert [found.key.split("/")[0] for found in store.list()] == ["prepared", "shards"]


def test_kinds_to_leave_out_are_one_setting_in_any_order(scans):
    def left_out(*words: str) -> tuple[str, ...]:
        config = read(parser().parse_args([str(scans), "--to", "b", *words]))
        return config.convert.curation.leave_out

    assert left_out() == ()
    assert left_out("--leave-out", "dess, localizers") == left_out("--leave-out", "localizers,dess,") == ("localizers", "dess")
    assert left_out("--leave-out", "mosaic") == MOSAIC_KINDS
    assert left_out("--leave-out", "propeller,mosaic") == PROTOCOL_KINDS


def test_raw_from_a_folder_to_s3_and_senseless_settings_are_refused_at_once(scans, capsys):
    with pytest.raises(ConfigError, match=r"payload=raw from the folder .*cannot read"):
        PrepareConfig(source=str(scans), to="s3://lab/knee", convert=ConvertConfig(payload="raw"))
    assert main([str(scans), "--to", "s3://lab/x", "--payload", "raw"]) == 2
    assert main([str(scans / "missing"), "--to", "/tmp/nowhere"]) == 2
    assert main([str(scans), "--to", "/tmp/nowhere", "--split", "70/30"]) == 2
    assert main([str(scans), "--to", "ftp://nowhere"]) == 2
    assert main([str(scans), "--to", "/tmp/nowhere", "--workers", "-1"]) == 2
    assert main([str(scans), "--to", "/tmp/nowhere", "--split-from", "folders", "--split", "70/15/15"]) == 2
    assert main([str(scans), "--to", "/tmp/nowhere", "--split-from", "folders"]) == 2
    assert main([str(scans), "--to", "/tmp/nowhere", "--split-from", "files"]) == 2
    assert main([str(scans), "--to", "/tmp/nowhere", "--split-from", "files=/tmp/nowhere.csv"]) == 2
    assert main([str(scans), "--to", "/tmp/nowhere", "--leave-out", "localizers,scouts"]) == 2
    assert capsys.readouterr().err.count("error: ") == 10
    with pytest.raises(ConfigError, match="has no effect where the split is given"):
        PrepareConfig(source=str(scans), to="b", split=SplitConfig(seed=1), given_split=GivenSplitConfig(kind="folders"))
    assert not Path("/tmp/nowhere").exists()


@pytest.mark.slow
def test_a_killed_job_resumes_where_it_was_with_nothing_twice_and_nothing_lost(tmp_path):
    source, to = tmp_path / "source", tmp_path / "to"
    simulate(SimulationConfig(num_patients=30, volumes_per_patient=1, num_slices=1, matrix=48), source)
    command = [sys.executable, "-m", "ray_jobs.prepare", str(source), "--to", str(to), "--workers", "1"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "library")]), "RAY_ADDRESS": "local"}
    # A session of its own, so that the kill takes the cluster along, as it takes a job's container.
    with (tmp_path / "log").open("wb") as log:
        job = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while len(list(to.glob("prepared/*.json"))) < 3 and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert job.poll() is None, (tmp_path / "log").read_text()[-2000:]
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    time.sleep(1)
    done = {path: path.stat().st_mtime_ns for path in [*to.glob("prepared/*.json"), *to.glob("shards/*.bin")]}
    records = [path for path in done if path.suffix == ".json"]
    assert 3 <= len(records) < 30
    assert not list(to.glob("catalog/*")), "the commit comes last"
    finished = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert f"{len(records)} prepared before" in finished.stdout
    shards_of_records = {to / "shards" / f"{path.stem}-00000.bin" for path in records}
    for path in (*records, *shards_of_records):
        assert path.stat().st_mtime_ns == done[path], "what was finished is not touched again"
    catalog = load_catalog(str(to))
    assert len(catalog) == 30
    assert catalog.version == 1
    assert_payloads_are_whole(catalog)
    assert len(list(to.glob("shards/*.bin"))) == 30


@pytest.mark.parametrize("is_s3", [True, False])
def test_the_job_indexes_scans_of_any_name_and_what_it_tells_to_trust_reads_them(local_ray, tmp_path, keyed_s3, capsys, is_s3):
    places = ["//a b.h5", "x//#1?.h5", "Kö pf/50%+.h5"] if is_s3 else ["a b.h5", "link to #1/50%+?.h5", "Kö pf/膝.h5"]
    source = f"{'s3://lab//raw' if is_s3 else tmp_path / 'raw'} #1"
    for number, place in enumerate(places):
        kspace = object_kspace((2, 2, 32, 24), seed=number)
        folder = tmp_path / "pool" if place.startswith("link") else Path(source)
        path = tmp_path / f"{number}.h5" if is_s3 else folder / place.removeprefix("link to #1/")
        write_scan(path, kspace, attributes={"max": 99.0, "patient_id": f"qz{number}"})
        keyed_s3.objects["lab", f"/raw #1/{place}"] = path.read_bytes()
    if not is_s3:
        (Path(source) / "link to #1").symlink_to(tmp_path / "pool")
    command = [source, "--to", str(tmp_path / "to"), "--payload", "raw", "--index-only", "--safe-names", ".*", "--split", "100/0/0"]
    assert main(command) == 0
    told = capsys.readouterr().out.partition("that they trust that place: ")[2].splitlines()[0]
    trusted = override(Experiment(), [shlex.split(told)[0]]).data.trusted
    stream = PlannedStream(LinesData(catalog=str(tmp_path / "to"), trusted=trusted), seed=0, batch_size=6)
    (step,) = stream.steps(0)
    stream.close()
    assert set(stream.catalog.table["uri"].to_pylist()) == {f"{source}/{place}" for place in places}
    read = {step.batches[0].kspace[i].numpy().tobytes() for i in range(6)}
    assert read == {kspace.tobytes() for number in range(3) for kspace in object_kspace((2, 2, 32, 24), seed=number)}


def test_an_object_that_vanishes_or_shrinks_is_left_out_and_the_job_goes_on(local_ray, tmp_path, monkeypatch):
    for number in range(3):
        write_scan(tmp_path / "s3" / "lab" / f"scan{number}.h5", random_kspace((2, 2, 32, 24), seed=number), attributes={"max": 99.0})
    with serve_throttled(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        server.inject(Fault(kind="missing", key="scan1.h5", method="GET"))
        convert, split = ConvertConfig(payload="raw", index_only=True, safe_names=(r"scan\d",)), SplitConfig(ratios=(1, 0, 0))
        config = PrepareConfig(source="s3://lab", to=str(tmp_path / "to"), convert=convert, split=split)
        report = prepare(config)
    assert [entry.reason for entry in report.left_out] == ["the file: changed after it was listed"]
    assert len(report.catalog) == 4
