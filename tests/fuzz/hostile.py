"""Strategies: values that hurt, and documents with a few of them in place of what belongs there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

FUZZ = settings.get_profile("fuzz")
ESCAPE = "\x1b[31m\x9b\u202e\u2028"

values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1e-300, 1e300, 5e-324]
    ),
    st.sampled_from([float("nan"), float("inf"), -0.0, [], {}, [[]]]),
    st.sampled_from(["", ESCAPE, "n" * 300, "../" * 50, "\0"]),
    st.floats(),
    st.text(max_size=20),
    st.just({"a": {"a": {}}}),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in a document, but of itself."""
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for step, value in items:
        yield (*path, step)
        yield from places(value, (*path, step))


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> Any:
    """A document of which one to three values are others, are gone, or are there twice."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(list(places(document)) or [("x",)]))
        here = document
        for step in way:
            here = here[step]
        match draw(st.sampled_from(["other", "other", "other", "gone", "twice"])):
            case "gone":
                del here[last]
            case "twice" if isinstance(here, list):
                here.append(copy.deepcopy(here[last]))
            case _:
                here[last] = copy.deepcopy(draw(values))
        if not list(places(document)):
            break
    return document


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which some are others, or are missing."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(changed) - 1))
        part = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8)]))
        changed[at : at + len(part)] = part
    if draw(st.booleans()):
        del changed[draw(st.integers(1, len(changed))) :]
    return bytes(changed)


@contextmanager
def refused(*errors: type[Exception]) -> Iterator[None]:
    """Expect nothing but a line of bearable length, in one of these errors, or no error."""
    try:
        yield
    except errors as error:
        for line in str(error).split("\n"):
            assert line.strip()
