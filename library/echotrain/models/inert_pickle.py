"""Pickles read as data: a stack machine that knows no function, so that nothing of a stranger's can run.

A pickle is a program for a machine with a stack: it may name any function and have it called. Here tensors and their storages,
dictionaries, lists and plain values are what they say; whatever else the pickle would make (hyper-parameters, paths, callbacks, a
``__reduce__`` that runs a command) becomes an inert mark, and nothing is imported. Every step takes memory in proportion to the bytes
that ask for it, and none copies what was made before, so that no pickle grows beyond a multiple of its own size.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

__all__ = ["InertMachine", "Storage", "View"]

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


@dataclass(frozen=True)
class _Global:
    """A class or a function that the file names. It is never looked up."""

    name: str


class _Inert:
    """What such a class or function would have made."""


class Storage(NamedTuple):
    """The memory of tensors, as the pickle speaks of it."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes of the memory."""
        return self.numel * self.dtype.itemsize


class View(NamedTuple):
    """A tensor: part of a storage."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class InertMachine:
    """The stack machine of pickle, without the power to import or to call anything.

    Attributes:
        storages: Every storage that the pickles named, by its key.
    """

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        # Of all pickles of a file.
        self.storages: dict[str, Storage] = {}

    def run(self, data: io.BytesIO) -> Any:
        """Return what the pickle at the data's position describes; the position is behind it then.

        Raises:
            ValueError, IndexError, KeyError, TypeError: It is damaged, or uses what no state_dict does.
        """
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

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._above_mark()

    def _duplicate(self, _: Any) -> None:
        self._push(self._stack[-1])

    def _put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _get(self, index: Any) -> None:
        self._push(self._memo[index])

    def _tuple_of(self, count: int) -> None:
        items = tuple(self._stack[len(self._stack) - count :])
        if len(items) < count:
            raise IndexError("the stack is too short")
        del self._stack[len(self._stack) - count :]
        self._push(items)

    def _marked_tuple(self, _: Any) -> None:
        self._push(tuple(self._above_mark()))

    def _marked_list(self, _: Any) -> None:
        self._push(self._above_mark())

    def _marked_dict(self, _: Any) -> None:
        items = self._above_mark()
        self._push({})
        self._set_items(items)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._above_mark())

    def _set_item(self, _: Any) -> None:
        value = self._stack.pop()
        self._set_items([self._stack.pop(), value])

    def _set_marked_items(self, _: Any) -> None:
        self._set_items(self._above_mark())

    def _global_(self, name: Any) -> None:
        self._push(_Global(str(name)))

    def _stack_global(self, _: Any) -> None:
        name = self._stack.pop()
        self._push(_Global(f"{self._stack.pop()} {name}"))

    def _reduce(self, _: Any) -> None:
        arguments = self._stack.pop()
        self._push(_made(self._stack.pop(), arguments))

    def _new_object(self, _: Any) -> None:
        arguments = self._stack.pop()
        self._push(_made(self._stack.pop(), arguments))

    def _new_object_ex(self, _: Any) -> None:
        del self._stack[-3:]
        self._push(_Inert())

    def _marked_object(self, _: Any) -> None:
        self._above_mark()
        self._push(_Inert())

    def _build(self, _: Any) -> None:
        # Attributes of an object, such as the versions of a state_dict's modules: nobody asks for them.
        self._stack.pop()

    def _persistent(self, _: Any) -> None:
        kind, storage_type, key, _, numel, *view = self._stack.pop()
        name = storage_type.name.rpartition(" ")[2] if isinstance(storage_type, _Global) else ""
        if kind != "storage" or not isinstance(key, str) or type(numel) is not int or numel < 0 or any(part is not None for part in view):
            raise ValueError("a storage is described as PyTorch does not describe one")
        if name not in _DTYPES:
            raise ValueError(f"a storage is of {name or storage_type!r}")
        storage = Storage(key, _DTYPES[name], numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r} is of two sizes or types")
        self._push(storage)

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
    "BYTEARRAY8",
}  # fmt: skip
_STEPS: dict[str, Callable[[InertMachine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    "MARK": InertMachine._mark,
    "POP": InertMachine._pop,
    "POP_MARK": InertMachine._pop_mark,
    "DUP": InertMachine._duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), InertMachine._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), InertMachine._get),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    # A set is no part of a state_dict; as a list it needs no hashes.
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine._push([])),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    **dict.fromkeys(("TUPLE", "FROZENSET"), InertMachine._marked_tuple),
    "LIST": InertMachine._marked_list,
    "DICT": InertMachine._marked_dict,
    "APPEND": InertMachine._append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), InertMachine._appends),
    "SETITEM": InertMachine._set_item,
    "SETITEMS": InertMachine._set_marked_items,
    "GLOBAL": InertMachine._global_,
    "STACK_GLOBAL": InertMachine._stack_global,
    "REDUCE": InertMachine._reduce,
    "NEWOBJ": InertMachine._new_object,
    "NEWOBJ_EX": InertMachine._new_object_ex,
    **dict.fromkeys(("OBJ", "INST"), InertMachine._marked_object),
    "BUILD": InertMachine._build,
    "BINPERSID": InertMachine._persistent,
    # Classes by a number that only the writer's registry knows, and memory that was kept elsewhere: neither is a tensor's.
    **dict.fromkeys(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"), lambda machine, _: machine._push(_Inert())),
    "READONLY_BUFFER": lambda machine, _: None,
}


def _made(function: Any, arguments: Any) -> Any:
    """Return what one of the few functions that a state_dict is made with gives; anything else is inert."""
    name = function.name if isinstance(function, _Global) else ""
    if not isinstance(arguments, tuple):
        return _Inert()
    if name == "collections OrderedDict" and not arguments:
        return {}
    if name in ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"):
        return View(*arguments[:4])
    if name in ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state"):
        return arguments[0]
    if name == "torch Size":
        return arguments[0]
    return _Inert()
