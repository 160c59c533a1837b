"""Signatures: the same for a scan times a constant, another for another scan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.data.catalog.signature import NO_PROJECTIONS, alike, signature_of, slice_projections
from echotrain.data.formats import Deidentifier, open_volume
from echotrain.data.preparing.convert import ConvertConfig, convert_scan, scan_key
from echotrain.storage.local import LocalStore
from tests.scans import random_kspace, write_scan

SHAPES = [(2, 3, 32, 24), (1, 1, 9, 7), (3, 2, 16, 15)]


def sign(kspace: np.ndarray) -> str:
    return signature_of(sum((slice_projections(coils, i) for i, coils in enumerate(kspace)), NO_PROJECTIONS), len(kspace))


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 99), st.floats(-8, 8), st.floats(0, 6.3))
def test_a_constant_factor_changes_nothing(shape, seed, exponent, phase):
    kspace = random_kspace(shape, seed=seed)
    scaled = (kspace * np.complex64(10**exponent * np.exp(1j * phase))).astype(np.complex64)
    assert alike([sign(kspace), sign(scaled)]) == [[0, 1]]


def test_a_copy_in_halves_is_a_copy():
    kspace = random_kspace((2, 3, 32, 24))
    halves = kspace.view(np.float32).astype(np.float16).astype(np.float32).view(np.complex64)
    assert alike([sign(kspace), sign(halves)]) == [[0, 1]]


@pytest.mark.parametrize("shape", SHAPES)
def test_other_scans_are_not_alike(shape):
    kspace = random_kspace(shape)
    smooth = np.stack([coils * np.hanning(shape[-1])[None, None] + 1e-3 for coils in kspace])
    others = [random_kspace(shape, seed=seed) for seed in range(1, 60)]
    changed = [kspace[..., ::-1], kspace.conj(), np.roll(kspace, 1, axis=-1), kspace + 0.1 * random_kspace(shape, seed=60), smooth - 2]
    assert alike([sign(np.ascontiguousarray(each)) for each in (kspace, *others, *changed)]) == []


def test_slices_in_another_order_are_another_scan():
    kspace = random_kspace((2, 3, 32, 24))
    assert alike([sign(kspace), sign(kspace[::-1])]) == []


def test_real_scans_are_told_apart_and_found_again(scanner_data):
    signatures = []
    for name in ("brain_flash_16ch_cimax3T", "brain_t2_4ch", "phantom_gre_4ch_trio3T"):
        with open_volume(scanner_data / f"{name}.h5") as volume:
            kspace = np.stack([volume.read_slice(index) for index in range(volume.header.num_slices)])
        signatures += [sign(kspace), sign(kspace * np.float32(1.01))]
    assert alike(signatures) == [[0, 1], [2, 3], [4, 5]]


def test_zeros_and_what_was_not_read_are_like_nothing():
    assert sign(np.zeros((2, 3, 4, 5), np.complex64)) == ""
    assert alike(["", "", "abc"]) == []
    assert alike([]) == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12))
def test_groups_are_those_of_equals_and_in_order(kinds):
    base = [f"{1000 * kind:04x}" * 16 for kind in kinds]
    expected = [[i for i, kind in enumerate(kinds) if kind == wanted] for wanted in dict.fromkeys(kinds)]
    assert alike(base) == [group for group in expected if len(group) > 1]


def test_rounding_may_move_every_projection_a_little_but_no_single_one_far():
    signature = "03e8" * 16
    near = "03ee" * 16
    assert alike([signature, near]) == [[0, 1]]
    assert alike([signature, "0400" + signature[4:]]) == []
    assert alike([signature, signature[:-4] + "0400"]) == []


def test_preparing_signs_what_was_read(tmp_path):
    records = []
    for name, factor in (("a", 1.0), ("b", 2.5)):
        path = write_scan(tmp_path / f"{name}.h5", random_kspace((2, 3, 32, 24)) * np.float32(factor))
        config, deidentifier = ConvertConfig(), Deidentifier()
        key = scan_key(deidentifier, str(path), 1, "1", config)
        store = LocalStore(tmp_path / "to")
        records.append(convert_scan(path, uri=str(path), key=key, store=store, config=config, deidentifier=deidentifier))
    assert records[0].content != records[1].content
    assert alike([record.signature for record in records]) == [[0, 1]]
