"""Coil compression keeps what the calibration shows, and is the same bits wherever it is done."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from echotrain.physics.coil_compression import compress, compression_matrix, covariance


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def compressed(kspace, matrix):
    out = np.full((len(matrix), kspace.shape[1]), np.nan, np.complex64)
    compress(kspace, matrix, np.arange(kspace.shape[1]), out)
    return out


def energy(kspace):
    return (np.abs(kspace.astype(np.complex128)) ** 2).sum(0)


sizes = st.integers(1, 24)


@given(coils=sizes, points=st.integers(1, 200), seed=st.integers(0, 9))
def test_the_covariance_is_the_calibration_times_its_adjoint(coils, points, seed):
    data = noise(coils, points, seed=seed)
    found, wide = covariance(data), data.astype(np.complex128)
    np.testing.assert_allclose(found, wide @ wide.conj().T, rtol=1e-12, atol=1e-12 * points)
    np.testing.assert_array_equal(found, found.conj().T)


@given(coils=sizes, share=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_rows_are_orthonormal_and_span_what_an_svd_finds(coils, share, seed):
    number = max(1, round(share * coils))
    data = noise(coils, 3 * coils, seed=seed) * np.logspace(0, 3, coils, dtype=np.float32)[:, None]
    matrix = compression_matrix(covariance(data), number).astype(np.complex128)
    np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(number), atol=1e-6)
    vectors, values, _ = np.linalg.svd(data.astype(np.complex128), full_matrices=False)
    shares = np.linalg.norm(matrix @ data, axis=1)
    np.testing.assert_allclose(shares, values[:number], rtol=1e-4)
    # Not the vectors themselves, whose phase an SVD chooses.
    np.testing.assert_allclose(np.abs(np.diag(matrix @ vectors[:, :number])), 1, atol=1e-3)


@pytest.mark.parametrize("coils", [1, 2, 7, 16, 46, 64])
def test_as_many_virtual_coils_as_coils_change_no_root_sum_of_squares(coils):
    data = noise(coils, 1000)
    matrix = compression_matrix(covariance(data[:, :300]), coils)
    np.testing.assert_allclose(energy(compressed(data, matrix)), energy(data), rtol=2e-6)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_what_has_a_rank_is_kept_by_as_many_virtual_coils_and_not_by_fewer(rank):
    data = (noise(12, rank) @ noise(rank, 5000, seed=1)).astype(np.complex64)
    calibration = covariance(data[:, 2000:2100])
    np.testing.assert_allclose(energy(compressed(data, compression_matrix(calibration, rank))), energy(data), rtol=1e-5)
    if rank > 1:
        assert energy(compressed(data, compression_matrix(calibration, rank - 1))).sum() < 0.99 * energy(data).sum()


def test_weak_signals_are_found_beside_one_that_is_ten_thousand_times_as_strong():
    basis = np.linalg.qr(noise(8, 8))[0]
    data = (basis[:, :3] * [1e4, 1, 0.5] @ noise(3, 4000)).astype(np.complex64)
    matrix = compression_matrix(covariance(data), 3).astype(np.complex128)
    np.testing.assert_allclose(np.linalg.norm(matrix @ basis[:, :3], axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("num_virtual", [1, 4, 6])
def test_the_largest_coefficient_of_every_virtual_coil_is_positive(num_virtual):
    for seed in range(5):
        matrix = compression_matrix(covariance(noise(6, 40, seed=seed)), num_virtual)
        largest = matrix[np.arange(num_virtual), np.abs(matrix).argmax(1)]
        np.testing.assert_allclose(largest.imag, 0, atol=1e-7)
        assert (largest.real > 0).all()


@pytest.mark.parametrize("turn", [1j, -1, np.exp(1j)])
def test_a_phase_that_all_coils_share_changes_no_matrix(turn):
    data = noise(7, 300)
    expected = compression_matrix(covariance(data), 4)
    np.testing.assert_allclose(compression_matrix(covariance((turn * data).astype(np.complex64)), 4), expected, atol=1e-5)


def test_coils_in_another_order_give_the_same_virtual_coils():
    data, order = noise(9, 400), np.random.default_rng(1).permutation(9)
    expected = compressed(data, compression_matrix(covariance(data), 4))
    np.testing.assert_allclose(compressed(data[order], compression_matrix(covariance(data[order]), 4)), expected, atol=1e-4)


def test_coils_that_are_zero_change_nothing():
    data = noise(5, 400)
    padded = np.concatenate([data, np.zeros((3, 400), np.complex64)])
    matrix = compression_matrix(covariance(padded), 4)
    assert not matrix[:, 5:].any()
    np.testing.assert_allclose(matrix[:, :5], compression_matrix(covariance(data), 4), atol=1e-6)


def test_compressing_is_linear_and_what_is_not_asked_for_is_zero():
    matrix, first, second = compression_matrix(covariance(noise(6, 50)), 3), noise(6, 5000, seed=1), noise(6, 5000, seed=2)
    both = compressed(2 * first - second, matrix)
    np.testing.assert_allclose(both, 2 * compressed(first, matrix) - compressed(second, matrix), atol=2e-5)
    points, out = np.flatnonzero(np.arange(5000) % 3 == 1), np.full((3, 5000), np.nan, np.complex64)
    compress(first, matrix, points, out)
    np.testing.assert_array_equal(out[:, points], compressed(first, matrix)[:, points])
    assert np.count_nonzero(out) == 3 * len(points)


def test_blank_calibration_takes_the_first_coils():
    np.testing.assert_array_equal(compression_matrix(covariance(np.zeros((5, 9), np.complex64)), 2), np.eye(2, 5))


def digest():
    """Return what the bits of some compressions come to."""
    found = hashlib.sha256()
    for coils, points, number in ((15, 4100, 8), (8, 777, 8), (33, 2500, 10)):
        data = noise(coils, points, seed=coils)
        matrix = compression_matrix(covariance(data[:, : points // 2]), number)
        found.update(matrix.tobytes())
        found.update(compressed(data, matrix).tobytes())
    return found.hexdigest()


def test_bits_depend_on_no_number_of_threads_and_no_repetition():
    before = torch.get_num_threads()
    try:
        found = set()
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found |= {digest() for _ in range(2)}
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_bits_are_those_of_a_processor_without_wide_or_fused_instructions():
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    features = [feature for feature in __cpu_dispatch__ if __cpu_features__[feature]]
    if not features:
        pytest.skip("NumPy chooses among no instructions here")
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(features), "OPENBLAS_CORETYPE": "Nehalem"}
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_coil_compression import digest; print(digest())"
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert told.stdout.strip() == digest()
