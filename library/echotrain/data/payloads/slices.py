"""The bytes of one slice in a shard: the layouts ``packed`` and ``lines``, in float32 or half precision.

Every payload starts at a multiple of 64 bytes and is little-endian, uncompressed.

``packed``::

    | scales, float16 only | k-space (coil, ky, kx) | pad | target (y, x) float32 |

``lines``, phase-encode lines outermost, so that an undersampled read is a few ranges::

    | target | pad | head: scales, checksums | ACS lines (line, coil, ky) | group 0 | ... | group 7 |

An image without k-space is its target alone.

Group ``g`` holds the lines ``i`` with ``i % 8 == bit_reversed(g)``, so that the lines of an equispaced mask of R = 2, 4 or 8 with any
offset are neighbouring groups: one range, and one more for the ACS block. The head has a checksum for the ACS block and each group, so
that a partial read is verified as well.

Half precision stores real and imaginary parts as float16 after division by a power of two per coil: 3e-8 NMSE in k-space, half the bytes.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from echotrain.errors import ConfigError, PayloadError

__all__ = [
    "ALIGNMENT",
    "NUM_GROUPS",
    "EncodedSlice",
    "LinesLayout",
    "PayloadDtype",
    "checksum",
    "decode_half_lines",
    "decode_halves",
    "encode_image",
    "encode_lines",
    "encode_packed",
    "lines_layout",
    "scales_nbytes",
    "scatter_lines",
]

ALIGNMENT = 64
NUM_GROUPS = 8
PayloadDtype = Literal["complex64", "float16"]

_BIT_REVERSED = (0, 4, 2, 6, 1, 5, 3, 7)
_ITEM_NBYTES = {"complex64": 8, "float16": 4}
# Half of float16's largest value: rounding cannot overflow.
_HALF_LIMIT = 2.0**15
# What is done at once fits the processor's cache; an odd number of cache lines per row of a block keeps them in different sets.
_COILS_AT_ONCE, _LINES_AT_ONCE, _ROWS_AT_ONCE = 4, 64, 504


@dataclass(frozen=True, kw_only=True)
class EncodedSlice:
    """One slice ready for a shard.

    Attributes:
        parts: The payload's bytes, in order, a multiple of 64 together; they may look into the arrays that were encoded.
        columns: The catalog columns it decides; ``offset`` and ``target_offset`` count from its first byte.
    """

    parts: tuple[NDArray[np.uint8], ...]
    columns: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Length of the payload."""
        return sum(part.size for part in self.parts)

    @property
    def data(self) -> NDArray[np.uint8]:
        """The payload in one piece, a copy."""
        return np.concatenate(self.parts)

    def columns_at(self, uri: str, start: int) -> dict[str, Any]:
        """Return the columns for a payload that lies at byte ``start`` of the object ``uri``."""
        moved = dict(self.columns)
        if self.columns.get("nbytes", 1):
            moved |= {"uri": uri, "offset": self.columns["offset"] + start}
        if self.columns["target_nbytes"]:
            moved |= {"target_uri": uri, "target_offset": self.columns["target_offset"] + start}
        return moved


def checksum(*parts: Any) -> int:
    """Return xxh3_64 of buffers that follow each other."""
    if len(parts) == 1:
        return xxhash.xxh3_64_intdigest(parts[0])
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return state.intdigest()


def encode_packed(kspace: np.ndarray, target: np.ndarray | None, dtype: PayloadDtype = "complex64") -> EncodedSlice:
    """Encode a slice whole.

    Args:
        kspace: complex64 (coil, ky, kx).
        target: float32 (y, x), or None.
        dtype: ``float16`` halves the bytes.
    """
    kspace = np.asarray(kspace, np.complex64)
    parts = [_as_bytes(kspace)] if dtype == "complex64" else list(_to_halves(kspace))
    nbytes = sum(part.size for part in parts)
    columns = {"kind": "packed", "dtype": dtype, "offset": 0, "nbytes": nbytes, "checksum": checksum(*parts), "acs_lines": 0}
    return _finish(parts, 0, target, _aligned(nbytes), columns)


