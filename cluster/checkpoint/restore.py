"""Restore an object graph from its encoded form (`cluster.checkpoint.encode`), in place.

The root has been made anew from the same inputs, so what is no state, such as tables of functions, is there
already. An object that the root refers to stays the same object and gets the encoded attributes. Only
classes of this package are made anew, without calling them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from cluster.arrays.words import Array
from cluster.checkpoint.encode import MAPPINGS, SEQUENCES, Encoded, Json, children, class_name

#: Classes outside it are not made anew.
_PACKAGE = "cluster."
_BIT_GENERATORS = ("Philox", "PCG64", "PCG64DXSM", "SFC64", "MT19937")
_SEQUENCE_OF = {tag: cls for cls, tag in SEQUENCES.items()}
_MAPPING_OF = {tag: cls for cls, tag in MAPPINGS.items()}


class DecodeError(ValueError):
    """An encoded state that does not fit the root."""


def restore(root: object, encoded: Encoded, inputs: Mapping[str, object]) -> None:
    """Give the root the encoded state. It takes over the arrays.

    `inputs` are those that were given to `encode`. Raises DecodeError if the state is not one of such a root;
    the root is of no use then.
    """
    decoder = _Decoder(encoded.arrays, inputs)
    try:
        if decoder.value(encoded.root, root) is not root:
            raise DecodeError("the state is that of another class")
    except (AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"the state does not fit: {error}") from error


class _Decoder:
    def __init__(self, arrays: list[Array], inputs: Mapping[str, object]) -> None:
        self._arrays = arrays
        self._inputs = inputs
        self._made: dict[int, Any] = {}

    def value(self, encoded: Json, old: Any = None) -> Any:
        """Return the value that is encoded; `old` is what is in its place now."""
        if not isinstance(encoded, list):
            return encoded
        tag, *rest = encoded
        if tag == "-":
            return old
        if tag == "r":
            return self._made[rest[0]]
        if tag in _SEQUENCE_OF:
            return self._sequence(_SEQUENCE_OF[tag], *rest, old)
        if tag in _MAPPING_OF:
            return self._mapping(_MAPPING_OF[tag], *rest, old)
        if tag == "o":
            return self._object(*rest, old)
        return self._plain(tag, rest)

    def _plain(self, tag: str, rest: list[Any]) -> Any:
        """Return a value that has no identity."""
        if tag == "i":
            return int(rest[0])
        if tag == "f":
            return float(rest[0])
        if tag == "a":
            return self._arrays[rest[0]]
        if tag == "v":
            view = self._arrays[rest[0]].view()
            view.flags.writeable = False
            return view
        if tag == "number":
            return np.dtype(rest[0]).type(self.value(rest[1]))
        if tag == "dtype":
            return np.dtype(rest[0])
        if tag == "rng":
            return _generator(self.value(rest[0]))
        if tag == "t":
            return tuple(self.value(item) for item in rest[0])
        if tag == "n":
            return _class(rest[0])._make(self.value(item) for item in rest[1])  # type: ignore[attr-defined]
        if tag == "e":
            return _member(_class(rest[0]), rest[1])
        if tag == "x":
            return self._part(rest[0])
        raise DecodeError(f"no tag {tag!r}")

    def _sequence(self, cls: type, number: int, items: list[Json], old: Any) -> Any:
        there = list(old) if type(old) is cls and cls is list else []
        there += [None] * (len(items) - len(there))
        if cls is frozenset:
            made: Any = frozenset(self.value(item) for item in items)
            self._made[number] = made
            return made
        made = self._made[number] = old if type(old) is cls else cls()
        found = [self.value(item, was) for item, was in zip(items, there, strict=False)]
        made.clear()
        (made.update if cls is set else made.extend)(found)
        return made

    def _mapping(self, cls: type, number: int, items: list[list[Json]], old: Any) -> Any:
        made = self._made[number] = old if type(old) is cls else cls()
        there = dict(made)
        keys = [self.value(key) for key, _ in items]
        found = [
            (key, self.value(item, there.get(key))) for key, (_, item) in zip(keys, items, strict=True)
        ]
        made.clear()
        for key, item in found:  # Counter.update would count
            made[key] = item
        return made

    def _object(self, number: int, name: str, state: dict[str, Json], old: Any) -> Any:
        if old is None or class_name(type(old)) != name:
            cls = _class(name)
            old = cls.__new__(cls)
        self._made[number] = old
        for cached in [key for key in getattr(old, "__dict__", ()) if key not in state]:
            object.__delattr__(old, cached)
        for attribute, item in state.items():
            object.__setattr__(old, attribute, self.value(item, getattr(old, attribute, None)))
        return old

    def _part(self, path: str) -> Any:
        """Return a part of an input."""
        name, *steps = path.split("/")
        part = self._inputs[name]
        for step in steps:
            part = dict(children(part))[step]
        return part


def _class(name: str) -> type:
    """Return a class of this package."""
    module, _, qualname = name.partition(":")
    if not module.startswith(_PACKAGE):
        raise DecodeError(f"objects of the class {name} cannot be made anew")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = vars(found)[part]
    if not isinstance(found, type) or class_name(found) != name:
        raise DecodeError(f"{name} is no class")
    return found


def _member(cls: type, name: str) -> Enum:
    if not issubclass(cls, Enum):
        raise DecodeError(f"{class_name(cls)} is no enumeration")
    return cls[name]


def _generator(state: dict[str, Any]) -> np.random.Generator:
    if state["bit_generator"] not in _BIT_GENERATORS:
        raise DecodeError(f"no generator {state['bit_generator']!r}")
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)
