"""Encode an object graph as JSON values and a list of arrays, without pickle.

Numbers, strings, lists, tuples, dicts, sets, deques, numpy arrays and generators are encoded as they are;
objects by their attributes. Each value is null, a bool, a string, a number, or a list `[tag, ...]`:

    ["i", text]                     an int beyond 53 bits, or a float that is not finite ("f")
    ["a", n]                        array n
    ["v", n]                        a read-only view of array n
    ["number", dtype, value]        a numpy scalar
    ["dtype", text]                 a numpy dtype
    ["rng", state]                  a numpy generator
    ["l", id, [...]]                a list; "q" is a deque, "s" a set, "fs" a frozenset
    ["t", [...]]                    a tuple
    ["d", id, [[key, value], ...]]  a dict in its order; "c" is a Counter
    ["o", id, class, {...}]         an object, by its attributes
    ["n", class, [...]]             a NamedTuple
    ["e", class, name]              a member of an Enum
    ["x", path]                     a part of an input, which is not encoded
    ["r", id]                       the object, list or dict that was encoded under this id
    ["-"]                           what no state can be in: functions, classes, dicts of functions
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise
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


class EncodeError(SimulationError, TypeError):
    """A state that cannot be encoded."""


class Encoded(NamedTuple):
    """An object graph: its root as a JSON value, and the arrays that it refers to by their number."""

    root: Json
    arrays: list[Array]


def encode(root: object, inputs: Mapping[str, object]) -> Encoded:
    """Encode the state of an object and of all that it refers to.

    `inputs` are what the object was made of. A reference to an input, or to one of its parts, is encoded by
    its name and path. Raises EncodeError for what has a state that cannot be encoded.
    """
    encoder = _Encoder(inputs)
    tree = encoder.value(root)
    encoder.check_overlaps()
    return Encoded(tree, encoder.arrays)


def attributes(value: object) -> Iterator[str]:
    """Yield the names of an object's attributes, without those that are computed from others and cached."""
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


def parts_of(inputs: Mapping[str, object]) -> dict[int, tuple[str, object]]:
    """Return the parts of inputs that are worth a name: by id, the first path to each and the part itself."""
    parts: dict[int, tuple[str, object]] = {}
    waiting: list[tuple[str, object]] = list(inputs.items())
    while waiting:
        path, value = waiting.pop()
        if id(value) in parts or not (path in inputs or _is_part(value)):
            continue
        parts[id(value)] = path, value
        waiting += ((f"{path}/{step}", part) for step, part in children(value))
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


def is_code(value: object) -> bool:
    """Return whether a value is a function or a class, or a dict of them, and so no state."""
    if isinstance(value, dict):
        return bool(value) and all(callable(item) for item in value.values())
    return callable(value)


class _Encoder:
    def __init__(self, inputs: Mapping[str, object]) -> None:
        self._parts = parts_of(inputs)
        self.arrays: list[Array] = []
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
            return ["x", self._parts[id(value)][0]]
        if id(value) in self._seen:
            return ["r", self._seen[id(value)][0]]
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, np.generic):
            return ["number", value.dtype.str, self.value(value.item())]
        if isinstance(value, Enum):
            return ["e", class_name(type(value)), value.name]
        if is_code(value):
            return ["-"]
        return self._composite(value)

    def _composite(self, value: Any) -> Json:
        kind = type(value)
        if isinstance(value, tuple):
            items = [self.value(item) for item in value]
            return ["t", items] if kind is tuple else ["n", class_name(kind), items]
        if isinstance(value, np.random.Generator):
            return ["rng", self.value(value.bit_generator.state)]
        if isinstance(value, np.dtype):
            return ["dtype", value.str]
        number = len(self._seen)
        self._seen[id(value)] = number, value
        if kind in SEQUENCES:
            return [SEQUENCES[kind], number, [self.value(item) for item in value]]
        if kind in MAPPINGS:
            return [MAPPINGS[kind], number, [[self.value(k), self.value(v)] for k, v in value.items()]]
        if kind.__module__ == "builtins" or not (hasattr(value, "__dict__") or hasattr(kind, "__slots__")):
            raise EncodeError(f"the state of a {class_name(kind)} cannot be encoded")
        state = {name: self.value(getattr(value, name)) for name in attributes(value)}
        return ["o", number, class_name(kind), state]

    def _array(self, array: Array) -> Json:
        if array.dtype.hasobject:
            raise EncodeError("arrays of objects cannot be encoded")
        where = array.__array_interface__["data"][0]
        key = (where, array.shape, array.strides, array.dtype.str) if array.size else (id(array),)
        number = self._array_at.get(key)
        if number is None:
            number = self._array_at[key] = len(self.arrays)
            self.arrays.append(array)
        return ["a" if array.flags.writeable else "v", number]

    def check_overlaps(self) -> None:
        """Raise EncodeError if two arrays share memory: a write to one would no longer show in the other."""
        bounds = sorted(np.lib.array_utils.byte_bounds(array) for array in self.arrays if array.size)
        for (_, end), (start, _) in pairwise(bounds):
            if start < end:
                raise EncodeError("two arrays of a state share memory")


def _number(value: float) -> Json:
    if isinstance(value, int):
        return value if abs(value) < _SAFE_INT else ["i", str(value)]
    return value if math.isfinite(value) else ["f", repr(value)]
