"""BART as a process: found, fed and read back; and whatever goes wrong in it is a typed error that leaves nothing behind."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from echotrain.baselines import bart
from echotrain.baselines.bart import Bart, find_bart
from echotrain.errors import BartError, ResourceError, StorageError, StorageFullError
from echotrain.physics.fft import fft2c

ONE = np.ones(1, np.complex64)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return the two folders that scratch folders are made in: in memory, and the system's."""
    in_memory, on_disk = tmp_path / "memory", tmp_path / "disk"
    in_memory.mkdir()
    on_disk.mkdir()
    monkeypatch.setattr(bart, "_MEMORY_FOLDER", in_memory)
    monkeypatch.setattr(tempfile, "tempdir", str(on_disk))
    return in_memory, on_disk


@pytest.fixture
def impostor(tmp_path):
    """Return a maker of executables that stand in for BART."""

    def make(script: str, name: str = "bart") -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def left_behind(scratch) -> list[Path]:
    return [path for folder in scratch for path in folder.iterdir()]


def test_bart_is_sought_in_the_variable_then_on_path_then_in_the_environment(tmp_path, impostor, monkeypatch):
    for place in ("named", "path", "environment/bin"):
        (tmp_path / place).mkdir(parents=True)
        impostor("", f"{place}/bart")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("ECHOTRAIN_BART", str(tmp_path / "named" / "bart"))
    assert find_bart() == tmp_path / "named" / "bart"
    monkeypatch.delenv("ECHOTRAIN_BART")
    assert find_bart() == tmp_path / "path" / "bart"
    monkeypatch.setenv("PATH", "")
    assert find_bart() == tmp_path / "environment" / "bin" / "bart"


def test_a_relative_place_is_made_absolute_because_bart_runs_elsewhere(tmp_path, impostor, monkeypatch):
    impostor("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECHOTRAIN_BART", "./bart")
    assert find_bart().is_absolute()
    Bart(executable=find_bart()).run("version", [], [], num_outputs=0)


def test_a_missing_bart_is_an_error_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("ECHOTRAIN_BART", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(ResourceError, match=r"neither on PATH nor in this Python environment.*make bart"):
        find_bart()


def test_a_variable_that_names_no_executable_is_an_error_even_where_path_has_one(tmp_path, impostor, monkeypatch):
    impostor("")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ECHOTRAIN_BART", str(tmp_path / "elsewhere"))
    with pytest.raises(ResourceError, match=r"ECHOTRAIN_BART=.*elsewhere: is no executable file"):
        find_bart()


def test_a_crash_tells_the_last_line_without_its_colours_and_removes_the_scratch_folder(impostor, scratch):
    crashing = impostor(r"""echo starting >&2; printf '\033[31mERROR: Calibration region not found!\n\033[0m\n' >&2; exit 134""")
    with pytest.raises(BartError) as raised:
        Bart(executable=crashing).run("ecalib", ["-m1"], [ONE])
    assert raised.value.value == "bart ecalib -m1 in0 out0"
    assert raised.value.limit == "ended with status 134: ERROR: Calibration region not found!"
    assert not left_behind(scratch)


@pytest.mark.parametrize(
    ("name", "message"),
    [("ABRT", r"signal 6 \(Aborted\)"), ("KILL", "signal 9 .*memory ran out"), ("BUS", "signal 7 .*scratch folder is full")],
)
def test_an_end_by_a_signal_is_named(impostor, scratch, name, message):
    with pytest.raises(BartError, match=message):
        Bart(executable=impostor(f"kill -{name} $$")).run("pics", [], [ONE])
    assert not left_behind(scratch)


def test_a_tool_that_takes_too_long_is_ended_with_all_that_it_has_started(impostor, scratch, tmp_path):
    survivor = tmp_path / "survivor"
    slow = impostor(f"(sleep 2; touch '{survivor}') & wait")
    with pytest.raises(BartError, match=r"bart pics in0 out0: took longer than timeout_s=0\.5"):
        Bart(executable=slow, timeout_s=0.5).run("pics", [], [ONE])
    assert not left_behind(scratch)
    time.sleep(2)
    assert not survivor.exists()


@pytest.mark.parametrize("script", ["exit 0", "printf '# Dimensions\n1048576 1048576 1024\n' > out0.hdr; : > out0.cfl"])
def test_a_tool_that_leaves_no_readable_output_is_an_error(impostor, scratch, script):
    with pytest.raises(BartError, match="bart pics: left no output that can be read"):
        Bart(executable=impostor(script)).run("pics", [], [ONE])
    assert not left_behind(scratch)


def test_bart_gets_one_thread_whatever_the_process_has(impostor, scratch, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with pytest.raises(BartError, match="threads 1 1"):
        Bart(executable=impostor('echo "threads $OMP_NUM_THREADS $OPENBLAS_NUM_THREADS" >&2; exit 1')).run("pics", [], [ONE])


@pytest.mark.parametrize(("free", "folder"), [(1 << 30, "memory"), (100, "disk")])
def test_scratch_files_are_in_memory_where_there_is_room_and_on_disk_else(impostor, scratch, monkeypatch, free, folder):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))
    with pytest.raises(BartError, match=f"/{folder}/echotrain-bart-"):
        Bart(executable=impostor("pwd >&2; exit 1")).run("pics", [], [np.ones(100, np.complex64)])


