"""CMRxRecon's files: every layout, what their places say, and what is refused."""

import struct
import time
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from echotrain.data.formats import Deidentifier, ReadLimits, open_volume
from echotrain.data.formats.deidentify import Witness
from echotrain.data.formats.hdf5 import Hdf5File
from echotrain.data.formats.write import write_matlab
from echotrain.data.preparing.curate import Rejection
from echotrain.errors import ScanError
from tests.scans import curate, object_kspace

HEIGHT, WIDTH = 36, 26


def cine(slices=3, frames=5, coils=4, height=HEIGHT, width=WIDTH, dtype=np.complex64):
    """Return k-space (slice, frame, coil, readout, phase), sizes different everywhere, each image another."""
    return object_kspace((slices * frames, coils, height, width)).reshape(slices, frames, coils, height, width).astype(dtype)


def matlab(kspace):
    """Return k-space as MATLAB has it: [nx, ny, nc, nz, nt]."""
    return np.moveaxis(kspace, (3, 4, 2, 0, 1), (0, 1, 2, 3, 4))


def write(path, kspace, key="kspace_full", **others):
    write_matlab(path, {key: matlab(kspace), **others})
    return path


def assert_is(volume, kspace):
    slices, frames, coils, height, width = kspace.shape
    header = volume.header
    assert (header.num_slices, header.num_frames, header.num_coils) == (slices, frames if frames > 1 else None, coils)
    assert (header.height, header.width, header.recon_height, header.recon_width) == (height, width, height, width)
    for image in range(header.num_images):
        slice_, frame = header.place(image)
        read = volume.read_slice(image)
        assert read.dtype == np.complex64
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, kspace[slice_, frame or 0].astype(np.complex64))


@pytest.mark.parametrize("compression", [3, None])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(
    ("slices", "frames", "coils", "size"),
    [(3, 5, 4, (36, 26)), (3, 1, 4, (36, 25)), (1, 5, 4, (25, 36)), (1, 1, 4, (26, 37)), (2, 4, 1, (37, 26)), (1, 1, 1, (36, 26))],
)
def test_what_is_written_is_read_back_bit_for_bit_in_every_layout(tmp_path, slices, frames, coils, size, dtype, compression):
    kspace = cine(slices, frames, coils, *size, dtype=dtype)
    write_matlab(tmp_path / "a.mat", {"kspace_full": matlab(kspace)}, compression=compression)
    with open_volume(tmp_path / "a.mat") as volume:
        assert_is(volume, kspace)
        assert volume.findings == (("stored in double precision: read in single",) if dtype == np.complex128 else ())


@pytest.mark.parametrize("key", ["kspace_full", "kspace"])
def test_keys_of_all_years_are_read_and_the_file_is_known_by_its_content(tmp_path, key):
    path = write(tmp_path / "a.h5", cine(), key)
    with open_volume(path) as volume:
        assert_is(volume, cine())


@pytest.mark.parametrize(("slices", "frames"), [(3, 5), (3, 1), (1, 1)])
def test_single_coil_files_lack_the_coil_axis_by_their_key(tmp_path, slices, frames):
    kspace = cine(slices, frames, 1)
    write_matlab(tmp_path / "a.mat", {"kspace_single_full": matlab(kspace)[:, :, 0]})
    with open_volume(tmp_path / "a.mat") as volume:
        assert_is(volume, kspace)


def test_a_struct_without_matlabs_block_and_complex_numbers_of_h5py_are_read_too(tmp_path):
    struct = np.dtype([("imag", ">f4"), ("real", ">f4")])
    stored = np.empty(matlab(cine()).T.shape, struct)
    stored["real"], stored["imag"] = matlab(cine()).T.real, matlab(cine()).T.imag
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["kspace"] = stored
    with h5py.File(tmp_path / "b.mat", "w") as file:
        file["kspace_full"] = matlab(cine()).T
    for name in ("a.mat", "b.mat"):
        with open_volume(tmp_path / name) as volume:
            assert_is(volume, cine())


