"""Pinned pages on both engines: they never merge, and what meets them in the unstable tree breaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings

from cluster.script.engine import Engine
from cluster.script.record import compare
from cluster.script.runner import ScriptTopology
from tests.cluster.machine.engines import difference, exact, play, vector
from tests.cluster.machine.scripts import ACTIONS, Script, scripts

#: Few other operations, so that many pages are pinned and scanned.
PINNING = (
    *["pin"] * 8,
    *["scan"] * 6,
    *["batch"] * 4,
    *["fill"] * 8,
    "fork",
    "move",
    "dontneed",
    "unmergeable",
)
WITH_PINS = scripts((*ACTIONS, *["pin"] * 4)) | scripts(
    (*PINNING, "mergeable", "read", "knob", "unmerge_all")
)


@settings(max_examples=150, deadline=None)
@given(WITH_PINS)
def test_with_the_shapes_of_trees(script: Script) -> None:
    assert difference(script) is None


@settings(max_examples=150, deadline=None)
@given(WITH_PINS)
def test_without(script: Script) -> None:
    assert difference(script, tree_shape=False) is None


#: Counters after each pass, worked out by hand from what write_protect_page() refuses.
CASES = {
    "the first of three equal pages waits, and the others break each time they meet it": (
        "fill A x 0 3 const 1\npin A x 0 1",
        [(0, 0, 0, 3, 0), (0, 0, 1, 2, 2), (0, 0, 1, 2, 4)],
    ),
    "the second fails, and the third merges with the first": (
        "fill A x 0 3 const 1\npin A x 1 1",
        [(0, 0, 0, 3, 0), (1, 1, 0, 1, 0), (1, 1, 0, 1, 0)],
    ),
    "the last fails at the stable node": (
        "fill A x 0 3 const 1\npin A x 2 1",
        [(0, 0, 0, 3, 0), (1, 1, 0, 1, 0), (1, 1, 0, 1, 0)],
    ),
    "pinned pages alone: one waits": (
        "fill A x 0 3 const 1\npin A x 0 3",
        [(0, 0, 0, 3, 0), (0, 0, 1, 2, 0), (0, 0, 1, 2, 0)],
    ),
    "unique ones wait": (
        "fill A x 0 3 seq 1\npin A x 0 3",
        [(0, 0, 0, 3, 0), (0, 0, 3, 0, 0), (0, 0, 3, 0, 0)],
    ),
    "no zero page takes their place": (
        "set use_zero_pages 1\nfill A x 0 3 zero\npin A x 1 2",
        [(0, 0, 0, 3, 0), (0, 0, 1, 2, 0), (0, 0, 1, 1, 0)],
    ),
}
NAMES = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "cow_ksm")


@pytest.mark.parametrize(("start", "passes"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("engine", [exact, vector])
def test_counters(
    engine: Callable[[str, ScriptTopology], Engine], start: str, passes: list[tuple[int, ...]]
) -> None:
    topology = ScriptTopology(1)
    text = f"proc A\nmap A x 3\nmergeable A x\n{start}\nscan {len(passes)}"
    records = play(text, engine("6.18", topology), topology)["records"]
    counts = [record["sysfs"] | record["vmstat"] for record in records]
    assert [tuple(of[name] for name in NAMES) for of in counts] == passes


#: One page of a huge page is pinned, or all of them are; what they meet is scanned before and after them.
PINNED_HUGE_PAGES = {
    "one page, met in the unstable tree": """\
proc A
hugemap A h 512
map A s 20
fill A h 0 512 seq 1000
fill A h 10 4 const 7
fill A s 0 6 const 7
fill A s 6 2 seq 1100
mergeable A h
mergeable A s
pin A h 100 1
scan 4
""",
    "one page, which meets others": """\
proc A
map A s 20
hugemap A h 512
fill A h 0 512 seq 1000
fill A h 10 2 const 7
fill A s 0 1 const 7
fill A s 6 2 seq 1300
mergeable A s
mergeable A h
pin A h 11 1
scan 4
""",
    "all pages, zeros and a fork": """\
proc A
hugemap A h 1024
map A s 20
fill A h 0 1024 seq 1000
fill A h 10 4 const 7
fill A h 600 4 const 7
fill A h 20 3 zero
fill A h 700 3 zero
fill A s 0 2 const 7
fill A s 6 2 zero
mergeable A h
mergeable A s
pin A h 0 512
scan 4
set use_zero_pages 1
scan 3
fork A B
scan 3
dontneed A h 0 512
scan 3
""",
    "all pages, then a part of them is given back": """\
proc A
map A s 20
hugemap A h 512
fill A h 0 512 seq 1000
fill A s 0 4 const 7
mergeable A s
mergeable A h
scan 3
fill A h 10 3 const 7
pin A h 0 512
scan 3
dontneed A h 100 412
scan 2
dontneed A h 0 100
scan 2
""",
}


@pytest.mark.parametrize("text", PINNED_HUGE_PAGES.values(), ids=PINNED_HUGE_PAGES.keys())
def test_a_pinned_page_keeps_its_huge_page_whole(text: str) -> None:
    """The vectorised machine alone does not count tries to split it."""
    topology = ScriptTopology(1)
    played = [play(text, make("6.18", topology), topology) for make in (exact, vector)]
    assert played[1] != played[0]
    for document in played:
        for record in document["records"]:
            record["vmstat"].pop("thp_split_page_failed")
    assert compare(played[1], played[0]) is None
