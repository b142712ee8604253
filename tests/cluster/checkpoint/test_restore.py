"""An encoded state is JSON and arrays, and makes the same object graph again, or an error."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from threading import Lock
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from cluster.checkpoint.encode import Encoded, EncodeError, class_name, encode
from cluster.checkpoint.restore import DecodeError, decode, restore
from cluster.machine.fabric import InlineFabric
from cluster.spec.scenario import KsmSpec, MachineSpec, SimulationSpec
from cluster.spec.topology import ring
from cluster.wire.window import Window
from tests.cluster.machine.random_workload import FRAMES, KNOBS, NODES, STEPS, Workload


def through_json(state: Encoded) -> Encoded:
    """Return the state as another process reads it."""
    return Encoded(json.loads(json.dumps(state.root, allow_nan=False)), [a.copy() for a in state.arrays])


class Colour(Enum):
    RED = 1


@dataclass(slots=True)
class Part:
    number: int


@dataclass
class Whole:
    spec: KsmSpec
    parts: dict[int, Part] = field(default_factory=dict)
    first: Part | None = None
    items: list[Any] = field(default_factory=list)
    column: Any = field(default_factory=lambda: np.arange(5))
    view: Any = None
    handlers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.handlers = {"len": self.items.__len__}

    def added(self, item: int) -> list[Any]:
        self.items.append(item)
        return self.items


class Listed(list[int]):
    """A list with attributes: its items are not among them."""


def test_what_an_object_refers_to_comes_back() -> None:
    spec = KsmSpec()
    whole = Whole(spec, {3: Part(4)}, items=[1, 2.5, "text", None, True, -math.inf, 1 << 70, (1, (2,))])
    whole.items += [deque([1, 2]), Counter(a=3), frozenset({1}), {5, 6}, np.int16(-7), np.dtype("<u2")]
    whole.items.append(np.random.Generator(np.random.Philox(7)))
    whole.first = whole.parts[3]
    whole.view = whole.column.view()
    whole.view.flags.writeable = False
    state = through_json(encode(whole, {"spec": spec}, ("tests",)))
    made = Whole(spec, {3: Part(0)}, items=[0])
    part, items = made.parts[3], made.items
    restore(made, state, {"spec": spec}, ("tests",))
    assert made.items[:8] == whole.items[:8]
    assert made.items[8:14] == [deque([1, 2]), Counter(a=3), frozenset({1}), {5, 6}, -7, np.dtype("<u2")]
    assert type(made.items[9]) is Counter
    assert made.items[12].dtype == np.int16
    assert made.items[14].integers(1 << 60) == np.random.Generator(np.random.Philox(7)).integers(1 << 60)
    # Objects that are there stay, and what was one object is one again.
    assert made.first is made.parts[3] is part
    assert part.number == 4
    assert made.spec is spec
    assert made.items is items
    assert made.handlers["len"]() == len(items)
    made.column[2] = 9
    assert made.view[2] == 9
    with pytest.raises(ValueError, match="read-only"):
        made.view[2] = 1


def test_a_value_without_a_root_is_decoded() -> None:
    window = Window(3, low=2)
    assert decode(through_json(encode([window, (window,)], {})), {}) == [window, (window,)]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([iter([])], "builtins:list_iterator"),
        (np.array([None]), "arrays of the type object"),
        (np.array(["text"]), "arrays of the type <U4"),
        (np.datetime64(1, "s"), "a number of the type datetime64"),
        (np.longdouble(1), "a number of the type"),
        (np.ma.array([1]), "MaskedArray"),
        (Random(1), "random:Random"),
        (Lock(), "_thread:lock"),
        (Listed(), "Listed"),
        (functools.reduce(lambda inner, _: [inner], range(5000), []), "nested so deep"),
        (Part(iter([])), "Part, attribute number: no checkpoint can hold"),
    ],
)
def test_what_no_checkpoint_can_hold_is_refused(value: Any, why: str) -> None:
    with pytest.raises(EncodeError, match=why):
        encode(value, {}, ("tests",))


def test_objects_of_other_packages_are_refused() -> None:
    with pytest.raises(EncodeError, match="test_restore:Part"):
        encode([Part(1)], {})
    made = decode_as([Part(1)], ("tests",))
    assert made == [Part(1)]
    with pytest.raises(DecodeError):
        decode_as([Part(1)], ("tests",), ())


def decode_as(value: list[Any], packages: tuple[str, ...], then: tuple[str, ...] | None = None) -> list[Any]:
    """Encode a list as one whose classes are in `packages`, and restore it as one with those of `then`."""
    made: list[Any] = []
    restore(made, through_json(encode(value, {}, packages)), {}, packages if then is None else then)
    return made


def test_arrays_that_share_memory_share_it_again() -> None:
    column = np.arange(12, dtype=np.int32)
    table = column.reshape(3, 4)
    fixed = table[1].view()
    fixed.flags.writeable = False
    alone = np.ones(3)
    made = decode_as([column, table.T, column[::-2], fixed, alone, alone, column[:0]], ())
    column, transposed, backwards, fixed, alone, same, none = made
    assert [a.tolist() for a in (backwards, fixed, none)] == [[11, 9, 7, 5, 3, 1], [4, 5, 6, 7], []]
    column[5] = 99
    assert (transposed[1, 1], backwards[3], fixed[1]) == (99, 99, 99)
    with pytest.raises(ValueError, match="read-only"):
        fixed[1] = 1
    assert alone is same


def test_parts_of_inputs_are_not_encoded() -> None:
    """Their keys may be paths of files."""
    inputs = {"files": {"/a/b": np.arange(3), "/a": (np.arange(4), [])}}
    state = encode([inputs["files"]["/a/b"], inputs["files"]["/a"][0]], inputs)
    assert state.arrays == []
    found = decode(through_json(state), inputs)
    assert found[0] is inputs["files"]["/a/b"]
    assert found[1] is inputs["files"]["/a"][0]


def test_methods_and_functions_come_back() -> None:
    whole = Whole(KsmSpec(), items=[1])
    whole.handlers = {"added": whole.added}
    random = np.random.default_rng(5)
    made = decode_as([whole, whole.added, Part, class_name, int, b"\0\xff", random, random], ("tests",))
    assert made[1](4) == [1, 4]
    assert made[0].handlers["added"](5) == [1, 4, 5]
    assert made[0].items == [1, 4, 5]
    assert made[2:6] == [Part, class_name, int, b"\0\xff"]
    assert made[6] is made[7]
    assert made[6].integers(1 << 60) == random.integers(1 << 60)
    with pytest.raises(DecodeError):
        decode_as([lambda: 0], ("tests",))


@pytest.mark.parametrize(
    "root",
    [
        ["o", 0, "os:system", {}],
        ["o", 0, "tests.cluster.checkpoint.test_restore:Part", {"number": 1}],
        ["o", 0, "cluster.wire.window:END", {}],
        ["o", 0, "cluster.nowhere:Window", {}],
        ["n", "builtins:dict", []],
        ["e", "cluster.wire.window:Window", "low"],
        ["a", 3],
        ["p", 0, 0, "|O", [1], [8], True],
        ["p", 0, 8, "<i8", [1], [8], True],
        ["m", None, "no_such_method"],
        ["-", "os:system"],
        ["-", "cluster.checkpoint.encode:KINDS"],
        ["r", 0],
        ["x", "spec", "nothing"],
        ["rng", {"d": 0}],
        ["no such tag"],
        ["l", 0],
        [],
        [[]],
    ],
)
def test_no_state_makes_anything_but_ours(root: Any) -> None:
    with pytest.raises(DecodeError):
        decode(Encoded(root, [np.zeros(8, np.uint8)]), {"spec": KsmSpec()})


def test_the_state_of_another_class_is_refused() -> None:
    with pytest.raises(DecodeError):
        restore(Part(1), encode(Window(1), {}), {})


@settings(max_examples=40, deadline=None)
@given(KNOBS, STEPS)
def test_nodes_come_back_whatever_has_happened(knobs: KsmSpec, steps: list[tuple[Any, ...]]) -> None:
    workload = Workload(knobs)
    for step in steps:
        workload.run(step)
    workload.machine.settle()
    host = workload.fabric.host
    states = {node: host.state(node) for node in host.nodes}
    spec = SimulationSpec(MachineSpec(NODES, FRAMES, ring(NODES)), knobs, ())
    other = InlineFabric(spec, {}).host
    other.restore((node, through_json(state)) for node, state in states.items())
    for node, state in states.items():
        again = other.state(node)
        assert json.dumps(again.root) == json.dumps(state.root)
        assert all(np.array_equal(a, b) for a, b in zip(again.arrays, state.arrays, strict=True))
        other.nodes[node].state.validate()
