"""Restore an object graph from its encoded form (`cluster.checkpoint.encode`), in place.

The root has been made anew from the same inputs, so what is no state, such as tables of functions, is there
already. An object that the root refers to stays the same object and gets the encoded attributes. Other
objects are made anew, without calling their classes: those of this package, and of the modules of objects
that were there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np

from cluster.arrays.words import Array
from cluster.checkpoint.encode import MAPPINGS, SEQUENCES, Encoded, Json, children, class_name
from cluster.spec.errors import SimulationError

#: Its classes may be made anew.
_PACKAGE = "cluster."
_BIT_GENERATORS = ("Philox", "PCG64", "PCG64DXSM", "SFC64", "MT19937")
_SEQUENCE_OF = {tag: cls for cls, tag in SEQUENCES.items()}
_MAPPING_OF = {tag: cls for cls, tag in MAPPINGS.items()}


class DecodeError(SimulationError, ValueError):
    """An encoded state that does not fit the root."""


def restore(root: object, encoded: Encoded, inputs: Mapping[str, object]) -> None:
    """Give the root the encoded state. It takes over the arrays; read-only ones are copied.

    `inputs` are those that were given to `encode`. Raises DecodeError if the state is not one of such a root;
    the root is of no use then.
    """
    if _decoded(encoded, inputs, root) is not root:
        raise DecodeError("the state is that of another class")


def decode(encoded: Encoded, inputs: Mapping[str, object]) -> Any:
    """Return a value that refers to nothing but its inputs and classes of this package.

    It takes over the arrays. Raises DecodeError for anything else.
    """
    return _decoded(encoded, inputs, None)


def _decoded(encoded: Encoded, inputs: Mapping[str, object], old: object) -> Any:
    try:
        return _Decoder(encoded.arrays, inputs).value(encoded.root, old)
    except (AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"the state does not fit: {error}") from error


class _Decoder:
    def __init__(self, arrays: list[Array], inputs: Mapping[str, object]) -> None:
        # What comes from another process may be read-only.
        self._arrays = [array if array.flags.writeable else array.copy() for array in arrays]
        self._inputs = inputs
        self._made: dict[int, Any] = {}
        #: Modules of objects that are there: a scenario names classes of users' packages.
        self._modules: set[str] = set()
        self._plain: dict[str, Callable[..., Any]] = {
            "i": int,
            "f": float,
            "a": self._arrays.__getitem__,
            "v": self._view,
            "number": lambda dtype, value: np.dtype(dtype).type(self.value(value)),
            "dtype": np.dtype,
            "rng": lambda state: _generator(self.value(state)),
            "t": lambda items: tuple(map(self.value, items)),
            "n": lambda name, items: self._class(name)._make(map(self.value, items)),
            "e": lambda name, member: _member(self._class(name), member),
            "x": self._part,
            "r": self._made.__getitem__,
        }

    def value(self, encoded: Json, old: Any = None) -> Any:
        """Return the value that is encoded; `old` is what is in its place now."""
        if not isinstance(encoded, list):
            return encoded
        tag = encoded[0]
        if tag == "-":
            return old
        if tag in _SEQUENCE_OF:
            return self._sequence(_SEQUENCE_OF[tag], *encoded[1:], old=old)
        if tag in _MAPPING_OF:
            return self._mapping(_MAPPING_OF[tag], *encoded[1:], old=old)
        if tag == "o":
            return self._object(*encoded[1:], old=old)
        return self._plain[tag](*encoded[1:])

    def _view(self, number: int) -> Array:
        view = self._arrays[number].view()
        view.flags.writeable = False
        return view

    def _sequence(self, cls: Any, number: int, items: list[Json], *, old: Any) -> Any:
        if cls is frozenset:
            self._made[number] = made = frozenset(map(self.value, items))
            return made
        made = self._made[number] = old if type(old) is cls else cls()
        there = [*made, *[None] * len(items)] if cls is list else [None] * len(items)
        found = [self.value(item, was) for item, was in zip(items, there, strict=False)]
        made.clear()
        (made.update if cls is set else made.extend)(found)
        return made

    def _mapping(self, cls: Any, number: int, items: list[list[Json]], *, old: Any) -> Any:
        made = self._made[number] = old if type(old) is cls else cls()
        keys = [self.value(key) for key, _ in items]
        found = [self.value(item, made.get(key)) for key, (_, item) in zip(keys, items, strict=True)]
        made.clear()
        for key, item in zip(keys, found, strict=True):  # Counter.update would count
            made[key] = item
        return made

    def _object(self, number: int, name: str, state: dict[str, Json], *, old: Any) -> Any:
        if old is None or class_name(type(old)) != name:
            cls = self._class(name)
            old = cls.__new__(cls)
        else:
            self._modules.add(type(old).__module__)
        self._made[number] = old
        for cached in [key for key in getattr(old, "__dict__", ()) if key not in state]:
            object.__delattr__(old, cached)
        for attribute, item in state.items():
            object.__setattr__(old, attribute, self.value(item, getattr(old, attribute, None)))
        return old

    def _class(self, name: str) -> Any:
        """Return a class of this package, or of a module of objects that are there."""
        module, _, qualname = name.partition(":")
        if not module.startswith(_PACKAGE) and module not in self._modules:
            raise DecodeError(f"objects of the class {name} cannot be made anew")
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = vars(found)[part]
        if not isinstance(found, type) or class_name(found) != name:
            raise DecodeError(f"{name} is no class")
        return found

    def _part(self, path: str) -> Any:
        """Return a part of an input."""
        name, *steps = path.split("/")
        part = self._inputs[name]
        for step in steps:
            part = dict(children(part))[step]
        return part


def _member(cls: Any, name: str) -> Enum:
    if not issubclass(cls, Enum):
        raise DecodeError(f"{class_name(cls)} is no enumeration")
    member: Enum = cls[name]
    return member


def _generator(state: dict[str, Any]) -> np.random.Generator:
    if state["bit_generator"] not in _BIT_GENERATORS:
        raise DecodeError(f"no generator {state['bit_generator']!r}")
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)
