"""State dicts out of files of ``torch.save`` that a stranger wrote, without running anything that is in them.

A pickle is a program for a machine with a stack: it may name any function and have it called. Here it is read as data by a machine
that knows no function. Tensors and their storages, dictionaries, lists and plain values are what they say; whatever else the file
would make (hyper-parameters, paths, callbacks, a ``__reduce__`` that runs a command) becomes an inert mark, and nothing is imported.
This is stricter than ``torch.load(weights_only=True)``, which refuses a Lightning checkpoint for its ``argparse.Namespace`` and calls the
functions that it knows, and it reads what that refuses.

Sizes are what the file has, not what it claims: a storage is as long as its entry, an entry is not compressed, a view lies in its
storage, and all tensors together are no larger than the file. So what is taken of memory is bounded by the file's size.

Both layouts of PyTorch are read: the zip (1.6 and later), and the older one of pickles followed by storages.
"""

import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from echotrain.errors import CheckpointError
from echotrain.storage.bounded_file import BoundedFile

__all__ = ["LARGEST_FILE", "read_state"]

# The published E2E-VarNets have 120 MB, with the optimiser of a Lightning checkpoint three times that.
LARGEST_FILE = 4 << 30
# A pickle names tensors, it does not hold them: a few hundred kilobytes.
_LARGEST_PICKLE = 64 << 20
_LARGEST_DIRECTORY = 64 << 20
_MOST_AXES = 8
_ZIP = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LONGEST_MAGIC = 64
_CHUNK = 1 << 20
_ENCRYPTED = 1
_REMEDY = "Give a state_dict or a checkpoint that torch.save wrote; one that is whole, from where it was published."

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the ``state_dict`` of a file: the entry of that name, else the dictionary that the file holds.

    Args:
        path: A file of ``torch.save`` on this machine.

    Returns:
        Tensors on the CPU, in the file's order.

    Raises:
        CheckpointError: The file is missing, damaged, too large, holds no state_dict, or claims more than it has.
    """
    where = str(path)
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise CheckpointError(where, "does not exist" if isinstance(error, FileNotFoundError) else str(error), _REMEDY) from error
    if size > LARGEST_FILE:
        raise CheckpointError(where, f"has {size} bytes, and at most {LARGEST_FILE} are read", "Save its state_dict alone and give that.")
    try:
        with Path(path).open("rb") as file:
            begin = file.read(len(_ZIP))
        return (_read_zip if begin == _ZIP else _read_legacy)(Path(path), size)
    except _MALFORMED as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise CheckpointError(where, f"cannot be read as tensors and plain values ({type(error).__name__}: {said})", _REMEDY) from error


_MALFORMED = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RuntimeError, struct.error,
    zipfile.BadZipFile, pickle.UnpicklingError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class _Global:
    """A class or a function that the file names. It is never looked up."""

    name: str


class _Inert:
    """What such a class or function would have made."""


class _Storage(NamedTuple):
    """The memory of tensors, as the pickle speaks of it."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class _View(NamedTuple):
    """A tensor: part of a storage."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _Machine:
    """The stack machine of pickle, without the power to import or to call anything."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        # Of all pickles of a file.
        self.storages: dict[str, _Storage] = {}

    def run(self, data: io.BytesIO) -> Any:
        """Return what the pickle at the data's position describes; the position is behind it then."""
        self._stack, self._marks, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in _CONSTANTS:
                self._stack.append(argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            else:
                raise ValueError(f"a state_dict has no use for {name}")
        return self._stack.pop()

    def _above_mark(self) -> list[Any]:
        start = self._marks.pop()
        above = self._stack[start:]
        del self._stack[start:]
        return above

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def pop(self, _: Any) -> None:
        self._stack.pop()

    def pop_mark(self, _: Any) -> None:
        self._above_mark()

    def duplicate(self, _: Any) -> None:
        self.push(self._stack[-1])

    def put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: Any) -> None:
        self.push(self._memo[index])

    def tuple_of(self, count: int) -> None:
        items = tuple(self._stack[len(self._stack) - count :])
        if len(items) < count:
            raise IndexError("the stack is too short")
        del self._stack[len(self._stack) - count :]
        self.push(items)

    def marked_tuple(self, _: Any) -> None:
        self.push(tuple(self._above_mark()))

    def marked_list(self, _: Any) -> None:
        self.push(self._above_mark())

    def marked_dict(self, _: Any) -> None:
        items = self._above_mark()
        self.push({})
        self._set_items(items)

    def append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._above_mark())

    def set_item(self, _: Any) -> None:
        value = self._stack.pop()
        self._set_items([self._stack.pop(), value])

    def set_items(self, _: Any) -> None:
        self._set_items(self._above_mark())

    def global_(self, name: Any) -> None:
        self.push(_Global(str(name)))

    def stack_global(self, _: Any) -> None:
        name = self._stack.pop()
        self.push(_Global(f"{self._stack.pop()} {name}"))

    def reduce(self, _: Any) -> None:
        arguments = self._stack.pop()
        self.push(_made(self._stack.pop(), arguments))

    def new_object(self, _: Any) -> None:
        arguments = self._stack.pop()
        self.push(_made(self._stack.pop(), arguments))

    def new_object_ex(self, _: Any) -> None:
        del self._stack[-3:]
        self.push(_Inert())

    def marked_object(self, _: Any) -> None:
        self._above_mark()
        self.push(_Inert())

    def build(self, _: Any) -> None:
        # Attributes of an object, such as the versions of a state_dict's modules: nobody asks for them.
        self._stack.pop()

    def persistent(self, _: Any) -> None:
        kind, storage_type, key, _, numel, *view = self._stack.pop()
        name = storage_type.name.rpartition(" ")[2] if isinstance(storage_type, _Global) else ""
        if kind != "storage" or not isinstance(key, str) or type(numel) is not int or numel < 0 or any(part is not None for part in view):
            raise ValueError("a storage is described as PyTorch does not describe one")
        if name not in _DTYPES:
            raise ValueError(f"a storage is of {name or storage_type!r}")
        storage = _Storage(key, _DTYPES[name], numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r} is of two sizes or types")
        self.push(storage)

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            # Other keys are no names of tensors; hashing what a stranger has nested deeply would end the process.
            target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str | int))


_CONSTANTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    # A set is no part of a state_dict; as a list it needs no hashes.
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.push([])),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("TUPLE", "FROZENSET"), _Machine.marked_tuple),
    "LIST": _Machine.marked_list,
    "DICT": _Machine.marked_dict,
    "APPEND": _Machine.append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine.appends),
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_ex,
    **dict.fromkeys(("OBJ", "INST"), _Machine.marked_object),
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}


def _made(function: Any, arguments: Any) -> Any:
    """Return what one of the few functions that a state_dict is made with gives; anything else is inert."""
    name = function.name if isinstance(function, _Global) else ""
    if not isinstance(arguments, tuple):
        return _Inert()
    if name == "collections OrderedDict":
        pairs = arguments[0] if arguments else ()
        return {key: value for key, value in pairs if isinstance(key, str | int)}
    if name in ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"):
        return _View(*arguments[:4])
    if name in ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state"):
        return arguments[0]
    if name == "torch Size":
        return tuple(arguments[0])
    return _Inert()


def _read_zip(path: Path, size: int) -> dict[str, Tensor]:
    with BoundedFile(path, _LARGEST_DIRECTORY, _too_long) as file, zipfile.ZipFile(file) as archive:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            if entry.filename in entries:
                raise ValueError(f"{entry.filename} is there twice")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED or entry.file_size > size:
                raise ValueError(f"{entry.filename} is packed, and torch.save packs nothing")
            entries[entry.filename] = entry
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"it holds {len(pickles)} objects of torch.save")
        folder = pickles[0].partition("/")[0]
        order = entries.get(f"{folder}/byteorder")
        if order is not None and _content(archive, order) != b"little":
            raise ValueError("its bytes are in the order of another machine")
        if entries[pickles[0]].file_size > _LARGEST_PICKLE:
            raise ValueError(f"its pickle has {entries[pickles[0]].file_size} bytes, at most {_LARGEST_PICKLE} are read")
        state = _state_of(_Machine().run(io.BytesIO(_content(archive, entries[pickles[0]]))))

        def load(storage: _Storage) -> bytearray:
            entry = entries[f"{folder}/data/{storage.key}"]
            if entry.file_size != storage.nbytes:
                raise ValueError(f"storage {storage.key} has {entry.file_size} bytes where {storage.nbytes} are claimed")
            return _content(archive, entry)

        return _tensors(state, load, size)


