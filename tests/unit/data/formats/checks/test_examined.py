"""What every opened volume passes through: its claims against its samples."""

import json

import h5py
import numpy as np
import pytest

from echotrain.data.formats import Deidentifier, open_volume
from echotrain.data.formats.target import rss_target
from echotrain.data.preparing.convert import ConvertConfig, convert_scan
from echotrain.errors import ScanError
from echotrain.storage.local import LocalStore
from tests.scans import header_xml, object_kspace, random_kspace, write_scan

SHAPE = (5, 4, 64, 48)


def targets_of(kspace: np.ndarray, size: tuple[int, int] = (40, 36)) -> np.ndarray:
    return np.stack([rss_target(coils, size) for coils in kspace])


def convert(path, folder, **settings):
    store, named = LocalStore(folder), Deidentifier("x", safe_names=(".*",), root=str(path.parent))
    return convert_scan(path, uri=str(path), key="k", store=store, config=ConvertConfig(**settings), deidentifier=named)


def stored_targets(record, folder) -> np.ndarray:
    content = [(folder / row["target_uri"]).read_bytes()[row["target_offset"] :][: row["target_nbytes"]] for row in record.rows]
    shape = (record.rows[0]["recon_height"], record.rows[0]["recon_width"])
    return np.stack([np.frombuffer(part, np.float32).reshape(shape) for part in content])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t[:, ::-1], "stored targets are not of the k-space beside them: all are computed"),
        (lambda t: t[:, :, ::-1], "stored targets are not of the k-space beside them: all are computed"),
        (lambda t: t[[0, 2, 1, 3, 4]], "2 of 5 stored targets are not of the k-space beside it: computed"),
        (lambda t: t[::-1], "4 of 5 stored targets are not of the k-space beside it: computed"),
        (lambda t: np.concatenate([t[:4], t[4:] * 0]), "1 of 5 stored targets is not of the k-space beside it: computed"),
        (lambda t: np.concatenate([t[:4], t[4:] * np.nan]), "1 of 5 stored targets is not of the k-space beside it: computed"),
        (lambda t: np.concatenate([t[:4], t[4:] * 2]), "1 of 5 stored targets is not of the k-space beside it: computed"),
    ],
    ids=["flipped", "mirrored", "two exchanged", "reversed", "one blank", "one nan", "one scaled"],
)
def test_targets_of_another_image_are_computed_and_told(tmp_path, change, told):
    kspace = object_kspace(SHAPE)
    truth = targets_of(kspace)
    path = write_scan(tmp_path / "a.h5", kspace, header=header_xml(64, 48, recon=(40, 36)), target=np.ascontiguousarray(change(truth)))
    record = convert(path, tmp_path / "to")
    assert [finding for finding in record.findings if told in finding], record.findings
    np.testing.assert_allclose(stored_targets(record, tmp_path / "to"), truth, rtol=1e-5, atol=1e-6 * truth.max())
    assert record.rows[0]["max_value"] == pytest.approx(float(truth.max()))


def test_a_constant_factor_is_told_and_kept_also_where_a_target_is_computed(tmp_path):
    kspace = object_kspace(SHAPE)
    truth = targets_of(kspace) * np.float32(1e6)
    changed = truth.copy()
    changed[1] = changed[1, ::-1]
    path = write_scan(tmp_path / "a.h5", kspace, target=changed)
    record = convert(path, tmp_path / "to")
    assert "stored targets are 1e+06 times the root sum of squares of the k-space" in record.findings
    np.testing.assert_allclose(stored_targets(record, tmp_path / "to"), truth, rtol=1e-3, atol=1e-5 * truth.max())


def test_targets_of_their_own_k_space_are_kept_to_the_bit_and_nothing_is_told(tmp_path):
    kspace = object_kspace(SHAPE)
    truth = targets_of(kspace) * np.float32(1 + 1e-6)
    record = convert(write_scan(tmp_path / "a.h5", kspace, target=truth), tmp_path / "to")
    assert record.findings == []
    np.testing.assert_array_equal(stored_targets(record, tmp_path / "to"), truth)


@pytest.mark.parametrize("names", [("reconstruction_esc", "reconstruction_rss"), ("reconstruction_rss", "reconstruction_esc")])
def test_a_single_coil_files_target_is_the_single_coil_image_and_a_multicoil_files_the_rss(tmp_path, names):
    coils = object_kspace((3, 4, 64, 48))
    single = coils.sum(axis=1) / 2
    images = {"reconstruction_esc": targets_of(single[:, None]), "reconstruction_rss": targets_of(coils)}
    for kspace, expected in ((single, "reconstruction_esc"), (coils, "reconstruction_rss")):
        path = tmp_path / f"{expected}.h5"
        with h5py.File(path, "w") as file:
            file["ismrmrd_header"] = header_xml(64, 48, recon=(40, 36))
            file["kspace"] = kspace
            for name in names:
                file[name] = images[name]
            file.attrs["max"] = float(images[expected].max())
        record = convert(path, tmp_path / "to")
        assert record.findings == []
        np.testing.assert_array_equal(stored_targets(record, tmp_path / "to"), images[expected])
        indexed = convert(path, tmp_path / "index", payload="raw", index_only=True)
        with h5py.File(path) as file:
            assert indexed.rows[0]["target_offset"] == file[expected].id.get_offset()
        assert indexed.rows[0]["max_value"] == record.rows[0]["max_value"]


