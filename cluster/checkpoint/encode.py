"""Encode an object graph as JSON values and a list of arrays, without pickle.

Numbers, strings, lists, tuples, dicts, sets, deques, numpy arrays and generators are encoded as they are;
objects by their attributes. Each value is null, a bool, a string, a number, or a list `[tag, ...]`:

    ["b", hex]                      bytes
    ["i", text]                     an int beyond 53 bits, or a float that is not finite ("f")
    ["a", n]                        array n
    ["v", n]                        a read-only view of array n
    ["p", n, offset, ...]           a part of array n, whose bytes several arrays share: offset in bytes,
                                    dtype, shape, strides, whether it can be written to
    ["number", dtype, value]        a numpy scalar
    ["dtype", text]                 a numpy dtype
    ["rng", id, state]              a numpy generator
    ["l", id, [...]]                a list; "q" is a deque, "s" a set, "fs" a frozenset
    ["t", [...]]                    a tuple
    ["d", id, [[key, value], ...]]  a dict in its order; "c" is a Counter
    ["o", id, class, {...}]         an object, by its attributes
    ["n", class, [...]]             a NamedTuple
    ["e", class, name]              a member of an Enum
    ["x", input, step, ...]         a part of an input, which is not encoded
    ["r", id]                       the object, list or dict that was encoded under this id
    ["m", object, name]             a method of an object
    ["-", name]                     a function or a class, which no state can be in
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, cached_property
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType
from typing import Any, NamedTuple

import numpy as np

from cluster.arrays.words import Array
from cluster.spec.errors import SimulationError

#: A JSON value.
Json = Any

#: Ints that every reader of JSON keeps.
_SAFE_INT = 1 << 53
SEQUENCES: dict[type, str] = {list: "l", deque: "q", set: "s", frozenset: "fs"}
MAPPINGS: dict[type, str] = {dict: "d", Counter: "c"}
#: Kinds of numbers (numpy.dtype.kind) that arrays have.
KINDS = "biuf"
#: What has no state: functions and classes.
_CODE = (FunctionType, BuiltinFunctionType, MethodType, MethodWrapperType, np.ufunc, type)


class EncodeError(SimulationError, TypeError):
    """Something has a state that no checkpoint can hold."""


class _UnknownError(TypeError):
    """A value that cannot be encoded. The message names its type."""


class Encoded(NamedTuple):
    """An object graph: its root as a JSON value, and the arrays that it refers to by their number."""

    root: Json
    arrays: list[Array]


def encode(root: object, inputs: Mapping[str, object], packages: Collection[str] = ()) -> Encoded:
    """Encode the state of an object and of all that it refers to.

    `inputs` are what the object was made of. A reference to an input, or to one of its parts, is encoded by
    its name and path. Objects are of classes of this package, or of `packages` beside it. Raises EncodeError
    for what has a state that cannot be encoded.
    """
    encoder = _Encoder(inputs, packages)
    try:
        tree = encoder.value(root)
        arrays = encoder.shared_arrays()
    except _UnknownError as error:
        raise EncodeError(f"no checkpoint can hold {error}") from error
    except RecursionError as error:
        raise EncodeError("no checkpoint can hold objects that are nested so deep") from error
    return Encoded(tree, arrays)


def attributes(value: object) -> Iterator[str]:
    """Yield the names of an object's attributes. Leaves out cached properties."""
    seen: dict[str, None] = {}
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        seen |= dict.fromkeys((slots,) if isinstance(slots, str) else slots)
    seen |= dict.fromkeys(getattr(value, "__dict__", ()))
    for name in seen:
        if name.startswith("__") or not hasattr(value, name):
            continue
        if not isinstance(getattr(type(value), name, None), cached_property):
            yield name


def parts_of(inputs: Mapping[str, object]) -> dict[int, tuple[list[str], object]]:
    """Return the parts of inputs that are worth a name: by id, the first path to each and the part itself."""
    parts: dict[int, tuple[list[str], object]] = {}
    waiting: list[tuple[list[str], object]] = [([name], value) for name, value in inputs.items()]
    while waiting:
        path, value = waiting.pop()
        if id(value) in parts or not (len(path) == 1 or _is_part(value)):
            continue
        parts[id(value)] = path, value
        waiting += (([*path, step], part) for step, part in children(value))
    return parts


def children(value: object) -> Iterator[tuple[str, object]]:
    """Yield the parts of a part of an input, each with its step in the path."""
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(i), item) for i, item in enumerate(value))
    elif is_dataclass(value):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))