def test_without_a_folder_in_memory_the_system_chooses(impostor, scratch, monkeypatch):
    monkeypatch.setattr(bart, "_MEMORY_FOLDER", Path("/nowhere/shm"))
    with pytest.raises(BartError, match="/disk/echotrain-bart-"):
        Bart(executable=impostor("pwd >&2; exit 1")).run("pics", [], [ONE])


@pytest.mark.parametrize(("number", "error"), [(28, StorageFullError), (13, StorageError)])
def test_a_scratch_folder_that_cannot_be_written_is_a_storage_error(impostor, scratch, monkeypatch, number, error):
    def fail(*_):
        raise OSError(number, "no", "in0.cfl")

    monkeypatch.setattr(bart, "write_cfl", fail)
    with pytest.raises(error, match="TMPDIR"):
        Bart(executable=impostor("exit 0")).run("pics", [], [ONE])
    assert not left_behind(scratch)


def test_an_executable_that_does_not_start_is_an_error(tmp_path, scratch):
    (tmp_path / "bart").write_bytes(b"\x7fELF nothing of the sort")
    (tmp_path / "bart").chmod(0o755)
    with pytest.raises(BartError, match=r"cannot be started \(Exec format error\)"):
        Bart(executable=tmp_path / "bart").run("pics", [], [ONE])
    assert not left_behind(scratch)


@pytest.mark.bart
@pytest.mark.parametrize("shape", [(8, 12), (7, 9), (8, 9)])
def test_the_unitary_transform_of_bart_is_the_centred_orthonormal_one(shape):
    rng = np.random.default_rng(0)
    image = (rng.standard_normal((3, *shape)) + 1j * rng.standard_normal((3, *shape))).astype(np.complex64)
    (kspace,) = Bart(executable=find_bart()).run("fft", ["-u", "6"], [image])
    np.testing.assert_allclose(kspace, fft2c(torch.from_numpy(image)).numpy(), atol=1e-5)


@pytest.mark.bart
def test_a_tool_with_two_outputs_returns_both():
    kspace = (np.ones((1, 24, 24, 2)) + np.random.default_rng(0).standard_normal((1, 24, 24, 2))).astype(np.complex64)
    maps, eigenvalues = Bart(executable=find_bart()).run("ecalib", ["-d0", "-m1"], [kspace], num_outputs=2)
    assert (maps.shape, eigenvalues.shape) == ((1, 24, 24, 2), (1, 24, 24))


@pytest.mark.bart
def test_a_failed_assertion_of_bart_reaches_the_user(scratch):
    with pytest.raises(BartError, match=r"bart ecalib .*: (was ended by signal 6|ended with status 134).*Calibration region not found"):
        Bart(executable=find_bart()).run("ecalib", [], [np.zeros((1, 16, 16, 2), np.complex64)])
    assert not left_behind(scratch)
