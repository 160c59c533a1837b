"""Curation: every reason, and nothing left out without one."""

import h5py
import numpy as np
import pytest

from echotrain.data.formats import open_volume
from echotrain.data.preparing.curate import CurationConfig, Rejection
from echotrain.errors import ConfigError
from tests.scans import curate, header_xml, random_kspace, write_scan


def rejections(path, config=None):
    with open_volume(path) as volume:
        return curate(volume, config)


def test_a_good_volume_is_kept_whole(tmp_path):
    assert rejections(write_scan(tmp_path / "a.h5")) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1j * np.nan])
def test_slices_with_nan_or_infinity_are_left_out_alone(tmp_path, value):
    kspace = random_kspace((3, 3, 32, 24))
    kspace[1, 2, 5, 7] = value
    assert rejections(write_scan(tmp_path / "a.h5", kspace)) == [Rejection(1, "k-space holds NaN or infinity")]


def test_empty_slices_are_left_out_alone(tmp_path):
    kspace = random_kspace((3, 3, 32, 24))
    kspace[2] = 0
    assert rejections(write_scan(tmp_path / "a.h5", kspace)) == [Rejection(2, "k-space is all zero")]


def test_slices_that_miss_lines_are_left_out_as_undersampled(tmp_path):
    kspace = random_kspace((1, 3, 32, 24))
    kspace[..., 3:20:2] = 0
    assert rejections(write_scan(tmp_path / "a.h5", kspace)) == [Rejection(0, "undersampled already: 9 of 24 phase-encode lines are empty")]


def test_a_two_dimensional_pattern_is_undersampled_though_every_line_holds_something(tmp_path):
    kspace = random_kspace((1, 3, 32, 24)) * (np.random.default_rng(0).random((32, 24)) < 0.4)
    (rejection,) = rejections(write_scan(tmp_path / "a.h5", kspace))
    assert "undersampled already: 24 phase-encode lines have holes" in rejection.reason


@pytest.mark.parametrize("is_stated", [True, False])
def test_partial_fourier_is_kept_whether_the_header_states_it_or_not(tmp_path, is_stated):
    kspace = random_kspace((1, 3, 32, 24))
    kspace[..., :5] = 0
    header = header_xml(32, 24, center=7, maximum=18) if is_stated else None
    assert rejections(write_scan(tmp_path / "a.h5", kspace, header=header)) == []


def test_test_files_with_a_mask_are_left_out_whole(tmp_path):
    mask = np.arange(24) % 4 == 0
    path = write_scan(tmp_path / "a.h5", random_kspace((2, 3, 32, 24)) * mask, target=None)
    with h5py.File(path, "a") as file:
        file["mask"] = mask
    assert rejections(path) == [Rejection(None, "undersampled already: 6 of 24 lines were acquired")]


def test_3d_encodes_are_left_out(tmp_path):
    path = write_scan(tmp_path / "a.h5", header=header_xml(32, 24, depth=16))
    assert rejections(path) == [Rejection(None, "3D encode of 16 partitions: slices are not independent")]


def test_volumes_of_too_few_slices_or_coils_are_left_out(tmp_path):
    path = write_scan(tmp_path / "a.h5")
    assert rejections(path, CurationConfig(min_slices=3)) == [Rejection(None, "2 slices, fewer than 3")]
    assert rejections(path, CurationConfig(min_coils=4)) == [Rejection(None, "3 coils, fewer than 4")]
    with pytest.raises(ConfigError, match="min_coils=0"):
        CurationConfig(min_coils=0)