def class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _is_part(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.size > 0
    if isinstance(value, Mapping | list | tuple):
        return len(value) > 0
    return is_dataclass(value)


def code_name(value: object) -> str:
    """Return the name of a function or a class."""
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"


def is_code(value: object) -> bool:
    """Return whether a value is a function or a class, and so no state."""
    return isinstance(value, _CODE)


def is_ours(module: str, packages: Collection[str]) -> bool:
    """Return whether a module is in this package, or in one of `packages`."""
    package = module.partition(".")[0]
    return package == __name__.partition(".")[0] or package in packages


@cache
def _can_be_made_anew(kind: type) -> bool:
    """Return whether objects of a class have no state but their attributes, as those of C code have."""
    news = [(base, base.__new__) for base in kind.__mro__[:-1]]
    in_c = any(isinstance(new, BuiltinFunctionType) and new.__self__ is base for base, new in news)
    return not in_c or issubclass(kind, tuple | Enum)


class _Encoder:
    def __init__(self, inputs: Mapping[str, object], packages: Collection[str]) -> None:
        self._parts = parts_of(inputs)
        self._packages = packages
        self._arrays: list[Array] = []
        #: The JSON values that refer to arrays.
        self._references: list[list[Any]] = []
        self._array_at: dict[tuple[object, ...], int] = {}
        #: By id: the number of what has been encoded, and a reference that keeps its id from being reused.
        self._seen: dict[int, tuple[int, object]] = {}

    def value(self, value: Any) -> Json:
        """Return the JSON value of any value."""
        if value is None or type(value) in (bool, str):
            return value
        if type(value) in (int, float):
            return _number(value)
        if id(value) in self._parts:
            return ["x", *self._parts[id(value)][0]]
        if id(value) in self._seen:
            return ["r", self._seen[id(value)][0]]
        if type(value) is np.ndarray:
            return self._array(value)
        if isinstance(value, np.generic):
            return self._scalar(value)
        if isinstance(value, Enum):
            return ["e", self._class(type(value)), value.name]
        if isinstance(value, MethodType):
            return ["m", self.value(value.__self__), value.__name__]
        if is_code(value):
            return ["-", code_name(value)]
        return self._composite(value)

    def _composite(self, value: Any) -> Json:
        kind = type(value)
        if isinstance(value, tuple):
            items = [self.value(item) for item in value]
            return ["t", items] if kind is tuple else ["n", self._class(kind), items]
        if kind is bytes:
            return ["b", value.hex()]
        if isinstance(value, np.dtype):
            return ["dtype", value.str]
        number = len(self._seen)
        self._seen[id(value)] = number, value
        if kind is np.random.Generator:
            return ["rng", number, self.value(value.bit_generator.state)]
        if kind in SEQUENCES:
            return [SEQUENCES[kind], number, [self.value(item) for item in value]]
        if kind in MAPPINGS:
            return [MAPPINGS[kind], number, [[self.value(k), self.value(v)] for k, v in value.items()]]
        return ["o", number, self._class(kind), self._state(value)]

    def _state(self, value: object) -> dict[str, Json]:
        state: dict[str, Json] = {}
        for name in attributes(value):
            try:
                state[name] = self.value(getattr(value, name))
            except _UnknownError as error:
                where = f"{class_name(type(value))}, attribute {name}"
                raise EncodeError(f"{where}: no checkpoint can hold {error}") from error
        return state

    def _class(self, kind: type) -> str:
        """Return the name of a class that can be made anew."""
        name = class_name(kind)
        if not (is_ours(kind.__module__, self._packages) and "<" not in name and _can_be_made_anew(kind)):
            raise _UnknownError(f"the state of a {name}")
        return name

    def _scalar(self, value: np.generic) -> Json:
        if value.dtype.kind not in KINDS or isinstance(value.item(), np.generic):
            raise _UnknownError(f"a number of the type {value.dtype}")
        return ["number", value.dtype.str, self.value(value.item())]

    def _array(self, array: Array) -> Json:
        if array.dtype.kind not in KINDS:
            raise _UnknownError(f"arrays of the type {array.dtype}")
        key = (_address(array), array.shape, array.strides, array.dtype.str) if array.size else (id(array),)
        number = self._array_at.get(key)
        if number is None:
            number = self._array_at[key] = len(self._arrays)
            self._arrays.append(array)
        reference = ["a" if array.flags.writeable else "v", number]
        self._references.append(reference)
        return reference

    def shared_arrays(self) -> list[Array]:
        """Return all arrays, and refer to them. Those that share memory are parts of one array of bytes."""
        alone, shared = _groups(self._arrays)
        arrays = [self._arrays[i] for i in alone]
        number_of = {i: number for number, i in enumerate(alone)}
        start_of: dict[int, int] = {}
        for group in shared:
            memory = _Bytes(self._arrays[i] for i in group)
            start_of |= dict.fromkeys(group, memory.start)
            number_of |= dict.fromkeys(group, len(arrays))
            arrays.append(np.array(memory))
        for reference in self._references:
            tag, i = reference
            reference[1] = number_of[i]
            if i in start_of:
                array = self._arrays[i]
                offset = _address(array) - start_of[i]
                layout = [offset, array.dtype.str, [*array.shape], [*array.strides], tag == "a"]
                reference[:] = ["p", number_of[i], *layout]
        return arrays


class _Bytes:
    """The memory of arrays that overlap, as an array of bytes."""

    def __init__(self, arrays: Iterable[Array]) -> None:
        bounds = [np.lib.array_utils.byte_bounds(array) for array in arrays]
        self.start, end = min(low for low, _ in bounds), max(high for _, high in bounds)
        self.__array_interface__ = {
            "version": 3,
            "data": (self.start, True),
            "shape": (end - self.start,),
            "typestr": "|u1",
        }


def _groups(arrays: list[Array]) -> tuple[list[int], list[list[int]]]:
    """Return the arrays that share memory with no other one, and groups of those that do, by index."""
    bounds = [(*np.lib.array_utils.byte_bounds(a), i) for i, a in enumerate(arrays) if a.size]
    groups: list[list[int]] = []
    reached = 0
    for low, high, i in sorted(bounds):
        if low >= reached:
            groups.append([])
        groups[-1].append(i)
        reached = max(reached, high)
    shared = [group for group in groups if len(group) > 1]
    in_groups = {i for group in shared for i in group}
    return [i for i in range(len(arrays)) if i not in in_groups], shared


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _number(value: float) -> Json:
    if isinstance(value, int):
        return value if abs(value) < _SAFE_INT else ["i", str(value)]
    return value if math.isfinite(value) else ["f", repr(value)]