@pytest.mark.parametrize("chunks", [(5, 3, 1, WIDTH, 9), (2, 1, 3, 7, HEIGHT), (5, 3, 4, WIDTH, HEIGHT)])
def test_chunks_that_hold_pieces_of_many_frames_are_inflated_once_and_read_right(tmp_path, chunks):
    stored = matlab(cine()).T.copy().view([("real", "<f4"), ("imag", "<f4")])
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("kspace", data=stored, chunks=chunks, compression=1)
    with open_volume(tmp_path / "a.mat") as volume:
        assert_is(volume, cine())
    with Hdf5File(tmp_path / "a.mat", cache_bytes=5 << 20) as file:
        assert file.root.id.get_access_plist().get_cache()[2] == 5 << 20


def test_the_file_is_what_is_known_of_matlabs(tmp_path):
    path = write(tmp_path / "a.mat", cine())
    write(tmp_path / "static.mat", cine(3, 1))
    write(tmp_path / "slice.mat", cine(1, 1))
    for name, shape in (("static", (3, 4, WIDTH, HEIGHT)), ("slice", (4, WIDTH, HEIGHT))):
        with h5py.File(tmp_path / f"{name}.mat") as file:
            assert file["kspace_full"].shape == shape, "MATLAB drops axes of one at the end"
    content = path.read_bytes()
    assert content.startswith(b"MATLAB 7.3 MAT-file, Platform: ")
    assert content[124:128] == b"\x00\x02IM"
    assert content[512:520] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(path) as file:
        dataset = file["kspace_full"]
        assert dataset.shape == (5, 3, 4, WIDTH, HEIGHT)
        assert dataset.dtype == np.dtype([("real", "<f4"), ("imag", "<f4")])
        assert dataset.attrs["MATLAB_class"] == b"single"
    assert content == write(tmp_path / "b.mat", cine()).read_bytes()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            "CMR/ChallengeData/MultiCoil/Cine/TrainingSet/FullSample/Center002/UIH_30T_umr780/P017/cine_sax.mat",
            ("cmrxrecon2025", "cine_sax", "Center002", "UIH", 3.0, "P017_cine_sax"),
        ),
        (
            "MultiCoil/Mapping/ValidationSet/FullSample/Center007/Siemens_055T_Freemax/P002/T1map.mat",
            ("cmrxrecon2025", "T1map", "Center007", "Siemens", 0.55, "P002_T1map"),
        ),
        (
            "MultiCoil/LGE/TrainingSet/FullSample/Center005/GE_15T_Voyager/P002/lge_new.mat",
            ("cmrxrecon2025", "LGE", "Center005", "GE", 1.5, None),
        ),
        (
            "MICCAIChallenge2024/ChallengeData/MultiCoil/Cine/TrainingSet/FullSample/P017/cine_lax.mat",
            ("cmrxrecon2024", "cine_lax", "", "Siemens", 3.0, "P017_cine_lax"),
        ),
        ("MultiCoil/Aorta/TrainingSet/FullSample/P017/aorta_sag.mat", ("cmrxrecon2024", "aorta_sag", "", "Siemens", 3.0, "P017_aorta_sag")),
        (
            "CMRxRecon2023/ChallengeData/MultiCoil/Mapping/TrainingSet/FullSample/P017/T2map.mat",
            ("cmrxrecon2023", "T2map", "", "Siemens", 3.0, "P017_T2map"),
        ),
        ("MultiCoil/Cine/TrainingSet/FullSample/P017/cine_sax.mat", ("cmrxrecon", "cine_sax", "", "", 0.0, "P017_cine_sax")),
        ("Jane_Doe/Center_of_Oz/GE_Jane_Doe/heart.mat", ("cmrxrecon", "", "", "", 0.0, None)),
    ],
)
def test_folders_say_year_modality_center_vendor_and_field_and_nothing_that_is_not_the_data_sets(tmp_path, place, said):
    path = tmp_path / place
    write(path, cine())
    with open_volume(path, location=str(path), deidentifier=Witness(Deidentifier("key"), str(path))) as volume:
        header = volume.header
        assert (header.dataset, header.modality, header.center, header.vendor) == said[:4]
        assert header.field_strength == pytest.approx(said[4])
        assert (header.volume == said[5]) if said[5] else header.volume.startswith("volume-")
        assert header.patient.split("-")[0] == ("patient" if "/P0" in place else "unnamed")
        assert "Jane" not in repr(header)