def test_an_index_is_refused_where_a_sample_shows_what_headers_do_not(tmp_path):
    kspace = object_kspace(SHAPE)
    truth = targets_of(kspace)
    good = {"max": float(truth.max())}
    cases = {
        "flipped": (kspace, truth[:, ::-1], good, "not of the k-space"),
        "undersampled": (kspace * (np.arange(48) % 3 == 0), truth, good, "undersampled already"),
        "maximum": (kspace, truth, {"max": float(truth.max()) * 0.9}, "maximum of the target"),
        "good": (kspace, truth, good, ""),
    }
    for name, (samples, target, attributes, reason) in cases.items():
        path = write_scan(tmp_path / f"{name}.h5", samples, target=np.ascontiguousarray(target), attributes=attributes)
        record = convert(path, tmp_path / "to", payload="raw", index_only=True)
        assert [reason in rejection.reason for rejection in record.rejections] == ([True] if reason else []), (name, record.rejections)
        assert len(record.rows) == (0 if reason else 5)


@pytest.mark.parametrize("axes", [(-2, -1), (-1,), (-2,)])
def test_a_zero_frequency_in_the_corner_is_refused_with_where_it_is(tmp_path, axes):
    kspace = np.fft.ifftshift(object_kspace(SHAPE), axes=axes)
    with pytest.raises(ScanError, match=r"a\.h5: zero frequency at row \d+, column \d+.*64 x 48 has it at 32, 24"):
        open_volume(write_scan(tmp_path / "a.h5", kspace, target=None))


def test_one_slice_with_its_centre_elsewhere_is_left_out_alone(tmp_path):
    kspace = object_kspace(SHAPE)
    kspace[3] = np.roll(kspace[3], 15, axis=-1)
    record = convert(write_scan(tmp_path / "a.h5", kspace, target=None), tmp_path / "to")
    assert [row["slice"] for row in record.rows] == [0, 1, 2, 4]
    assert [(r.slice, "zero frequency lies at row" in r.reason) for r in record.rejections] == [(3, True)]