def encode_lines(kspace: np.ndarray, target: np.ndarray | None, dtype: PayloadDtype = "complex64", *, acs_lines: int) -> EncodedSlice:
    """Encode a slice line by line, so that a mask's lines can be read without the others.

    Args:
        kspace: complex64 (coil, ky, kx).
        target: float32 (y, x), or None.
        dtype: ``float16`` halves the bytes.
        acs_lines: Central lines to store twice; at least as many as the masks to come sample fully (0.08 of the width).

    Raises:
        ConfigError: ``acs_lines`` is not within the width.
    """
    coils, height, width = kspace.shape
    layout = lines_layout(coils, height, width, acs_lines, dtype)
    items: NDArray[Any]
    if dtype == "complex64":
        scales, items = np.empty(0, np.uint8), np.asarray(kspace, np.complex64)
    else:
        scales, halves = _to_halves(kspace)
        items = halves.view(np.uint32).reshape(kspace.shape)
    lines = np.ascontiguousarray(np.moveaxis(items, 2, 0))
    blocks = [_as_bytes(lines[layout.acs_start : layout.acs_start + acs_lines])]
    blocks += [_as_bytes(lines[residue::NUM_GROUPS]) for residue in _BIT_REVERSED]
    sums = np.array([checksum(block) for block in blocks], np.uint64)
    head = np.zeros(layout.head_nbytes, np.uint8)
    head[: scales.size] = scales
    head[layout.sums_at : layout.sums_at + sums.nbytes] = sums.view(np.uint8)
    nbytes = head.size + sum(block.size for block in blocks)
    offset = _aligned(0 if target is None else target.size * 4)
    columns = {
        "kind": "lines", "dtype": dtype, "offset": offset, "nbytes": nbytes, "checksum": checksum(head), "acs_lines": acs_lines,
    }  # fmt: skip
    return _finish([head, *blocks], offset, target, 0, columns)


def encode_image(image: np.ndarray) -> EncodedSlice:
    """Encode a slice that is an image alone, float32 (y, x), without k-space."""
    columns = {"kind": "image", "uri": "", "dtype": "complex64", "offset": 0, "nbytes": 0, "checksum": None, "acs_lines": 0}
    return _finish([], 4 * image.size, image, 0, columns)


@dataclass(frozen=True)
class LinesLayout:
    """Where everything lies in a ``lines`` payload; byte positions count from the head.

    Attributes:
        line_nbytes: Bytes of one line of all coils.
        sums_at: Where in the head the nine checksums begin: of the ACS block, then of each group.
        head_nbytes: Length of the head.
        acs_start: First line of the ACS block.
        starts: Begin of the ACS block and of each group, and the end: 10 positions.
    """

    coils: int
    height: int
    width: int
    acs_lines: int
    dtype: PayloadDtype
    line_nbytes: int
    sums_at: int
    head_nbytes: int
    acs_start: int
    starts: tuple[int, ...]

    def needed(self, mask: NDArray[np.bool_]) -> tuple[bool, tuple[int, ...]]:
        """Return whether a mask needs the ACS block, and which groups it needs besides."""
        acs = np.zeros(self.width, bool)
        acs[self.acs_start : self.acs_start + self.acs_lines] = True
        residues = set((np.flatnonzero(mask & ~acs) % NUM_GROUPS).tolist())
        groups = tuple(group for group in range(NUM_GROUPS) if _BIT_REVERSED[group] in residues)
        central = set((np.flatnonzero(mask & acs) % NUM_GROUPS).tolist())
        return not central <= residues, groups

    def lines_of(self, block: int) -> slice:
        """Return the lines, as a slice of the width, of block 0 (ACS) or 1 + group."""
        if block == 0:
            return slice(self.acs_start, self.acs_start + self.acs_lines)
        return slice(_BIT_REVERSED[block - 1], None, NUM_GROUPS)


@functools.lru_cache(maxsize=4096)
def lines_layout(coils: int, height: int, width: int, acs_lines: int, dtype: PayloadDtype) -> LinesLayout:
    """Lay out a ``lines`` payload for one shape.

    Raises:
        ConfigError: ``acs_lines`` is not within the width.
    """
    if not 0 <= acs_lines <= width:
        raise ConfigError(f"acs_lines={acs_lines}", f"must lie in [0, {width}]", "Use the largest centre fraction times the width.")
    line_nbytes = coils * height * _ITEM_NBYTES[dtype]
    sums_at = scales_nbytes(coils) if dtype == "float16" else 0
    head_nbytes = _aligned(sums_at + 8 * (1 + NUM_GROUPS))
    counts = [acs_lines, *(len(range(residue, width, NUM_GROUPS)) for residue in _BIT_REVERSED)]
    starts = head_nbytes + line_nbytes * np.cumsum([0, *counts])
    # The same centre as physics.masks: ``(width - n + 1) // 2``, so that a smaller centre lies within a larger one.
    acs_start = (width - acs_lines + 1) // 2
    return LinesLayout(
        coils, height, width, acs_lines, dtype, line_nbytes, sums_at, head_nbytes, acs_start, tuple(int(start) for start in starts)
    )


def scales_nbytes(coils: int) -> int:
    """Bytes of the scales in front of half-precision k-space: one float32 per coil, padded."""
    return _aligned(4 * coils)


