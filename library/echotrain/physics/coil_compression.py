"""Fewer, virtual coils in place of the receive coils: what the calibration lines show of the signal is kept, the rest is noise.

Source: Buehrer et al., MRM 57:1131 (2007), and Zhang et al., MRM 69:571 (2013), of which the alignment along a 3D readout has no
counterpart in slices. The virtual coils are the left singular vectors of the calibration data, coils by points, to its largest singular
values.

A result must be the same bits whichever process, thread or machine makes it, or training would depend on its place. So nothing here
is left to a BLAS or LAPACK, whose sums are ordered by threads and processor: all is additions, products, quotients and roots of real
numbers, each rounded as IEEE 754 says, in an order that is written down. NumPy only, for use by many threads.
"""

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = ["compress", "compression_matrix", "covariance"]

# Points that are combined at a time: with 16 coils and 8 virtual ones they stay in a processor's cache.
_POINTS_AT_ONCE = 2048
# What is left beside the diagonal, as a share of the largest on it.
_NEGLIGIBLE = 1e-14
_MOST_SWEEPS = 40


def covariance(calibration: NDArray[np.complex64]) -> NDArray[np.complex128]:
    """Return ``A A^H`` of calibration data ``A``, (coil, point): sums of exact products, folded in halves.

    Those of several sets of points of the same coils may be added.
    """
    coils = len(calibration)
    data = np.concatenate([calibration.real, calibration.imag], axis=1, dtype=np.float64)
    # Times -i: the product with it is the imaginary part.
    turned = np.concatenate([calibration.imag, -calibration.real], axis=1, dtype=np.float64)
    found = np.zeros((coils, coils), np.complex128)
    for coil in range(coils):
        found.real[coil, coil:] = _folded(data[coil:] * data[coil])
        found.imag[coil, coil:] = _folded(data[coil:] * turned[coil])
    below = np.tril_indices(coils, -1)
    found[below] = found.T[below].conj()
    return found


def compression_matrix(covariance: NDArray[np.complex128], num_virtual: int) -> NDArray[np.complex64]:
    """Return the matrix that takes coils to virtual coils, (virtual, coil), its rows orthonormal and by falling share of the signal.

    The phase of a row is free. It is such that the coefficient of the coil which weighs most in it, the first of equals, is positive.

    Args:
        covariance: Of the calibration data, (coil, coil), finite; of blank data, the virtual coils are the first coils.
        num_virtual: At most as many as there are coils.
    """
    values, vectors = _eigen(covariance)
    order = np.argsort(-values, kind="stable")[:num_virtual]
    real, imag = vectors[0][:, order], vectors[1][:, order]
    weight = real * real + imag * imag
    largest = np.argmax(weight, axis=0), np.arange(num_virtual)
    size = np.sqrt(weight[largest])
    turn = real[largest] / size, imag[largest] / size
    # A virtual coil is the conjugated vector's product with the coils.
    matrix = np.empty((num_virtual, len(covariance)), np.complex64)
    matrix.real = (real * turn[0] + imag * turn[1]).T
    matrix.imag = (real * turn[1] - imag * turn[0]).T
    return matrix


def compress(kspace: NDArray[np.complex64], matrix: NDArray[np.complex64], points: NDArray[np.intp], out: NDArray[np.complex64]) -> None:
    """Fill the points of virtual coils; the rest of ``out`` becomes zero.

    Args:
        kspace: The coils', (coil, point).
        matrix: Of these coils, (virtual, coil).
        points: Which of the points are to be filled: what was acquired.
        out: Filled, (virtual, point).
    """
    out.fill(0)
    real, imag = matrix.real[:, :, None], matrix.imag[:, :, None]
    for start in range(0, len(points), _POINTS_AT_ONCE):
        where = points[start : start + _POINTS_AT_ONCE]
        coils = kspace.take(where, axis=1)
        numbers = coils.view(np.float32)
        # Times i.
        turned = np.empty_like(numbers)
        np.negative(coils.imag, out=turned[:, ::2])
        turned[:, 1::2] = coils.real
        sums = np.zeros((len(matrix), numbers.shape[1]), np.float32)
        product = np.empty_like(sums)
        for coil in range(len(coils)):
            sums += np.multiply(real[:, coil], numbers[coil], out=product)
            sums += np.multiply(imag[:, coil], turned[coil], out=product)
        out[:, where] = sums.view(np.complex64)