def test_a_mask_beside_a_full_k_space_is_not_applied_and_told(tmp_path):
    path = write_scan(tmp_path / "a.h5", object_kspace(SHAPE), target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = np.arange(48) % 4 == 0
    record = convert(path, tmp_path / "to")
    assert len(record.rows) == 5
    assert record.findings == ["a mask lies beside a k-space that is full: it is not applied"]


@pytest.mark.parametrize("target", [np.ones((4, 64, 48), np.float32), np.ones((5, 64, 48), np.uint16), np.ones((5, 1, 64, 48), np.float32)])
def test_a_stored_target_that_is_no_image_of_each_slice_is_computed_and_told(tmp_path, target):
    kspace = object_kspace(SHAPE)
    record = convert(write_scan(tmp_path / "a.h5", kspace, target=target), tmp_path / "to")
    np.testing.assert_allclose(stored_targets(record, tmp_path / "to"), targets_of(kspace, (64, 48)), rtol=1e-5)
    assert "is none of 5 slices: computed instead" in record.findings[0]


def test_one_coil_on_an_axis_of_its_own_is_a_single_coil_scan(tmp_path):
    kspace = object_kspace((3, 1, 64, 48))
    path = write_scan(tmp_path / "a.h5", kspace, target=targets_of(object_kspace((3, 4, 64, 48))))
    with h5py.File(path, "a") as file:
        file["reconstruction_esc"] = targets_of(kspace)
    record = convert(path, tmp_path / "to")
    np.testing.assert_array_equal(stored_targets(record, tmp_path / "to"), targets_of(kspace))


def test_a_mask_narrower_than_the_lines_is_told(tmp_path):
    path = write_scan(tmp_path / "a.h5", object_kspace(SHAPE) * (np.arange(48) % 2 == 0), target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = np.arange(48) % 4 == 0
    with open_volume(path) as volume:
        assert volume.findings == ("a mask names fewer lines than the k-space holds: the k-space decides",)


def test_a_mask_for_each_slice_is_each_slices_own(tmp_path):
    masks = np.stack([np.arange(48) % 4 == offset % 4 for offset in range(5)]) | (abs(np.arange(48) - 24) < 4)
    path = write_scan(tmp_path / "a.h5", object_kspace(SHAPE) * masks[:, None, None], target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = masks
    with open_volume(path) as volume:
        for index in range(5):
            np.testing.assert_array_equal(volume.mask(index), masks[index])
    with h5py.File(path, "a") as file:
        del file["mask"]
        file["mask"] = masks[:3]
    with pytest.raises(ScanError, match="mask of 3 x 48 lines: the k-space has 48 phase encodes and 5 slices"):
        open_volume(path)


def test_a_header_that_misplaces_the_measured_lines_is_overruled_by_them(tmp_path):
    kspace = object_kspace(SHAPE)
    kspace[..., :9] = 0
    header = header_xml(64, 48, center=24, maximum=38)  # right would be center=15
    record = convert(write_scan(tmp_path / "a.h5", kspace, header=header, target=None), tmp_path / "to")
    assert {(row["padding_left"], row["padding_right"]) for row in record.rows} == {(9, 48)}
    assert record.findings == ["the header says lines 0 to 38 were measured, the k-space holds 9 to 47"]


def test_limits_beyond_the_matrix_are_read_from_the_lines_and_told(tmp_path):
    kspace = object_kspace(SHAPE)
    kspace[..., :9] = 0
    record = convert(write_scan(tmp_path / "a.h5", kspace, header=header_xml(64, 48, maximum=200), target=None), tmp_path / "to")
    assert {(row["padding_left"], row["padding_right"]) for row in record.rows} == {(9, 48)}
    assert "outside the matrix of 48" in record.findings[0]


def test_slices_of_one_volume_may_be_measured_over_different_lines(tmp_path):
    kspace = object_kspace(SHAPE)
    kspace[1, ..., :9] = 0
    record = convert(write_scan(tmp_path / "a.h5", kspace, target=None), tmp_path / "to")
    assert [row["padding_left"] for row in record.rows] == [0, 9, 0, 0, 0]


def test_a_slice_that_holds_more_lines_than_its_volume_keeps_them(tmp_path):
    kspace = object_kspace((7, 4, 64, 48))
    kspace[[0, 1, 2, 3, 5, 6], ..., :9] = 0  # slice 4 is none of those that are looked into first
    record = convert(write_scan(tmp_path / "a.h5", kspace, header=header_xml(64, 48, center=15, maximum=38), target=None), tmp_path / "to")
    assert [row["padding_left"] for row in record.rows] == [9, 9, 9, 9, 0, 9, 9]


def test_a_target_that_is_not_used_has_no_place_in_the_file(tmp_path):
    kspace = object_kspace(SHAPE)
    for name, target, is_used in (("a", targets_of(kspace), True), ("b", targets_of(kspace)[:, ::-1], False)):
        with open_volume(write_scan(tmp_path / f"{name}.h5", kspace, target=np.ascontiguousarray(target))) as volume:
            assert (volume.raw_target_range(2) is not None) == is_used
            assert (volume.read_target(2) is not None) == is_used


def test_fewer_slices_than_the_header_announces_are_told(tmp_path):
    header = header_xml(64, 48).replace(b"</encodingLimits>", b"<slice><minimum>0</minimum><maximum>31</maximum></slice></encodingLimits>")
    record = convert(write_scan(tmp_path / "a.h5", object_kspace(SHAPE), header=header), tmp_path / "to")
    assert record.findings == ["the header announces 32 slices, the file holds 5"]


def test_a_file_without_header_is_read_where_something_says_what_was_measured(tmp_path):
    kspace = object_kspace(SHAPE)
    path = write_scan(tmp_path / "a.h5", kspace)
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
    with pytest.raises(ScanError, match="--assume-full"):
        open_volume(path)
    assert convert(path, tmp_path / "to").rows == []
    record = convert(path, tmp_path / "to", assume_full=True)
    assert len(record.rows) == 5
    assert (record.rows[0]["padding_left"], record.rows[0]["padding_right"]) == (0, 48)
    assert record.findings == ["no header: sizes are those of the arrays, the readout is taken to be the first axis"]
    undersampled = write_scan(tmp_path / "b.h5", kspace * (np.arange(48) % 3 == 0), target=None)
    with h5py.File(undersampled, "a") as file:
        del file["ismrmrd_header"]
    assert "undersampled" in convert(undersampled, tmp_path / "to", assume_full=True).rejections[0].reason
    with h5py.File(undersampled, "a") as file:
        file["mask"] = np.arange(48) % 3 == 0
    with open_volume(undersampled) as volume:
        assert volume.mask(0).sum() == 16


def test_findings_stay_in_the_record(tmp_path):
    path = write_scan(tmp_path / "a.h5", object_kspace(SHAPE), target=np.ones((5, 64, 48), np.float32))
    record = convert(path, tmp_path / "to")
    assert json.loads((tmp_path / "to/prepared/k.json").read_text())["findings"] == record.findings != []


def test_noise_is_read_though_nothing_tells_its_centre(tmp_path):
    record = convert(write_scan(tmp_path / "a.h5", random_kspace(SHAPE)), tmp_path / "to")
    assert len(record.rows) == 5
