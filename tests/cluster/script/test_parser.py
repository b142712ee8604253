"""The script parser: every operation, and every mistake with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.script.operations import (
    Batch,
    Drain,
    Exit,
    Fill,
    Fork,
    Map,
    MergeAny,
    Move,
    OnRange,
    Proc,
    Record,
    Require,
    Scan,
    SetKnob,
    UnmergeAll,
)
from cluster.script.parser import ScenarioError, parse
from cluster.spec.content import Pattern

SCRIPT = """\
# every operation once
require nodes 4
require swap
require knob smart_scan
set max_page_sharing 4
drain off
proc A   # a comment
map A x 0x10 node 3

fill A x 0 16 rand0 7 20 step 2 if 9 5
read A x
mergeable A x 4
unmergeable A x 4 2
move A x 0 1 2
fork A B
exit B
merge_any A
unmerge_all
scan
scan 3
batch 0
record here
"""


def test_every_operation() -> None:
    scenario = parse(SCRIPT)
    pattern = Pattern("rand0", 7, 20, step=2, seed=9, one_in=5)
    assert scenario.ops == (
        Require(2, "require nodes 4", "nodes", nodes=4),
        Require(3, "require swap", "swap"),
        Require(4, "require knob smart_scan", "knob", knob="smart_scan"),
        SetKnob(5, "set max_page_sharing 4", "max_page_sharing", "4"),
        Drain(6, "drain off", False),
        Proc(7, "proc A", "A"),
        Map(8, "map A x 0x10 node 3", "A", "x", 16, 3),
        Fill(10, "fill A x 0 16 rand0 7 20 step 2 if 9 5", "A", "x", 0, 16, pattern),
        OnRange(11, "read A x", "read", "A", "x", 0, 16),
        OnRange(12, "mergeable A x 4", "mergeable", "A", "x", 4, 12),
        OnRange(13, "unmergeable A x 4 2", "unmergeable", "A", "x", 4, 2),
        Move(14, "move A x 0 1 2", "A", "x", 0, 1, 2),
        Fork(15, "fork A B", "A", "B"),
        Exit(16, "exit B", "B"),
        MergeAny(17, "merge_any A", "A"),
        UnmergeAll(18, "unmerge_all"),
        Scan(19, "scan", 1),
        Scan(20, "scan 3", 3),
        Batch(21, "batch 0", 0),
        Record(22, "record here", "here"),
    )
    assert scenario.nodes() == 4
    assert scenario.swap()


def test_an_empty_script_is_a_scenario() -> None:
    scenario = parse("  \n# nothing\n")
    assert scenario.ops == ()
    assert (scenario.nodes(), scenario.swap()) == (1, False)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("fly A", "1:1", "fly is no operation"),
        ("proc", "1:5", "ends too early; add a name"),
        ("proc A B", "1:8", "remove B"),
        ("proc A\nproc A", "2:6", "exists already"),
        ("map A x 4", "1:5", "no process A"),
        ("proc A\nmap A x 0", "2:9", "write 1 to 262144"),
        ("proc A\nmap A x 4\nmap A x 4", "3:7", "already"),
        ("proc A\n  map A x four", "2:11", "four is no number"),
        ("proc A\nmap A x 012", "2:9", "no number"),
        ("proc A\nmap A x 4 knot 1", "2:11", "one of node"),
        ("proc A\nmap A x 4\nfill A y 0 1 zero", "3:8", "no region y"),
        ("proc A\nmap A x 4\nfill A x 2 3 zero", "3:12", "cannot be 3; write 0 to 2"),
        ("proc A\nmap A x 4\nfill A x 0 1 mod 1 0", "3:20", "cannot be 0"),
        ("proc A\nmap A x 4\nfill A x 0 1", "3:13", "add pattern"),
        ("proc A\nmap A x 4\nfill A x 0 1 hues 1", "3:14", "is no pattern"),
        ("proc A\nmap A x 4\nfill A x 0 1 const 99999999999999999999", "3:20", "cannot be"),
        ("proc A\nexit A\nexit A", "3:6", "no process A"),
        ("set run 1", "1:5", "run by scan and batch"),
        ("require hope", "1:9", "is no requirement"),
        ("scan -1", "1:6", "is no number"),
        ("scan 999999999", "1:6", "cannot be"),
        ("\x00\x1b[31m", "1:1", "'\\x00\\x1b[31m' is no operation"),
        ("x" * 500, "1:1", "x" * 40 + "... is no operation"),
    ],
)
def test_mistakes(text: str, place: str, says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse(text)
    assert str(error.value).startswith(f"{place}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=200))
def test_garbage_gives_one_line(text: str) -> None:
    _parse_or_complain(text)


words = st.sampled_from(sorted({*SCRIPT.split(), "const", "seq", "mod", "zero", "\n", "-1", "0x", "é"}))


@given(st.lists(words, max_size=60).map(" ".join))
def test_shuffled_words_give_one_line(text: str) -> None:
    _parse_or_complain(text)


def _parse_or_complain(text: str) -> None:
    try:
        parse(text)
    except ScenarioError as error:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        assert len(str(error).splitlines()) == 1
