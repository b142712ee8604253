"""Restore an object graph from its encoded form (`cluster.checkpoint.encode`), in place.

The root has been made anew from the same inputs, so what is no state, such as tables of functions, is there
already. An object that the root refers to stays the same object and gets the encoded attributes. Only
classes of this package, and of those that the caller names, are made anew, without calling them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import numpy as np

from cluster.arrays.words import Array
from cluster.checkpoint.encode import (
    KINDS,
    MAPPINGS,
    SEQUENCES,
    Encoded,
    Json,
    children,
    class_name,
    code_name,
    is_code,
    is_ours,
)
from cluster.spec.errors import SimulationError

_BIT_GENERATORS = ("Philox", "PCG64", "PCG64DXSM", "SFC64", "MT19937")
_PLAIN_TYPES = {code_name(cls): cls for cls in (bool, int, float, str, list, dict, set)}
_SEQUENCE_OF = {tag: cls for cls, tag in SEQUENCES.items()}
_MAPPING_OF = {tag: cls for cls, tag in MAPPINGS.items()}


class DecodeError(SimulationError, ValueError):
    """An encoded state that does not fit the root."""


@contextmanager
def restoring() -> Iterator[None]:
    """Turn whatever is raised while a state is restored into a DecodeError: `encode` did not write the state.

    Errors that are a line for the user already stay as they are, as does a want of memory.
    """
    try:
        yield
    except (MemoryError, SimulationError):
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise DecodeError(f"the state does not fit: {text}") from error


def restore(
    root: object, encoded: Encoded, inputs: Mapping[str, object], packages: Collection[str] = ()
) -> None:
    """Give the root the encoded state. It takes over the arrays; read-only ones are copied.

    `inputs` and `packages` are those that were given to `encode`. Raises DecodeError if the state is not one
    of such a root; the root is of no use then.
    """
    if _decoded(encoded, inputs, packages, root) is not root:
        raise DecodeError("the state is that of another class")


def decode(encoded: Encoded, inputs: Mapping[str, object]) -> Any:
    """Return a value that refers to nothing but its inputs and classes of this package.

    It takes over the arrays. Raises DecodeError for anything else.
    """
    return _decoded(encoded, inputs, (), None)


def _decoded(encoded: Encoded, inputs: Mapping[str, object], packages: Collection[str], old: object) -> Any:
    with restoring():
        return _Decoder(encoded.arrays, inputs, packages).value(encoded.root, old)


class _Decoder:
    def __init__(self, arrays: list[Array], inputs: Mapping[str, object], packages: Collection[str]) -> None:
        # What comes from another process may be read-only.
        self._arrays = [array if array.flags.writeable else array.copy() for array in arrays]
        self._inputs = inputs
        self._packages = packages
        self._made: dict[int, Any] = {}
        self._plain: dict[str, Callable[..., Any]] = {
            "i": int,
            "b": bytes.fromhex,
            "f": float,
            "a": self._arrays.__getitem__,
            "v": self._view,
            "p": self._shared,
            "number": lambda dtype, value: np.dtype(dtype).type(self.value(value)),
            "dtype": np.dtype,
            "t": lambda items: tuple(map(self.value, items)),
            "n": lambda name, items: self._class(name)._make(map(self.value, items)),
            "e": lambda name, member: _member(self._class(name), member),
            "x": self._part,
            "r": self._made.__getitem__,
        }
        self._in_place: dict[str, Callable[..., Any]] = {
            "o": self._object,
            "rng": self._generator,
            "m": self._method,
            "-": self._code,
        }

    def value(self, encoded: Json, old: Any = None) -> Any:
        """Return the value that is encoded; `old` is what is in its place now."""
        if not isinstance(encoded, list):
            return encoded
        tag = encoded[0]
        if tag in _SEQUENCE_OF:
            return self._sequence(_SEQUENCE_OF[tag], *encoded[1:], old=old)
        if tag in _MAPPING_OF:
            return self._mapping(_MAPPING_OF[tag], *encoded[1:], old=old)
        if tag in self._in_place:
            return self._in_place[tag](*encoded[1:], old=old)
        return self._plain[tag](*encoded[1:])

    def _view(self, number: int) -> Array:
        view = self._arrays[number].view()
        view.flags.writeable = False
        return view

    def _shared(
        self, number: int, offset: int, dtype: str, shape: list[int], strides: list[int], writeable: bool
    ) -> Array:
        kind = np.dtype(dtype)
        if kind.kind not in KINDS:
            raise DecodeError(f"no array of a state has the type {dtype}")
        part: Array = np.ndarray(shape, kind, self._arrays[number].data, offset, strides)
        part.flags.writeable = writeable
        return part

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
        self._made[number] = old
        for cached in [key for key in getattr(old, "__dict__", ()) if key not in state]:
            object.__delattr__(old, cached)
        for attribute, item in state.items():
            object.__setattr__(old, attribute, self.value(item, getattr(old, attribute, None)))
        return old

    def _part(self, name: str, *steps: str) -> Any:
        """Return a part of an input."""
        part = self._inputs[name]
        for step in steps:
            part = dict(children(part))[step]
        return part

    def _generator(self, number: int, state: Json, *, old: object) -> np.random.Generator:
        made = self._made[number] = _generator(self.value(state))
        return made

    def _method(self, owner: Json, name: str, *, old: object) -> Any:
        return getattr(self.value(owner, getattr(old, "__self__", None)), name)

    def _code(self, name: str, *, old: object) -> Any:
        """Return the function or class that is there, or the one of this name; a local one has none."""
        if is_code(old) and ("<" in name or code_name(old) == name):
            return old
        return _PLAIN_TYPES.get(name) or self._named(name)

    def _class(self, name: str) -> Any:
        """Return a class of this package, or of one that may be used."""
        found = self._named(name)
        if not isinstance(found, type) or class_name(found) != name:
            raise DecodeError(f"{name} is no class")
        return found

    def _named(self, name: str) -> Any:
        """Return a function or a class by its module and name."""
        module, _, qualname = name.partition(":")
        if not is_ours(module, self._packages):
            raise DecodeError(f"{name} cannot be made anew")
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = vars(found)[part]
        if not is_code(found) or code_name(found) != name:
            raise DecodeError(f"{name} is no function and no class")
        return found


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
