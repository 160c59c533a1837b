"""Scanner files of strangers: damaged, contradictory, hostile. Each is refused in no time, by name, with a reason."""

import contextlib
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from echotrain.data.formats import ReadLimits, open_volume
from echotrain.errors import ScanError
from tests.scans import curate, header_xml, lines_of, random_kspace, write_ismrmrd, write_scan, write_twix

TERABYTE = (1000, 32, 2048, 2048)


def truncated(path: Path) -> None:
    write_scan(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_but_for_its_superblock(path: Path) -> None:
    write_scan(path)
    path.write_bytes(path.read_bytes()[:200])


def not_hdf5(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 this is a zip file" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_kspace(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header_xml(32, 24)


def without_header(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"] = random_kspace((2, 3, 32, 24))


def of_wrong_rank(path: Path) -> None:
    write_scan(path, random_kspace((2, 2, 3, 32, 24)), target=None)


def of_real_numbers(path: Path) -> None:
    write_scan(path, random_kspace((2, 3, 32, 24)).real, target=None)


def of_no_slices(path: Path) -> None:
    write_scan(path, np.zeros((0, 3, 32, 24), np.complex64), target=None)


def of_another_matrix(path: Path) -> None:
    write_scan(path, header=header_xml(32, 25))


def of_a_spiral(path: Path) -> None:
    write_scan(path, header=header_xml(32, 24, trajectory="spiral"))


def with_a_terabyte_never_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header_xml(2048, 2048)
        file.create_dataset("kspace", shape=TERABYTE, dtype=np.complex64)


def with_a_terabyte_of_missing_chunks(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header_xml(2048, 2048)
        file.create_dataset("kspace", shape=TERABYTE, dtype=np.complex64, chunks=(1, 1, 64, 64), compression="gzip")


def with_a_terabyte_of_holes(path: Path) -> None:
    with_a_terabyte_never_written(path)
    with h5py.File(path, "a") as file:
        del file["kspace"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"kspace", h5py.h5t.py_create(np.dtype(np.complex64)), h5py.h5s.create_simple(TERABYTE), plist)


def with_chunks_never_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header_xml(64, 64)
        file.create_dataset("kspace", shape=(8, 4, 64, 64), dtype=np.complex64, chunks=(1, 4, 64, 64))
        file["kspace"][0] = random_kspace((4, 64, 64))


def with_a_damaged_chunk(path: Path) -> None:
    write_scan(path, target=None, chunks=(1, 3, 32, 24), compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        offset = file["kspace"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 50] ^= 0xFF
    path.write_bytes(content)


def with_an_unknown_filter(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header_xml(32, 24)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 3, 32, 24))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((2, 3, 32, 24))
        h5py.h5d.create(file.id, b"kspace", h5py.h5t.py_create(np.dtype(np.complex64)), space, plist)


def with_a_soft_link(path: Path) -> None:
    write_scan(path)
    with h5py.File(path, "a") as file:
        file.move("kspace", "elsewhere")
        file["kspace"] = h5py.SoftLink("/elsewhere")


def with_an_external_link(path: Path) -> None:
    write_scan(path.with_name("other.h5"))
    write_scan(path)
    with h5py.File(path, "a") as file:
        del file["kspace"]
        file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")


def with_bytes_in_another_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header_xml(32, 24)
        shape = (2, 3, 32, 24)
        file.create_dataset("kspace", shape, np.complex64, external=[("/etc/passwd", 0, int(np.prod(shape)) * 8)])


def with_a_virtual_dataset(path: Path) -> None:
    write_scan(path)
    with h5py.File(path, "a") as file:
        del file["kspace"]
        layout = h5py.VirtualLayout((2, 3, 32, 24), np.complex64)
        layout[:] = h5py.VirtualSource("other.h5", "kspace", shape=(2, 3, 32, 24))
        file.create_virtual_dataset("kspace", layout)


def with_an_xml_bomb(path: Path) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE h [<!ENTITY e0 "bomb">{entities}]><ismrmrdHeader>&e11;</ismrmrdHeader>'
    write_scan(path, header=bomb.encode())


def with_an_external_entity(path: Path) -> None:
    write_scan(
        path, header=b'<?xml version="1.0"?><!DOCTYPE h [<!ENTITY f SYSTEM "file:///etc/passwd">]><ismrmrdHeader>&f;</ismrmrdHeader>'
    )


def with_broken_xml(path: Path) -> None:
    write_scan(path, header=b"<ismrmrdHeader><encoding>")


def with_an_empty_xml(path: Path) -> None:
    write_scan(path, header=b"<ismrmrdHeader/>")


def with_a_huge_matrix_in_its_header(path: Path) -> None:
    write_scan(path, header=header_xml(32, 999_999_999_999_999))


def with_words_for_numbers(path: Path) -> None:
    write_scan(path, header=header_xml(32, 24).replace(b"<x>32</x>", b"<x>many</x>"))


def with_a_numeric_header(path: Path) -> None:
    write_scan(path, header=np.arange(10))


def with_a_mask_of_another_width(path: Path) -> None:
    write_scan(path)
    with h5py.File(path, "a") as file:
        file["mask"] = np.ones(100)


BAD_FILES = {
    truncated: "complete HDF5",
    truncated_but_for_its_superblock: "complete HDF5",
    not_hdf5: "no format",
    empty: "no format",
    without_kspace: "kspace",
    without_header: "ismrmrd_header",
    of_wrong_rank: r"shape \(2, 2, 3, 32, 24\)",
    of_real_numbers: "float32.*complex",
    of_no_slices: "shape",
    of_another_matrix: "32 x 25.*32 x 24",
    of_a_spiral: "spiral",
    with_a_terabyte_never_written: "1.1 TB.*at most 137.4 GB",
    with_a_terabyte_of_missing_chunks: "1.1 TB",
    with_a_terabyte_of_holes: "1.1 TB",
    with_chunks_never_written: "declares",
    with_a_damaged_chunk: "readable",
    with_an_unknown_filter: "filter 32015",
    with_a_soft_link: "SoftLink",
    with_an_external_link: "ExternalLink",
    with_bytes_in_another_file: "other files",
    with_a_virtual_dataset: "other files",
    with_an_xml_bomb: "never expanded",
    with_an_external_entity: "never expanded",
    with_broken_xml: "ISMRMRD XML",
    with_an_empty_xml: "matrixSize",
    with_a_huge_matrix_in_its_header: "65536",
    with_words_for_numbers: "many",
    with_a_numeric_header: "one string",
    with_a_mask_of_another_width: "mask of 100",
}


def inspect(path: Path, limits: ReadLimits | None = None) -> None:
    with open_volume(path, limits=limits) as volume:
        curate(volume)


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__)
def test_a_bad_file_is_refused_by_name_at_once_and_without_memory(tmp_path, make):
    path = tmp_path / "bad.h5"
    make(path)
    inspect(write_scan(tmp_path / "good.h5"))
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(ScanError, match=BAD_FILES[make]) as caught:
        inspect(path)
    seconds, peak = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 2
    assert peak < 32 << 20
    assert "bad.h5" in str(caught.value)
    assert caught.value.remedy


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ScanError, match=r"bad\.h5"):
        open_volume(tmp_path / "bad.h5")


def test_limits_are_adjustable(tmp_path):
    path = write_scan(tmp_path / "scan.h5")
    with pytest.raises(ScanError, match=r"slice of 18\.4 kB.*at most 1\.0 kB"):
        inspect(path, ReadLimits(slice_bytes=1000))
    with pytest.raises(ScanError, match=r"volume of 36\.9 kB"):
        inspect(path, ReadLimits(volume_bytes=20_000))


def test_a_raw_file_whose_matrix_would_not_fit_in_memory_is_refused(tmp_path):
    path = write_ismrmrd(tmp_path / "raw.h5", header_xml(60_000, 60_000), lines_of(random_kspace((3, 16, 12))))
    with pytest.raises(ScanError, match=r"raw\.h5.*at most 2\.1 GB"):
        inspect(path)


@pytest.mark.parametrize("size", [9, 5000, 15_000])
def test_truncated_twix_is_refused(tmp_path, size):
    pytest.importorskip("twixtools")
    readouts = [
        (samples, {"Lin": values["kspace_encode_step_1"], "CenterLin": 6}) for samples, values in lines_of(random_kspace((3, 16, 12)))
    ]
    path = write_twix(tmp_path / "scan.dat", "sKSpace.lBaseResolution = 16", readouts)
    inspect(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ScanError, match=r"scan\.dat"):
        inspect(path)


def test_twix_that_claims_to_have_no_length_does_not_hang(tmp_path):
    pytest.importorskip("twixtools")
    sync = (np.zeros((1, 4), np.complex64), {"flags": ("SYNCDATA",), "FlagsAndDMALength": 0})
    path = write_twix(tmp_path / "scan.dat", "", [sync])
    with pytest.raises(ScanError, match="chain of readouts"):
        inspect(path)


@pytest.mark.parametrize("filler", [" ", "\n", "<ParamString.", "sKSpace.lBaseResolution = "])
def test_a_protocol_of_megabytes_of_filler_takes_no_time(tmp_path, filler):
    pytest.importorskip("twixtools")
    readouts = [
        (samples, {"Lin": values["kspace_encode_step_1"], "CenterLin": 6}) for samples, values in lines_of(random_kspace((3, 16, 12)))
    ]
    path = write_twix(tmp_path / "scan.dat", filler * (4_000_000 // len(filler)), readouts)
    start = time.monotonic()
    inspect(path)
    assert time.monotonic() - start < 5


def test_real_twix_files_cut_anywhere_are_refused(scanner_data, tmp_path):
    pytest.importorskip("twixtools")
    for source in sorted((scanner_data / "siemens").glob("*.dat")):
        content = source.read_bytes()
        for part in (0.1, 0.5, 0.9, 0.99):
            path = tmp_path / source.name
            path.write_bytes(content[: int(len(content) * part)])
            with pytest.raises(ScanError, match=source.name):
                inspect(path)


@pytest.mark.parametrize("kind", ["fastmri", "ismrmrd", "twix"])
def test_damage_anywhere_is_a_scan_error_or_goes_unnoticed_but_nothing_else(tmp_path, kind):
    if kind == "twix":
        pytest.importorskip("twixtools")
    # In a process of its own: the HDF5 library is not safe against every damage, and a crash must not take the tests along.
    command = [sys.executable, "-c", f"from tests.faults.test_bad_scans import damage; damage({kind!r}, {str(tmp_path)!r})"]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "library")])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=root, env=env)
    assert done.returncode == 0, done.stderr[-2000:]


def damage(kind: str, folder: str) -> None:
    """Flip bytes of a good file, and cut it, 150 times; anything but a ``ScanError`` gets out."""
    path, damaged = Path(folder) / "scan.bin", Path(folder) / "damaged.bin"
    kspace = random_kspace((3, 16, 12))
    if kind == "fastmri":
        write_scan(path, kspace[None])
    elif kind == "ismrmrd":
        write_ismrmrd(path, header_xml(16, 12), lines_of(kspace))
    else:
        readouts = [(samples, {"Lin": values["kspace_encode_step_1"], "CenterLin": 6}) for samples, values in lines_of(kspace)]
        write_twix(path, "sKSpace.lBaseResolution = 16\n", readouts)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 6)):
            broken[position] = rng.integers(256)
        damaged.write_bytes(broken[: rng.integers(1, len(broken) + 1)] if rng.random() < 0.3 else broken)
        with contextlib.suppress(ScanError):
            inspect(damaged)
        # HDF5 keeps what it knows of a file by name and inode for as long as anything of it is open.
        damaged.unlink()
