"""Files of torch.save from strangers: their tensors come out, nothing in them runs, and no claim of size is believed."""

import argparse
import collections
import functools
import io
import os
import pathlib
import pickle
import pickletools
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.errors import CheckpointError
from echotrain.models import state_file
from echotrain.models.state_file import read_state

STATE = {
    "a.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
    "a.transposed": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
    "b.half": torch.arange(5).to(torch.bfloat16),
    "b.count": torch.tensor(7),
    "b.empty": torch.empty(0, 3),
}


class Hostile:
    """Runs a command when it is unpickled as pickles are meant to be."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self._marker}",)


class Dictionary(dict):
    """What Lightning calls an AttributeDict."""


def save(path, obj, *, legacy=False, protocol=2):
    torch.save(obj, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return path


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_plain_state_dict_comes_back_to_the_bit(tmp_path, legacy, protocol):
    save(tmp_path / "a.pt", collections.OrderedDict(STATE), legacy=legacy, protocol=protocol)
    assert_same(read_state(tmp_path / "a.pt"), STATE)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_runs_in_a_checkpoint_and_its_tensors_come_out(tmp_path, legacy, protocol):
    hyper = Dictionary(lr=1e-3, path=pathlib.Path("/data"), evil=Hostile(tmp_path / "ran"))
    checkpoint = {
        "epoch": 3,
        "hyper_parameters": hyper,
        "args": argparse.Namespace(challenge="multicoil", also=Hostile(tmp_path / "ran")),
        "callbacks": {Dictionary: {"best": Hostile(tmp_path / "ran"), "dict": collections.defaultdict(list, a=[1])}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "betas": (0.9, 0.999), "hook": functools.partial(print, "x")}],
        "set": {1, 2},
        "frozen": frozenset([3]),
        "state_dict": collections.OrderedDict(STATE),
    }
    save(tmp_path / "a.ckpt", checkpoint, legacy=legacy, protocol=protocol)
    assert_same(read_state(tmp_path / "a.ckpt"), STATE)
    assert not (tmp_path / "ran").exists()
    # The file is what it is said to be: PyTorch's own safe reader refuses it, and its unsafe one runs the command.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_parameters_and_shared_storages_are_tensors_too(tmp_path):
    whole = torch.arange(10.0)
    state = {"p": torch.nn.Parameter(torch.ones(2)), "first": whole[:4], "last": whole[4:]}
    save(tmp_path / "a.pt", state)
    assert_same(read_state(tmp_path / "a.pt"), {name: tensor.detach() for name, tensor in state.items()})


@pytest.mark.parametrize("legacy", [False, True])
def test_bytes_and_arrays_among_hyper_parameters_are_passed_over_in_protocol_5(tmp_path, legacy):
    hyper = {"raw": bytearray(b"abc"), "array": np.arange(3.0), "number": np.float64(2)}
    path = save(tmp_path / "a.ckpt", {"hyper_parameters": hyper, "state_dict": STATE}, legacy=legacy, protocol=5)
    assert "BYTEARRAY8" in {opcode.name for opcode, _, _ in pickletools.genops(pickle.dumps(hyper, 5))}
    assert_same(read_state(path), STATE)


@pytest.mark.parametrize("inert", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97", b"\x97\x98"])
def test_what_stands_for_an_object_that_is_elsewhere_is_passed_over(tmp_path, inert):
    tensor = view((2, 2), (2, 1))
    begin, end = tensor[:3], tensor[3:]
    key = b"X" + struct.pack("<I", 5) + b"other"
    # {"other": inert, "state_dict": {"w": tensor}}
    nested = b"X" + struct.pack("<I", 10) + b"state_dict" + b"}" + end[:-1] + b"s."
    archive(tmp_path / "a.pt", begin + key + inert + b"s" + nested)
    assert list(read_state(tmp_path / "a.pt")) == ["w"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, legacy):
    data = save(tmp_path / "a.pt", STATE, legacy=legacy).read_bytes()
    for length in range(0, len(data) - 1, 7):
        (tmp_path / "cut.pt").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            read_state(tmp_path / "cut.pt")


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), legacy=st.booleans())
def test_a_changed_byte_gives_tensors_or_a_typed_error(tmp_path_factory, place, byte, legacy):
    data = bytearray(_saved(legacy))
    data[place % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    path.write_bytes(data)
    try:
        state = read_state(path)
    except CheckpointError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


@functools.cache
def _saved(legacy):
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def test_a_flipped_bit_of_a_weight_is_seen(tmp_path):
    data = bytearray(_saved(False))
    data[bytes(data).index(STATE["a.weight"].numpy().tobytes()) + 3] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="CRC"):
        read_state(tmp_path / "a.pt")


def view(shape, stride, offset=0, numel=4, key="0", storage="FloatStorage"):
    """Return the pickle of ``{"w": tensor}`` with any claim about the tensor."""

    def number(n):
        return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    persistent = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + number(offset) + numbers(shape) + numbers(stride) + b"\x89NtR"
    return b"\x80\x02}" + text("w") + tensor + b"s."


def growing(function, argument):
    """Return a pickle that has one large argument given to a function ten thousand times, and keeps what came of it."""
    begin = b"\x80\x02" + function + b"q\x00" + argument + b"\x85q\x01"
    return begin + b"]q\x02(" + b"h\x00h\x01R" * 10_000 + b"e."


def archive(path, pickled, data=bytes(16), *, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", data)
    return path


def test_the_handmade_file_is_right_where_its_claims_are(tmp_path):
    archive(tmp_path / "a.pt", view((2, 2), (2, 1)), STATE["a.weight"].numpy().tobytes()[:16])
    assert torch.equal(read_state(tmp_path / "a.pt")["w"], torch.arange(4.0).reshape(2, 2))


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (view((2**40,), (0,)), "does not lie in its storage of 4"),
        (view((2, 2**62), (0, 0)), "does not lie"),
        (view((3, 2), (1, 1)), "does not lie"),
        (view((2, 2), (3, 1)), "does not lie"),
        (view((2, 2), (2, 1), offset=1), "does not lie"),
        (view((2, 2), (2, 1), offset=-1), "no tensor of a storage"),
        (view((-2, 2), (2, 1)), "no tensor of a storage"),
        (view((2, 2), (-2, 1)), "no tensor of a storage"),
        (view((4,), (1, 1)), "1 axes and 2 strides"),
        (view((1,) * 9, (1,) * 9), "9 axes"),
        (view((2, 2), (2, 1), numel=2**40), "16 bytes where"),
        (view((2, 2), (2, 1), numel=-4), "not describe one"),
        (view((2, 2), (2, 1), key="../../etc/passwd"), "There is no item|KeyError"),
        (view((2, 2), (2, 1), storage="UntypedStorage"), "UntypedStorage"),
        (view((1000,), (1,), numel=1000), "its tensors would take 4000 bytes"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "no state_dict"),
        (b"\x80\x05\x96\x00\x00\x00\x00\xff\x00\x00\x00.", "bytearray8|BYTEARRAY8"),
        (b"\x80\x04\x8d\x00\x00\x00\x00\xff\x00\x00\x00.", "ValueError"),
        (b"\x80\x02\x82\x01.", "no state_dict"),
        (b"\x80\x02Pan id\n.", "PERSID"),
        (growing(b"ccollections\nOrderedDict\n", b"]" + b"(" + b"]X\x01\x00\x00\x00aa" * 2000 + b"e"), "no state_dict"),
        (growing(b"ctorch\nSize\n", b"(" + b"K\x01" * 20_000 + b"t"), "no state_dict"),
        (b"\x80\x02}" + b"(" * 5 + b".", "no state_dict|ValueError|IndexError"),
        (b"\x80\x02" + b")\x85" * 200_000 + b"}" + b"\x85.", "no state_dict"),
        (b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"Ns.", "no state_dict"),
    ],
)
def test_a_claim_of_more_than_there_is_is_refused_before_memory_is_taken(tmp_path, claim, words):
    archive(tmp_path / "a.pt", claim)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=words):
        read_state(tmp_path / "a.pt")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


def test_a_packed_archive_is_refused_unread(tmp_path):
    archive(tmp_path / "a.pt", view((2, 2), (2, 1)), bytes(50 << 20), compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.pt").stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"archive/data\.pkl is packed"):
        read_state(tmp_path / "a.pt")


def test_a_file_larger_than_any_published_one_is_refused_by_its_size(tmp_path, monkeypatch):
    save(tmp_path / "a.pt", STATE)
    monkeypatch.setattr(state_file, "LARGEST_FILE", 100)
    with pytest.raises(CheckpointError, match="and at most 100 are read"):
        read_state(tmp_path / "a.pt")