def test_the_collections_name_says_the_year_too_and_stays_as_it_is(tmp_path):
    path = write(tmp_path / "MultiCoil/Cine/TrainingSet/FullSample/P109/cine_sax.mat", cine())
    with open_volume(path, location=str(path), dataset="CMRxRecon2024") as volume:
        assert volume.header.dataset == "CMRxRecon2024"
        assert volume.header.num_frames == 2


BAD = {
    "Tagging/TrainingSet/FullSample/P087/tagging.mat": (slice(0, -3), [0, 1, 2]),
    "Aorta/TrainingSet/FullSample/P105/aorta_tra.mat": (slice(0, -12), [0, 1, 2, 3]),
    "Cine/TrainingSet/FullSample/P109/cine_sax.mat": (slice(0, -3), [0, 1, 2, 3]),
    "Cine/TrainingSet/FullSample/P100/cine_sax.mat": (slice(0, -4), [0, 2, 3]),
}


@pytest.mark.parametrize("place", BAD)
def test_parts_that_are_known_to_be_bad_are_left_out_and_told_where_the_path_says_that_they_are_of_that_data_set(tmp_path, place):
    kspace = object_kspace((4 * 14, 1, 32, 24)).reshape(4, 14, 1, 32, 24)
    frames, slices = BAD[place]
    path = write(tmp_path / "CMRxRecon2024" / "MultiCoil" / place, kspace)
    with open_volume(path, location=str(path)) as volume:
        assert_is(volume, kspace[slices][:, frames])
        assert any("left out the last" in found and "CMRxRecon 2024" in found for found in volume.findings)
    for other in (f"CMRxRecon2023/MultiCoil/{place}", f"CMRxRecon2024/{place}".replace("Training", "Test")):
        if "2023" in other and "Cine" not in place:
            continue
        path = write(tmp_path / other, kspace)
        with open_volume(path, location=str(path)) as volume:
            assert_is(volume, kspace)
            assert volume.findings == ()


def test_files_that_are_known_to_be_bad_are_refused_with_the_reason(tmp_path):
    for place in ("Aorta/TrainingSet/FullSample/P077/aorta_sag.mat", "Tagging/TrainingSet/FullSample/P105/tagging.mat"):
        path = write(tmp_path / "MultiCoil" / place, cine())
        with pytest.raises(ScanError, match="known to hold only background"):
            open_volume(path, location=str(path))
    path = write(tmp_path / "CMRxRecon2024/MultiCoil/Cine/TrainingSet/FullSample/P100/cine_sax.mat", cine(frames=4))
    with pytest.raises(ScanError, match="fewer than are known to be bad"):
        open_volume(path, location=str(path))


@pytest.mark.parametrize("key", ["kus", "kspace_sub04", "kspace_single_sub10", "kspace_sub_full"])
def test_undersampled_files_and_masks_are_refused_as_what_they_are(tmp_path, key):
    with pytest.raises(ScanError, match="undersampled already"):
        open_volume(write(tmp_path / "a.mat", cine(), key))
    write_matlab(tmp_path / "mask.mat", {"mask": np.ones((HEIGHT, WIDTH, 5), np.float32)})
    with pytest.raises(ScanError, match="a sampling mask"):
        open_volume(tmp_path / "mask.mat")
    write_matlab(tmp_path / "other.mat", {"img4ranking": np.ones((HEIGHT, WIDTH), np.float32)})
    with pytest.raises(ScanError, match="none is kspace_full"):
        open_volume(tmp_path / "other.mat")


