"""Which axis is the readout, in files that store the phase encodes first."""

import h5py
import numpy as np
import pytest

from echotrain.data.formats import Deidentifier, open_volume
from echotrain.data.formats.checks.axes import AxisClaims, is_phase_first
from echotrain.data.formats.checks.energy import energy_of
from echotrain.data.formats.target import rss_target
from echotrain.data.preparing.convert import ConvertConfig, convert_scan
from echotrain.errors import ScanError
from echotrain.storage.local import LocalStore
from tests.scans import header_xml, object_kspace, write_scan

FULL, LEFT = (0, 64), (9, 64)


def padded(size: int = 64, left: int = 9) -> np.ndarray:
    kspace = object_kspace((1, 3, 64, size))[0]
    kspace[..., :left] = 0
    return kspace


def turned(kspace: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(kspace.swapaxes(-1, -2))


def claims(**values) -> AxisClaims:
    return AxisClaims(**{"encoded": (64, 64), "recon": (64, 64), "padding": FULL, "target": None, **values})


def never() -> np.ndarray:
    raise AssertionError("what was asked before tells")


def test_sizes_tell_where_the_matrix_is_not_square_and_nothing_is_read():
    assert is_phase_first((48, 64), claims(encoded=(64, 48), recon=(32, 48)), never, never)
    assert not is_phase_first((64, 48), claims(encoded=(64, 48), recon=(32, 48)), never, never)


@pytest.mark.parametrize("is_own", [True, False])
def test_a_turned_image_tells_only_where_it_is_the_k_spaces_own_and_lines_do_not(is_own):
    full = object_kspace((1, 3, 64, 64))[0]
    turned_image = claims(recon=(32, 64), target=(64, 32))
    assert is_phase_first((64, 64), turned_image, lambda: energy_of(full), lambda: is_own) == is_own
    assert not is_phase_first((64, 64), claims(recon=(32, 64), target=(32, 64)), lambda: energy_of(full), never)
    partial = claims(recon=(32, 64), target=(64, 32), padding=LEFT)
    assert not is_phase_first((64, 64), partial, lambda: energy_of(padded()), never)


def test_a_few_damaged_rows_are_no_left_out_lines():
    kspace = object_kspace((1, 3, 64, 64))[0]
    kspace[:, [20, 33, 34]] = 0
    assert not is_phase_first((64, 64), claims(), lambda: energy_of(kspace), never)


@pytest.mark.parametrize("padding", [LEFT, (8, 64), (10, 64)])
def test_the_headers_padding_tells_of_a_square_matrix(padding):
    kspace = padded()
    assert is_phase_first((64, 64), claims(padding=padding), lambda: energy_of(turned(kspace)), never)
    assert not is_phase_first((64, 64), claims(padding=padding), lambda: energy_of(kspace), never)


def test_left_out_lines_tell_of_a_square_matrix():
    kspace = object_kspace((1, 3, 64, 64))[0] * (np.arange(64) % 3 == 0)
    assert is_phase_first((64, 64), claims(), lambda: energy_of(turned(kspace)), never)
    assert not is_phase_first((64, 64), claims(), lambda: energy_of(kspace), never)


def test_a_partial_echo_is_no_padding_of_lines_and_nothing_tells_of_a_full_square():
    kspace = padded()
    assert not is_phase_first((64, 64), claims(), lambda: energy_of(turned(kspace)), never)  # a partial echo
    full = object_kspace((1, 3, 64, 64))[0]
    assert not is_phase_first((64, 64), claims(padding=LEFT), lambda: energy_of(full), never)
    assert not is_phase_first((64, 64), claims(), lambda: np.zeros((64, 64)), never)


@pytest.mark.parametrize(("width", "left"), [(48, 0), (48, 7), (64, 9)])
def test_a_phase_first_file_gives_what_the_same_scan_readout_first_gives(tmp_path, width, left):
    kspace = object_kspace((3, 4, 64, width))
    kspace[..., :left] = 0
    header = header_xml(64, width, recon=(32, width), center=width // 2 - left, maximum=width - left - 1)
    target = np.stack([rss_target(coils, (32, width)) for coils in kspace])
    right = write_scan(tmp_path / "right.h5", kspace, header=header, target=target)
    wrong = write_scan(tmp_path / "wrong.h5", turned(kspace), header=header, target=turned(target))
    with open_volume(right) as one, open_volume(wrong) as other:
        assert other.is_phase_first
        assert not one.is_phase_first
        assert other.findings == ("stored (phase, readout): turned to (readout, phase)",)
        sizes = [(v.header.height, v.header.width, v.header.recon_height, v.header.recon_width) for v in (one, other)]
        assert sizes == [(64, width, 32, width)] * 2
        assert (other.header.padding_left, other.header.padding_right) == (left, width)
        for index in range(3):
            np.testing.assert_array_equal(other.read_slice(index), one.read_slice(index))
            np.testing.assert_array_equal(other.read_target(index), one.read_target(index))
        assert other.raw_slice_range(0) is None
        assert other.raw_target_range(0) is None


def test_an_empty_slice_in_the_middle_does_not_hide_the_axes(tmp_path):
    kspace = object_kspace((3, 4, 64, 64))
    kspace[..., :9] = 0
    kspace[1] = 0
    header = header_xml(64, 64, center=23, maximum=54)
    with open_volume(write_scan(tmp_path / "a.h5", turned(kspace), header=header, target=None)) as volume:
        assert volume.is_phase_first
        assert (volume.header.padding_left, volume.header.padding_right) == (9, 64)


def test_a_transposed_target_does_not_turn_the_k_space_and_is_computed_with_the_headers_size(tmp_path):
    kspace = object_kspace((2, 4, 64, 64))
    truth = np.stack([rss_target(coils, (64, 48)) for coils in kspace])
    header = header_xml(64, 64, recon=(64, 48))
    with open_volume(write_scan(tmp_path / "a.h5", kspace, header=header, target=turned(truth))) as volume:
        assert not volume.is_phase_first
        np.testing.assert_array_equal(volume.read_slice(1), kspace[1])
        assert volume.read_target(1) is None
        np.testing.assert_allclose(volume.computed_target(1), truth[1], rtol=1e-5)


def test_the_mask_of_a_file_without_header_tells_its_axes(tmp_path):
    mask = np.arange(48) % 3 == 0
    path = write_scan(tmp_path / "a.h5", turned(object_kspace((2, 3, 64, 48)) * mask), target=None, header=header_xml(64, 48))
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
        file["mask"] = mask
    with open_volume(path) as volume:
        assert (volume.header.height, volume.header.width) == (64, 48)
        np.testing.assert_array_equal(volume.mask(0), mask)


def test_the_bytes_of_a_phase_first_file_are_no_shard(tmp_path):
    path = write_scan(tmp_path / "a.h5", turned(object_kspace((2, 3, 64, 48))), header=header_xml(64, 48), target=None)
    store = LocalStore(tmp_path / "to")
    record = convert_scan(path, uri=str(path), key="k", store=store, config=ConvertConfig(payload="raw"), deidentifier=Deidentifier("x"))
    assert [row["kind"] for row in record.rows] == ["packed", "packed"]


def test_the_mask_of_a_phase_first_file_is_over_its_first_axis(tmp_path):
    mask = np.arange(48) % 3 == 0
    path = write_scan(tmp_path / "a.h5", turned(object_kspace((2, 3, 64, 48)) * mask), header=header_xml(64, 48), target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = mask
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.mask(1), mask)


def test_a_matrix_that_fits_neither_way_is_refused(tmp_path):
    path = write_scan(tmp_path / "a.h5", object_kspace((1, 3, 64, 48)), header=header_xml(64, 50))
    with pytest.raises(ScanError, match=r"64 x 50.*64 x 48"):
        open_volume(path)
