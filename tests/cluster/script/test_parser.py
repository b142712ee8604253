"""The script parser: every operation, and every mistake with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.script.operations import (
    BatchOp,
    DrainOp,
    ExecOp,
    ExitOp,
    FillOp,
    ForkOp,
    HugeMapOp,
    MapOp,
    MergeAnyOp,
    MoveOp,
    ProcOp,
    RangeOp,
    RecordOp,
    RequireOp,
    ScanOp,
    SetKnobOp,
    UnmergeAllOp,
)
from cluster.script.parser import ScriptError, parse
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
require thp
hugemap A h 1024 lazy node 2
hugemap A g 512
huge A x 4 2
collapse A h 512
poison A x 3 1
soft_offline A x
merge_any A off
exec A
map A x 2
"""


def test_every_operation() -> None:
    script = parse(SCRIPT)
    pattern = Pattern("rand0", 7, 20, step=2, seed=9, one_in=5)
    assert script.operations == (
        RequireOp(2, "require nodes 4", "nodes", nodes=4),
        RequireOp(3, "require swap", "swap"),
        RequireOp(4, "require knob smart_scan", "knob", knob="smart_scan"),
        SetKnobOp(5, "set max_page_sharing 4", "max_page_sharing", "4"),
        DrainOp(6, "drain off", False),
        ProcOp(7, "proc A", "A"),
        MapOp(8, "map A x 0x10 node 3", "A", "x", 16, 3),
        FillOp(10, "fill A x 0 16 rand0 7 20 step 2 if 9 5", "A", "x", 0, 16, pattern),
        RangeOp(11, "read A x", "read", "A", "x", 0, 16),
        RangeOp(12, "mergeable A x 4", "mergeable", "A", "x", 4, 12),
        RangeOp(13, "unmergeable A x 4 2", "unmergeable", "A", "x", 4, 2),
        MoveOp(14, "move A x 0 1 2", "A", "x", 0, 1, 2),
        ForkOp(15, "fork A B", "A", "B"),
        ExitOp(16, "exit B", "B"),
        MergeAnyOp(17, "merge_any A", "A", True),
        UnmergeAllOp(18, "unmerge_all"),
        ScanOp(19, "scan", 1),
        ScanOp(20, "scan 3", 3),
        BatchOp(21, "batch 0", 0),
        RecordOp(22, "record here", "here"),
        RequireOp(23, "require thp", "thp"),
        HugeMapOp(24, "hugemap A h 1024 lazy node 2", "A", "h", 1024, 2, True),
        HugeMapOp(25, "hugemap A g 512", "A", "g", 512, None, False),
        RangeOp(26, "huge A x 4 2", "huge", "A", "x", 4, 2),
        RangeOp(27, "collapse A h 512", "collapse", "A", "h", 512, 512),
        RangeOp(28, "poison A x 3 1", "poison", "A", "x", 3, 1),
        RangeOp(29, "soft_offline A x", "soft_offline", "A", "x", 0, 16),
        MergeAnyOp(30, "merge_any A off", "A", False),
        ExecOp(31, "exec A", "A"),
        MapOp(32, "map A x 2", "A", "x", 2, None),
    )
    assert script.nodes() == 4
    assert script.swap()
    assert script.huge_pages()


def test_an_empty_script_has_no_operations() -> None:
    script = parse("  \n# nothing\n")
    assert script.operations == ()
    assert (script.nodes(), script.swap(), script.huge_pages()) == (1, False, False)


def test_pages_that_are_gone_do_not_count() -> None:
    most = "map A x 262144\nmap A y 262144\nmap A z 262144\nmap A w 262144\n"
    parse(f"proc A\n{most}exec A\n{most}exit A\nproc A\n{most}")


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("fly A", "1:1", "fly is not a known operation"),
        ("proc", "1:5", "ends too early; add a name"),
        ("proc A B", "1:8", "remove B"),
        ("proc A\nproc A", "2:6", "exists already"),
        ("map A x 4", "1:5", "no process A"),
        ("proc A\nmap A x 0", "2:9", "write 1 to 262144"),
        ("proc A\nmap A x 4\nmap A x 4", "3:7", "already"),
        ("proc A\n  map A x four", "2:11", "four is not a number"),
        ("proc A\nmap A x 012", "2:9", "not a number"),
        ("proc A\nmap A x 4 knot 1", "2:11", "one of node"),
        ("proc A\nhugemap A x 4 knot 1", "2:15", "one of lazy, node"),
        ("proc A\nmap A x 4\nfill A y 0 1 zero", "3:8", "no region y"),
        ("proc A\nmap A x 4\nfill A x 2 3 zero", "3:12", "cannot be 3; write 0 to 2"),
        ("proc A\nmap A x 4\nfill A x 0 1 mod 1 0", "3:20", "cannot be 0"),
        ("proc A\nmap A x 4\nfill A x 0 1", "3:13", "add pattern"),
        ("proc A\nmap A x 4\nfill A x 0 1 hues 1", "3:14", "is not a known pattern"),
        ("proc A\nmap A x 4\nfill A x 0 1 const 99999999999999999999", "3:20", "cannot be"),
        ("proc A\nexit A\nexit A", "3:6", "no process A"),
        ("proc A\nmap A x 4\nexec A\nread A x", "4:8", "no region x"),
        ("proc A\nmerge_any A on", "2:13", "one of off"),
        (
            "proc A\nmap A x 262144\nmap A y 262144\nmap A z 262144\nfork A B",
            "5:8",
            "more than 1,048,576 pages",
        ),
        ("set run 1", "1:5", "run by scan and batch"),
        ("require hope", "1:9", "is not a known requirement"),
        ("scan -1", "1:6", "is not a number"),
        ("scan 999999999", "1:6", "cannot be"),
        ("\x00\x1b[31m", "1:1", "'\\x00\\x1b[31m' is not a known operation"),
        ("x" * 500, "1:1", "x" * 40 + "... is not a known operation"),
    ],
)
def test_mistakes(text: str, place: str, says: str) -> None:
    with pytest.raises(ScriptError) as error:
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
    except ScriptError as error:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        assert len(str(error).splitlines()) == 1
