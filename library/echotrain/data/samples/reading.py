"""From a catalog row to k-space in memory: which bytes to read, how to verify them, how to expand them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from echotrain.data.catalog.rows import IMAGE_ONLY, SliceRow
from echotrain.data.payloads.slices import PayloadDtype, decode_half_lines, decode_halves, lines_layout, scales_nbytes, scatter_lines
from echotrain.data.samples.slots import Scratch
from echotrain.errors import CatalogError, PayloadError
from echotrain.storage.open import join_uri
from echotrain.storage.ranged import RangeReader

__all__ = ["SliceReader"]

# Reading over a gap this small costs less than another request.
_LARGEST_GAP = 64 << 10


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A range of an object, the memory it goes to, and the checksum that the catalog promises."""

    uri: str
    offset: int
    buffer: NDArray[np.uint8]
    checksum: int | None = None

    @property
    def end(self) -> int:
        return self.offset + self.buffer.size


class SliceReader:
    """Reads slices of a catalog into memory that the caller owns; for use by many threads.

    Args:
        root: What relative URIs of rows are below.
        reader: Fetches the ranges.
    """

    def __init__(self, root: str, reader: RangeReader) -> None:
        self._root = root
        self._reader = reader
        self._local = threading.local()

    def read(self, row: SliceRow, mask: NDArray[np.bool_], kspace: NDArray[np.complex64], target: NDArray[np.float32]) -> int:
        """Fill one sample's memory.

        Args:
            row: The slice.
            mask: Acquired lines, (kx,). Of the ``lines`` layout only what they need is read, and the rest is zero.
            kspace: Filled: (coil, ky, kx), contiguous.
            target: Filled: (y, x), contiguous.

        Returns:
            Bytes that were fetched.

        Raises:
            PayloadError: An object is shorter than the catalog says, or its bytes are not those it promises, twice in a row.
            StorageError: The store failed after bounded retries, or refused.
        """
        _check(row, kspace, target)
        before = [self._part(row, row.target_uri, row.target_offset, target.reshape(-1).view(np.uint8), row.target_checksum)]
        if row.kind == "lines":
            return self._read_lines(row, mask, kspace, before)
        if row.dtype == "complex64":
            return self._fetch([self._part(row, row.uri, row.offset, kspace.reshape(-1).view(np.uint8), row.checksum), *before])
        body = self._scratch("fetched").take(row.nbytes)
        fetched = self._fetch([self._part(row, row.uri, row.offset, body, row.checksum), *before])
        head = scales_nbytes(row.coils)
        halves = body[head:].view(np.float16).reshape(row.coils, -1, 2)
        decode_halves(halves, body[: 4 * row.coils].view(np.float32), kspace.reshape(row.coils, -1))
        return fetched

    def read_target(self, row: SliceRow, target: NDArray[np.float32]) -> int:
        """Fill the target alone, (y, x), contiguous; return the bytes that were fetched. Errors are those of ``read``."""
        _check_target(row, target)
        return self._fetch([self._part(row, row.target_uri, row.target_offset, target.reshape(-1).view(np.uint8), row.target_checksum)])

    def _read_lines(self, row: SliceRow, mask: NDArray[np.bool_], kspace: NDArray[np.complex64], before: list[_Part]) -> int:
        layout = lines_layout(row.coils, row.height, row.width, row.acs_lines, cast(PayloadDtype, row.dtype))
        needs_acs, groups = layout.needed(mask)
        blocks = ([0] if needs_acs else []) + [1 + group for group in groups]
        sizes = {block: layout.starts[block + 1] - layout.starts[block] for block in blocks}
        memory = self._scratch("fetched").take(layout.head_nbytes + sum(sizes.values()))
        head, at, parts, pieces = memory[: layout.head_nbytes], layout.head_nbytes, list(before), {}
        parts.append(self._part(row, row.uri, row.offset, head, row.checksum))
        for block in blocks:
            pieces[block] = memory[at : at + sizes[block]]
            parts.append(self._part(row, row.uri, row.offset + layout.starts[block], pieces[block], None))
            at += sizes[block]
        sums = head[layout.sums_at : layout.sums_at + 72].view(np.uint64)
        fetched = self._fetch(parts, {len(before) + 1 + i: sums[block : block + 1] for i, block in enumerate(blocks)})
        if row.dtype == "complex64":
            lines = {block: piece.view(np.complex64).reshape(-1, row.coils, row.height) for block, piece in pieces.items()}
        else:
            body = memory[layout.head_nbytes :]
            halves = body.view(np.float16).reshape(-1, row.coils, row.height, 2)
            expanded = self._scratch("expanded").take(2 * body.size).view(np.complex64).reshape(halves.shape[:-1])
            decode_half_lines(halves, head[: 4 * row.coils].view(np.float32), expanded)
            counts = np.cumsum([0, *(sizes[block] // layout.line_nbytes for block in blocks)])
            lines = {block: expanded[counts[i] : counts[i + 1]] for i, block in enumerate(blocks)}
        scatter_lines(layout, lines, kspace)
        return fetched

    def _fetch(self, parts: Sequence[_Part], late_sums: dict[int, NDArray[np.uint64]] | None = None) -> int:
        """Read all parts, neighbours in one request, and verify them; a mismatch is read once more, then it is an error.

        Args:
            parts: What to read.
            late_sums: Checksums that are themselves fetched, by position of their part.
        """
        damaged: _Part | None = None
        fetched = 0
        for _ in range(2):
            digests, count = self._read_parts(parts)
            fetched += count
            promised = [part.checksum for part in parts]
            for position, late in (late_sums or {}).items():
                promised[position] = int(late[0])
            wrong = [i for i, sum_ in enumerate(promised) if sum_ is not None and sum_ != digests[i]]
            if not wrong:
                return fetched
            damaged = parts[wrong[0]]
        if damaged is None:
            raise AssertionError("a second read came before the first mismatch")
        raise PayloadError(
            f"{damaged.uri} at byte {damaged.offset}",
            f"has {damaged.buffer.size} bytes that do not match the catalog's checksum",
            "The object was damaged or replaced; restore it, or prepare the data again.",
        )

    def _read_parts(self, parts: Sequence[_Part]) -> tuple[list[int], int]:
        digests = [0] * len(parts)
        fetched = 0
        order = sorted(range(len(parts)), key=lambda i: (parts[i].uri, parts[i].offset))
        run: list[int] = []
        for position, index in enumerate(order):
            run.append(index)
            following = parts[order[position + 1]] if position + 1 < len(order) else None
            part = parts[index]
            if following is not None and following.uri == part.uri and 0 <= following.offset - part.end <= _LARGEST_GAP:
                continue
            buffers: list[memoryview] = []
            places: list[int] = []
            for i, member in enumerate(run):
                gap = parts[member].offset - parts[run[i - 1]].end if i else 0
                if gap:
                    buffers.append(memoryview(bytearray(gap)))
                    places.append(-1)
                buffers.append(memoryview(parts[member].buffer))  # type: ignore[arg-type]
                places.append(member)
            for place, digest in zip(places, self._reader.read_into(part.uri, parts[run[0]].offset, *buffers), strict=True):
                if place >= 0:
                    digests[place] = digest
            fetched += part.end - parts[run[0]].offset
            run = []
        return digests, fetched

    def _part(self, row: SliceRow, uri: str, offset: int, buffer: NDArray[np.uint8], checksum: int | None) -> _Part:
        return _Part(uri=join_uri(self._root, uri), offset=offset, buffer=buffer, checksum=checksum)

    def _scratch(self, name: str) -> Scratch:
        scratch: Scratch | None = getattr(self._local, name, None)
        if scratch is None:
            scratch = Scratch()
            setattr(self._local, name, scratch)
        return scratch


def _check(row: SliceRow, kspace: NDArray[np.complex64], target: NDArray[np.float32]) -> None:
    """Refuse a row whose sizes disagree: the bytes would be read as something else."""
    name = f"{row.dataset}/{row.volume}[{row.slice}]"
    if row.kind == IMAGE_ONLY:
        raise CatalogError(name, "is an image without k-space", "Learn from images: data.kind=image, or select rows with k-space.")
    items = row.coils * row.height * row.width
    if row.kind == "lines":
        expected = lines_layout(row.coils, row.height, row.width, row.acs_lines, cast(PayloadDtype, row.dtype)).starts[-1]
    else:
        expected = items * 8 if row.dtype == "complex64" else scales_nbytes(row.coils) + items * 4
    if row.nbytes != expected or kspace.size != items:
        raise CatalogError(f"{name}: nbytes={row.nbytes}", f"is not the {expected} of its shape", "Prepare the data again.")
    _check_target(row, target)


def _check_target(row: SliceRow, target: NDArray[np.float32]) -> None:
    if row.target_nbytes != target.nbytes:
        raise CatalogError(
            f"{row.dataset}/{row.volume}[{row.slice}]: target_nbytes={row.target_nbytes}",
            f"is not the {target.nbytes} of a {row.recon_height}x{row.recon_width} image",
            "Training needs a target for every slice; prepare fully sampled data.",
        )