def decode_halves(halves: NDArray[np.float16], scales: NDArray[np.float32], out: NDArray[np.complex64]) -> None:
    """Expand half-precision k-space of whole coils: ``out[coil, n] = halves[coil, n] * scales[coil]``.

    Args:
        halves: (coil, n, 2).
        scales: (coil,).
        out: (coil, n), contiguous.
    """
    # A few coils at a time stay in the cache between the two passes; torch converts halves with SIMD, NumPy does not.
    source, expanded = torch.from_numpy(halves), torch.view_as_real(torch.from_numpy(out))
    factors = torch.from_numpy(scales)[:, None, None]
    for first in range(0, len(halves), _COILS_AT_ONCE):
        some = slice(first, first + _COILS_AT_ONCE)
        expanded[some].copy_(source[some]).mul_(factors[some])


def decode_half_lines(halves: NDArray[np.float16], scales: NDArray[np.float32], out: NDArray[np.complex64]) -> None:
    """Expand half-precision lines: ``out[line, coil, ky] = halves[line, coil, ky] * scales[coil]``.

    Args:
        halves: (line, coil, ky, 2).
        scales: (coil,).
        out: (line, coil, ky), contiguous.
    """
    source, expanded = torch.from_numpy(halves), torch.view_as_real(torch.from_numpy(out))
    factors = torch.from_numpy(scales)[:, None, None]
    for first in range(0, len(halves), _LINES_AT_ONCE):
        some = slice(first, first + _LINES_AT_ONCE)
        expanded[some].copy_(source[some]).mul_(factors)


def scatter_lines(layout: LinesLayout, blocks: dict[int, NDArray[np.complex64]], out: NDArray[np.complex64]) -> None:
    """Put lines where they belong and zeros everywhere else.

    Args:
        layout: Of the payload.
        blocks: Lines of block 0 (ACS) and 1 + group, each (line, coil, ky).
        out: (coil, ky, kx), contiguous; written whole.
    """
    # As 8-byte words, which NumPy moves in half the time of complex numbers.
    rows = out.view(np.uint64).reshape(layout.coils * layout.height, layout.width)
    flat = {block: lines.view(np.uint64).reshape(len(lines), -1) for block, lines in blocks.items()}
    is_full = len(flat.keys() - {0}) == NUM_GROUPS
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        if not is_full:
            part.fill(0)
        for block, lines in flat.items():
            # Copied first: lines lie a multiple of 4 KB apart, where transposing straight from them would thrash the cache.
            part[:, layout.lines_of(block)] = np.ascontiguousarray(lines[:, start : start + _ROWS_AT_ONCE]).T


def _to_halves(kspace: np.ndarray) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return scales (padded) and half-precision k-space, as bytes."""
    pairs = np.ascontiguousarray(kspace, np.complex64).view(np.float32)
    largest = np.abs(pairs).reshape(len(pairs), -1).max(axis=1)
    if not np.isfinite(largest).all():
        raise PayloadError("k-space", "holds NaN or infinity", "Such slices are dropped by curation before they are encoded.")
    with np.errstate(divide="ignore"):
        exponents = np.maximum(np.ceil(np.log2(largest / _HALF_LIMIT)), -126)
    scales = np.exp2(np.where(largest > 0, exponents, 0)).astype(np.float32)
    padded = np.zeros(scales_nbytes(len(scales)), np.uint8)
    padded[: scales.nbytes] = scales.view(np.uint8)
    # The scales are powers of two, so that the product with the reciprocal is as exact as the quotient.
    factors = torch.from_numpy(1 / scales)[:, None, None]
    halves = (torch.from_numpy(pairs) * factors).to(torch.float16).numpy()
    return padded, halves.reshape(-1).view(np.uint8)


def _finish(
    body: list[NDArray[np.uint8]], body_at: int, target: np.ndarray | None, target_at: int, columns: dict[str, Any]
) -> EncodedSlice:
    """Put body and target in their places, with zeros between them and up to the alignment; nothing is copied."""
    image = np.empty(0, np.uint8) if target is None else _as_bytes(np.asarray(target, np.float32))
    parts, size = [], 0
    for start, pieces in sorted([(target_at, [image]), (body_at, body)], key=lambda placed: placed[0]):
        parts += [np.zeros(start - size, np.uint8), *pieces]
        size = start + sum(piece.size for piece in pieces)
    parts.append(np.zeros(_aligned(size) - size, np.uint8))
    columns |= {
        "target_offset": target_at if image.size else 0,
        "target_nbytes": image.size,
        "target_checksum": checksum(image) if image.size else None,
    }
    return EncodedSlice(parts=tuple(part for part in parts if part.size), columns=columns)


def _as_bytes(array: np.ndarray) -> NDArray[np.uint8]:
    contiguous = np.ascontiguousarray(array)
    if contiguous.dtype == np.complex128:
        contiguous = contiguous.astype(np.complex64)
    return contiguous.reshape(-1).view(np.uint8)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