def _folded(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums over the last axis: its second half is added to its first, until one is left. The terms are used up."""
    left = terms.shape[-1]
    while left > 1:
        half = left // 2
        terms[..., :half] += terms[..., left - half : left]
        left -= half
    sums: NDArray[np.float64] = terms[..., :left].sum(-1)
    return sums


def _eigen(matrix: NDArray[np.complex128]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvalues of a Hermitian matrix and its eigenvectors as columns, (2, n, n) of real and imaginary parts.

    Jacobi's method: rotations of two coordinates each, n / 2 at a time which share none, until the matrix is diagonal.
    """
    size = len(matrix)
    largest = float(np.max(matrix.real.diagonal(), initial=0.0))
    rest = np.stack([matrix.real, matrix.imag]) / (largest or 1.0)
    vectors = np.stack([np.eye(size), np.zeros((size, size))])
    outside = ~np.eye(size, dtype=bool)
    for _ in range(_MOST_SWEEPS):
        if np.max(np.abs(rest[:, outside]), initial=0.0) <= _NEGLIGIBLE:
            return rest[0].diagonal() * largest, vectors
        for first, second in _rounds(size):
            rotation = _rotation(rest, first, second)
            vectors = _rotated(vectors, first, second, *rotation)
            # U^H (A U) is (A U)^H U, conjugated and transposed: and, being Hermitian, that itself.
            turned = _rotated(rest, first, second, *rotation).swapaxes(1, 2)
            turned[1] *= -1
            rest = _rotated(turned, first, second, *rotation)
    raise AssertionError(f"a Hermitian matrix of {size} coils is not diagonal after {_MOST_SWEEPS} sweeps")


def _rotation(matrix: NDArray[np.float64], first: NDArray[np.intp], second: NDArray[np.intp]) -> tuple[NDArray[np.float64], ...]:
    """Return cosine, sine and the phase (real, imaginary) of the rotations after which the matrix is zero at (first, second)."""
    real, imag = matrix[:, first, second]
    size = np.sqrt(real * real + imag * imag)
    is_zero = size == 0
    safe = np.where(is_zero, 1.0, size)
    tau = (matrix[0, second, second] - matrix[0, first, first]) / (2 * safe)
    tangent = np.where(is_zero, 0.0, np.where(tau < 0, -1.0, 1.0) / (np.abs(tau) + np.sqrt(1 + tau * tau)))
    cosine = 1 / np.sqrt(1 + tangent * tangent)
    return cosine, tangent * cosine, np.where(is_zero, 1.0, real / safe), imag / safe


def _rotated(
    matrix: NDArray[np.float64],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    cosine: NDArray[np.float64],
    sine: NDArray[np.float64],
    real: NDArray[np.float64],
    imag: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return a matrix times the rotations, which mix its columns ``first`` and ``second``."""
    ones, others = matrix[:, :, first], matrix[:, :, second]
    turned = np.stack([others[0] * real + others[1] * imag, others[1] * real - others[0] * imag])
    result = matrix.copy()
    result[:, :, first] = ones * cosine - turned * sine
    result[:, :, second] = ones * sine + turned * cosine
    return result


@functools.cache
def _rounds(size: int) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
    """Return every pair of so many coordinates once, in rounds of pairs that share none, as a tournament is drawn up."""
    players = [*range(size), *([-1] if size % 2 else [])]
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = [sorted(pair) for pair in zip(players[:half], players[: half - 1 : -1], strict=True) if -1 not in pair]
        rounds.append((np.array([a for a, _ in pairs], np.intp), np.array([b for _, b in pairs], np.intp)))
        players = [players[0], players[-1], *players[1:-1]]
    return tuple(rounds)