def _too_long(wanted: int) -> ValueError:
    return ValueError(f"its table of contents has {wanted} bytes, at most {_LARGEST_DIRECTORY} are read")


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytearray:
    """Return an entry's bytes, held against its checksum."""
    data = bytearray()
    with archive.open(entry) as file:
        while piece := file.read(_CHUNK):
            data += piece
    return data


def _read_legacy(path: Path, size: int) -> dict[str, Tensor]:
    if not size:
        raise EOFError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not _is_legacy(content[:_LONGEST_MAGIC]):
            raise ValueError("it is neither a zip nor begins as older files of torch.save do")
        data = io.BytesIO(content[:_LARGEST_PICKLE])
        machine = _Machine()
        # The magic number, the version, the machine's sizes, the object, and the order of its storages.
        _, _, _, loaded, keys = (machine.run(data) for _ in range(5))
        state = _state_of(loaded)
        places: dict[str, int] = {}
        at = data.tell()
        for key in keys:
            storage = machine.storages[key]
            (numel,) = struct.unpack("<q", content[at : at + 8])
            if numel != storage.numel or at + 8 + storage.nbytes > size:
                raise ValueError(f"storage {key} has {numel} elements where {storage.numel} are claimed, or is cut off")
            places[key], at = at + 8, at + 8 + storage.nbytes

        return _tensors(state, lambda storage: bytearray(content[places[storage.key] : places[storage.key] + storage.nbytes]), size)


def _is_legacy(begin: bytes) -> bool:
    """Whether a file begins with a pickle of PyTorch's magic number, in whatever protocol."""
    try:
        return bool(_Machine().run(io.BytesIO(begin)) == _LEGACY_MAGIC)
    except _MALFORMED:
        return False


def _state_of(loaded: Any) -> dict[str, _View]:
    """Return the names and the views of a state_dict, nothing read yet."""
    found = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(found, dict) or not found:
        raise ValueError("it holds no state_dict")
    strange = [name for name, value in found.items() if not isinstance(name, str) or not isinstance(value, _View)]
    if strange:
        raise ValueError(f"it holds no state_dict: {str(strange[0])[:80]!r} is no tensor")
    return found


def _tensors(state: Mapping[str, _View], load: Callable[[_Storage], bytearray], size: int) -> dict[str, Tensor]:
    """Return the tensors, once all their sizes are known to be in order."""
    total = 0
    for name, view in state.items():
        total += _checked_nbytes(name, view)
    if total > size:
        raise ValueError(f"its tensors would take {total} bytes, and the file has {size}")
    memory: dict[str, Tensor] = {}
    for view in state.values():
        storage = view.storage
        if storage.key not in memory:
            data = load(storage)
            memory[storage.key] = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
    return {name: memory[v.storage.key].as_strided(v.size, v.stride, v.offset).contiguous() for name, v in state.items()}


def _checked_nbytes(name: str, view: _View) -> int:
    """Return the bytes of a tensor that lies in its storage without one element twice, or raise ValueError."""
    storage, offset, shape, stride = view
    are_sizes = all(isinstance(part, tuple) and all(type(n) is int and n >= 0 for n in part) for part in (shape, stride))
    if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0 or not are_sizes:
        raise ValueError(f"{name} is no tensor of a storage")
    if len(shape) != len(stride) or len(shape) > _MOST_AXES:
        raise ValueError(f"{name} has {len(shape)} axes and {len(stride)} strides")
    numel = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if numel else -1
    if last >= storage.numel or offset > storage.numel or numel > storage.numel:
        raise ValueError(f"{name} of shape {shape} does not lie in its storage of {storage.numel} elements")
    return numel * storage.dtype.itemsize