@pytest.mark.parametrize("kind", ["lines", "kt", "radial"])
def test_k_space_with_a_mask_beside_it_and_masked_k_space_without_one_are_left_out_as_undersampled(tmp_path, kind):
    rng = np.random.default_rng(1)
    lines = rng.random((5, WIDTH)) < 0.4
    lines[:, WIDTH // 2 - 3 : WIDTH // 2 + 3] = True
    mask = np.broadcast_to(lines[:1] if kind == "lines" else lines, (5, WIDTH))[:, None] & np.ones((5, HEIGHT, WIDTH), bool)
    if kind == "radial":
        y, x = np.ogrid[:HEIGHT, :WIDTH]
        mask = np.stack([(abs((y - 18) * 2 - (x - 13) * t) < 3) | (abs(y - 18) + abs(x - 13) < 5) for t in range(5)])
    masked = cine() * mask[None, :, None]
    with open_volume(write(tmp_path / "a.mat", masked)) as volume:
        assert all("undersampled already" in rejection.reason for rejection in curate(volume))
        assert curate(volume)
    beside = np.moveaxis(mask, 0, -1) if kind != "lines" else mask[0]
    with open_volume(write(tmp_path / "b.mat", masked, mask=beside.astype(np.float64))) as volume:
        assert curate(volume)[0].slice is None
        assert "undersampled already" in curate(volume)[0].reason
        for image in range(volume.header.num_images):
            np.testing.assert_array_equal(volume.mask(image), mask[volume.header.place(image)[1]].all(axis=0))
    with open_volume(write(tmp_path / "c.mat", cine(), mask=beside)) as volume:
        assert "a mask lies beside a k-space that is full: it is not applied" in volume.findings
        assert curate(volume) == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"kspace_full": np.ones((HEIGHT, WIDTH, 4), np.float32)}, "must be complex"),
        ({"kspace_full": np.zeros((0, 4), np.complex64)}, "none of them empty"),
        ({"kspace_full": np.ones((8, 7, 6, 5, 4, 2), np.complex64)}, "must have 2 to 5 axes"),
        ({"kspace_full": np.ones((5, 3, 4, WIDTH, HEIGHT), np.complex64)}, "its axes are not"),
        ({"kspace_full": np.ones((HEIGHT, WIDTH), np.complex64), "mask": np.ones((WIDTH, HEIGHT))}, "must be"),
        ({}, "0 variables"),
    ],
)
def test_what_is_no_k_space_is_refused_by_name(tmp_path, variables, message):
    write_matlab(tmp_path / "a.mat", variables, compression=None)
    with pytest.raises(ScanError, match=message):
        open_volume(tmp_path / "a.mat")


@pytest.mark.parametrize("fields", [["r", "real"], ["re", "im"]])
def test_numbers_that_are_no_struct_of_real_and_imag_are_refused(tmp_path, fields):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["kspace_full"] = np.zeros((4, WIDTH, HEIGHT), [(name, "f4") for name in fields])
        file["kspace"] = np.zeros((4, WIDTH, HEIGHT), np.complex64)
    with pytest.raises(ScanError, match="must be complex, a struct of real and imag"):
        open_volume(tmp_path / "a.mat")


def test_an_image_that_is_too_large_for_single_precision_is_left_out(tmp_path):
    huge = cine(2, 2, dtype=np.complex128)
    huge[1, 1] *= 1e40
    with open_volume(write(tmp_path / "b.mat", huge)) as volume:
        assert curate(volume) == [Rejection(1, "k-space holds NaN or infinity", 1)]


@pytest.mark.parametrize("is_compressed", [True, False])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(("slices", "frames", "coils"), [(3, 5, 4), (3, 1, 4), (1, 5, 4), (1, 1, 4), (2, 3, 1)])
def test_files_of_version_5_are_read_as_those_of_7_3(tmp_path, slices, frames, coils, dtype, is_compressed):
    kspace = cine(slices, frames, coils, dtype=dtype)
    array = matlab(kspace).reshape(matlab(kspace).shape[: 5 if frames > 1 else 4 if slices > 1 else 3])
    savemat(tmp_path / "a.mat", {"note": "free text", "kspace": array}, do_compression=is_compressed)
    with open_volume(tmp_path / "a.mat") as volume:
        assert_is(volume, kspace)
        assert volume.findings == (("stored in double precision: read in single",) if dtype == np.complex128 else ())


def test_a_file_of_version_5_is_inflated_on_disk_and_not_in_memory(tmp_path):
    kspace = cine(4, 16, 4, 64, 48)
    savemat(tmp_path / "a.mat", {"kspace_full": matlab(kspace)}, do_compression=True)
    tracemalloc.start()
    try:
        with open_volume(tmp_path / "a.mat") as volume:
            volume.read_slice(17)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Blocks of a quarter of a megabyte are inflated, and a few images looked into.
    assert peak < kspace.nbytes / 3


