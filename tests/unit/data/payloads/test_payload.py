"""Payload layouts: what is written is what is read, whole or in part."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.payloads.slices import (
    ALIGNMENT,
    NUM_GROUPS,
    checksum,
    decode_half_lines,
    decode_halves,
    encode_lines,
    encode_packed,
    lines_layout,
    scales_nbytes,
    scatter_lines,
)
from echotrain.errors import ConfigError, PayloadError
from echotrain.physics.masks import MaskConfig, line_mask
from tests.scans import random_kspace


def random_slice(coils: int = 3, height: int = 20, width: int = 37, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    decay = np.exp(-np.abs(np.arange(width) - width // 2) / 4) * 10.0 ** rng.integers(-7, -3, (coils, 1, 1))
    kspace = (rng.normal(size=(coils, height, width)) + 1j * rng.normal(size=(coils, height, width))) * decay
    return kspace.astype(np.complex64), rng.random((16, 16)).astype(np.float32)


def read_lines(data: np.ndarray, columns: dict, shape: tuple[int, int, int], mask: np.ndarray) -> np.ndarray:
    """Read as a fetch does: the head, then only the blocks that the mask needs."""
    coils, height, width = shape
    layout = lines_layout(coils, height, width, columns["acs_lines"], columns["dtype"])
    body = data[columns["offset"] : columns["offset"] + columns["nbytes"]]
    scales = body[: 4 * coils].view(np.float32)
    needs_acs, groups = layout.needed(mask)
    blocks = {}
    for block in ([0] if needs_acs else []) + [1 + group for group in groups]:
        piece = body[layout.starts[block] : layout.starts[block + 1]]
        if columns["dtype"] == "complex64":
            blocks[block] = piece.view(np.complex64).reshape(-1, coils, height)
        else:
            halves = piece.view(np.float16).reshape(-1, coils, height, 2)
            blocks[block] = np.empty(halves.shape[:-1], np.complex64)
            decode_half_lines(halves, scales, blocks[block])
    out = np.full(shape, np.nan, np.complex64)
    scatter_lines(layout, blocks, out)
    return out


def test_a_packed_payload_holds_kspace_then_target_at_aligned_places() -> None:
    kspace, target = random_slice()
    encoded = encode_packed(kspace, target)
    columns = encoded.columns
    assert encoded.data.size % ALIGNMENT == 0
    assert columns["target_offset"] % ALIGNMENT == 0
    assert columns["offset"] + columns["nbytes"] <= columns["target_offset"] < columns["offset"] + columns["nbytes"] + ALIGNMENT
    body = encoded.data[: columns["nbytes"]]
    np.testing.assert_array_equal(body.view(np.complex64).reshape(kspace.shape), kspace)
    assert columns["checksum"] == checksum(body)
    image = encoded.data[columns["target_offset"] :][: columns["target_nbytes"]]
    np.testing.assert_array_equal(image.view(np.float32).reshape(target.shape), target)
    assert columns["target_checksum"] == checksum(image)


def test_half_precision_halves_the_bytes_at_negligible_error() -> None:
    kspace, target = random_slice(coils=4, height=64, width=64)
    encoded = encode_packed(kspace, target, "float16")
    head = scales_nbytes(4)
    body = encoded.data[: encoded.columns["nbytes"]]
    assert body.size == head + kspace.nbytes // 2
    decoded = np.empty((4, 64 * 64), np.complex64)
    decode_halves(body[head:].view(np.float16).reshape(4, -1, 2), body[:16].view(np.float32), decoded)
    error = np.linalg.norm(decoded.reshape(kspace.shape) - kspace) ** 2 / np.linalg.norm(kspace) ** 2
    assert error < 5e-8


@given(
    st.lists(st.tuples(st.integers(-30, 100), st.sampled_from([1.0, 1.0000001, 1.5, 1.999, 1.9998, 1.9999999])), min_size=1, max_size=6),
    st.integers(0, 3),
)
def test_half_precision_is_as_near_for_each_coil_whatever_the_others_size(magnitudes, seed) -> None:
    rng = np.random.default_rng(seed)
    kspace = np.empty((len(magnitudes), 5, 7), np.complex64)
    for coil, (exponent, mantissa) in enumerate(magnitudes):
        kspace[coil] = rng.uniform(-1, 1, (5, 7)) + 1j * rng.uniform(-1, 1, (5, 7))
        kspace[coil] *= np.float32(2.0**exponent)
        kspace[coil, 0, 0] = np.float32(mantissa) * np.float32(2.0**exponent)
    encoded = encode_packed(kspace, None, "float16")
    body, head = encoded.data[: encoded.columns["nbytes"]], scales_nbytes(len(kspace))
    decoded = np.empty((len(kspace), 35), np.complex64)
    halves = body[head:].view(np.float16).reshape(len(kspace), -1, 2)
    decode_halves(halves, body[: 4 * len(kspace)].view(np.float32), decoded)
    for coil, found in zip(kspace, decoded.reshape(kspace.shape), strict=True):
        # Half a unit in the last of 11 binary digits of the largest part; two parts to each number.
        assert np.abs(found - coil).max() <= np.abs(coil.view(np.float32)).max() * 2.0**-11 * np.sqrt(2)


def test_half_precision_keeps_an_empty_coil_and_refuses_nan() -> None:
    kspace, target = random_slice()
    kspace[1] = 0
    body = encode_packed(kspace, target, "float16").data
    np.testing.assert_array_equal(body[:12].view(np.float32)[1], 1.0)
    kspace[0, 0, 0] = np.nan
    with pytest.raises(PayloadError, match="NaN"):
        encode_packed(kspace, target, "float16")


@pytest.mark.parametrize("width", [32, 37, 320])
@pytest.mark.parametrize(("acceleration", "fraction"), [(2, 0.16), (4, 0.08), (8, 0.04)])
def test_an_integer_equispaced_mask_reads_neighbouring_groups_and_equals_masking_the_whole(
    width: int, acceleration: int, fraction: float
) -> None:
    kspace, target = random_slice(width=width, height=70)
    encoded = encode_lines(kspace, target, acs_lines=round(width * 0.16))
    layout = lines_layout(3, 70, width, round(width * 0.16), "complex64")
    config = MaskConfig(kind="equispaced", accelerations=(acceleration,), center_fractions=(fraction,))
    offsets = set()
    for volume in range(40):
        sampling = line_mask(config, width, seed=0, dataset="d", volume=str(volume), epoch=None)
        offsets.add(sampling.offset)
        _, groups = layout.needed(sampling.mask)
        assert len(groups) == NUM_GROUPS // acceleration
        assert groups == tuple(range(groups[0], groups[-1] + 1))
        out = read_lines(encoded.data, encoded.columns, kspace.shape, sampling.mask)
        np.testing.assert_array_equal(out * sampling.mask, kspace * sampling.mask)
    assert offsets == set(range(acceleration))


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction", "magic"])
@pytest.mark.parametrize("dtype", ["complex64", "float16"])
def test_any_mask_reads_a_superset_of_its_lines(kind: str, dtype: str) -> None:
    kspace, target = random_slice(width=44)
    encoded = encode_lines(kspace, target, dtype, acs_lines=4)
    sampling = line_mask(MaskConfig(kind=kind), 44, seed=3, dataset="d", volume="v", epoch=0)
    out = read_lines(encoded.data, encoded.columns, kspace.shape, sampling.mask)
    reference = read_lines(encoded.data, encoded.columns, kspace.shape, np.ones(44, bool))
    np.testing.assert_array_equal(out * sampling.mask, reference * sampling.mask)
    np.testing.assert_allclose(reference, kspace, rtol=0, atol=float(np.abs(kspace).max()) * 1e-3 if dtype == "float16" else 0)


def test_a_full_mask_does_not_read_the_acs_block_twice() -> None:
    assert lines_layout(2, 8, 40, 6, "complex64").needed(np.ones(40, bool)) == (False, tuple(range(8)))


def test_the_head_of_lines_verifies_every_block() -> None:
    kspace, target = random_slice()
    encoded = encode_lines(kspace, target, "float16", acs_lines=5)
    layout = lines_layout(3, 20, 37, 5, "float16")
    body = encoded.data[encoded.columns["offset"] :]
    assert encoded.columns["checksum"] == checksum(body[: layout.head_nbytes])
    sums = body[layout.sums_at : layout.sums_at + 72].view(np.uint64)
    assert [int(s) for s in sums] == [checksum(body[a:b]) for a, b in zip(layout.starts, layout.starts[1:], strict=False)]
    assert encoded.columns["nbytes"] == layout.starts[-1]


def test_more_acs_lines_than_lines_are_refused() -> None:
    kspace, target = random_slice()
    with pytest.raises(ConfigError, match="acs_lines=38"):
        encode_lines(kspace, target, acs_lines=38)


def test_columns_move_with_the_payload_and_stay_empty_without_a_target() -> None:
    kspace, target = random_slice()
    with_target = encode_lines(kspace, target, acs_lines=5).columns_at("shards/a.bin", 640)
    assert with_target["offset"] == 640 + 16 * 16 * 4
    assert with_target["target_offset"] == 640
    assert with_target["target_uri"] == with_target["uri"] == "shards/a.bin"
    without = encode_packed(kspace, None).columns_at("shards/a.bin", 640)
    assert (without["offset"], without["target_nbytes"], without.get("target_uri")) == (640, 0, None)


@pytest.mark.parametrize("shape", [None, (1, 1), (4, 4), (5, 7), (16, 16)])
@pytest.mark.parametrize("width", [1, 2, 8, 37])
@pytest.mark.parametrize("dtype", ["complex64", "float16"])
@pytest.mark.parametrize("encode", [encode_packed, partial(encode_lines, acs_lines=1)])
def test_the_parts_of_a_payload_are_aligned_and_where_its_columns_say(encode, dtype, width, shape) -> None:
    kspace, _ = random_slice(height=3, width=width)
    target = None if shape is None else np.arange(1, 1 + shape[0] * shape[1], dtype=np.float32).reshape(shape)
    encoded = encode(kspace, target, dtype)
    data, columns = encoded.data, encoded.columns
    assert encoded.nbytes == data.size == sum(part.size for part in encoded.parts)
    assert data.size % ALIGNMENT == columns["offset"] % ALIGNMENT == columns["target_offset"] % ALIGNMENT == 0
    covered = np.zeros(data.size, int)
    for name in ("", "target_"):
        start = columns[f"{name}offset"]
        covered[start : start + columns[f"{name}nbytes"]] += 1
    assert covered.max() == 1
    assert not data[covered == 0].any()
    assert (covered == 0).sum() < 2 * ALIGNMENT
    if target is None:
        assert columns["target_nbytes"] == 0
    else:
        stored = data[columns["target_offset"] :][: columns["target_nbytes"]]
        np.testing.assert_array_equal(stored.view(np.float32).reshape(shape), target)
        assert columns["target_checksum"] == checksum(stored)
    if columns["kind"] == "packed":
        assert columns["checksum"] == checksum(data[columns["offset"] :][: columns["nbytes"]])


@pytest.mark.parametrize("dtype", [">c8", "c16", "f4"])
def test_whatever_numbers_come_in_are_packed_as_complex64(dtype):
    kspace = random_kspace((2, 6, 5)).real.astype(dtype)
    assert encode_packed(kspace, None).data.tobytes() == encode_packed(kspace.astype(np.complex64), None).data.tobytes()