def test_files_of_version_5_are_refused_for_the_same_reasons(tmp_path):
    savemat(tmp_path / "a.mat", {"kus": matlab(cine())})
    savemat(tmp_path / "b.mat", {"kspace_full": matlab(cine()).real})
    savemat(tmp_path / "c.mat", {"mask": np.ones((HEIGHT, WIDTH))})
    savemat(tmp_path / "d.mat", {"kspace_full": matlab(cine()).T})
    for name, message in zip("abcd", ("undersampled already", "must be complex", "a sampling mask", "its axes are not"), strict=True):
        with pytest.raises(ScanError, match=message):
            open_volume(tmp_path / f"{name}.mat")
    mask = np.zeros((HEIGHT, WIDTH, 5))
    mask[:, ::2] = 1
    savemat(tmp_path / "e.mat", {"kspace_full": matlab(cine() * mask[0, :, 0]), "mask": mask})
    with open_volume(tmp_path / "e.mat") as volume:
        np.testing.assert_array_equal(volume.mask(3), mask[0, :, 0] > 0)
        assert "undersampled already" in curate(volume)[0].reason


@pytest.mark.parametrize("is_compressed", [True, False])
def test_what_of_version_5_only_claims_to_be_large_or_is_cut_off_is_refused_at_once(tmp_path, is_compressed):
    savemat(tmp_path / "a.mat", {"kspace_full": matlab(cine())}, do_compression=is_compressed)
    content, path = (tmp_path / "a.mat").read_bytes(), tmp_path / "b.mat"
    for size in (19, 127, 128, 140, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ScanError):
            open_volume(path)
    limits = ReadLimits(slice_bytes=1 << 10)
    with pytest.raises(ScanError, match="declares slice of"):
        open_volume(tmp_path / "a.mat", limits=limits)
    tall = np.array([448, 168, 10, 30, 30], "<i4").tobytes()
    shape = np.array(matlab(cine()).shape, "<i4").tobytes()
    element = zlib.decompress(content[136:]) if is_compressed else content[128:]
    large = element.replace(shape, tall, 1)
    packed = zlib.compress(large)
    path.write_bytes(content[:128] + (struct.pack("<II", 15, len(packed)) + packed if is_compressed else large))
    begin = time.monotonic()
    with pytest.raises(ScanError):
        open_volume(path)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("size", [0, 1, 100, 511, 512, 600, 3000, -1])
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, size):
    content = write(tmp_path / "a.mat", cine()).read_bytes()
    (tmp_path / "a.mat").write_bytes(content[:size])
    with pytest.raises(ScanError):
        open_volume(tmp_path / "a.mat")


def test_what_only_claims_to_be_large_is_refused_at_once(tmp_path):
    struct = np.dtype([("real", "<f8"), ("imag", "<f8")])
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("kspace_full", (30, 12, 10, 400, 500), struct, chunks=(1, 1, 10, 400, 500))
    begin = time.monotonic()
    for limits in (ReadLimits(), ReadLimits(slice_bytes=1 << 20), ReadLimits(volume_bytes=1 << 30)):
        with pytest.raises(ScanError, match="declares"):
            open_volume(tmp_path / "a.mat", limits=limits)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("kind", ["external", "soft", "stored outside", "group"])
def test_data_that_lie_elsewhere_are_not_followed(tmp_path, kind):
    write(tmp_path / "other.mat", cine())
    with h5py.File(tmp_path / "a.mat", "w") as file:
        if kind == "external":
            file["kspace_full"] = h5py.ExternalLink("other.mat", "/kspace_full")
        elif kind == "soft":
            file["somewhere"] = matlab(cine()).T
            file["kspace_full"] = h5py.SoftLink("/somewhere")
        elif kind == "group":
            file.create_group("kspace_full")
        else:
            file.create_dataset("kspace_full", (4, WIDTH, HEIGHT), "c8", external=[("other.mat", 0, 4 * WIDTH * HEIGHT * 8)])
    with pytest.raises(ScanError):
        open_volume(tmp_path / "a.mat")


def test_what_is_wrong_with_most_frames_is_seen_when_the_file_is_opened_and_not_with_the_first_frames_alone(tmp_path):
    kspace = cine(4, 8)
    kspace[:, 1:] = np.roll(kspace[:, 1:], (HEIGHT // 2, WIDTH // 2), axis=(-2, -1))
    with pytest.raises(ScanError, match="zero frequency at row"):
        open_volume(write(tmp_path / "a.mat", kspace))
    with open_volume(write(tmp_path / "b.mat", cine(4, 8))) as volume:
        assert [volume.header.place(image) for image in volume.examined] == [(2, 4), (1, 2), (3, 6)]
