"""Checks which scripts can run on the host, and defines the built-in one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cluster.script.operations import (
    DrainOp,
    ExecOp,
    HugeMapOp,
    MapOp,
    MergeAnyOp,
    MoveOp,
    Operation,
    RangeOp,
    RequireOp,
    SetKnobOp,
)
from cluster.script.parser import Script, ScriptError, parse
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_TEXT
from ksmcluster.system.errors import UserError

#: sharing, zeros, more sharers than max_page_sharing, copy-on-write, fork, holes, exit, a batch in mid-pass
BUILT_IN = """\
set max_page_sharing 4
proc A
map A x 60
fill A x 0 24 mod 1 4          # four contents, six times each: more than max_page_sharing
fill A x 24 12 seq 100         # twelve contents that B will also have
fill A x 36 12 zero
read A x 48 12                 # never written: the kernel's zero page, which ksmd ignores
mergeable A x
proc B
map B y 40
fill B y 0 12 seq 100          # the same contents as in A
fill B y 12 28 rand 7 9        # nine random contents
mergeable B y
scan 3
fill A x 0 6 seq 200           # copy-on-write: six pages are unshared
fill A x 24 6 const 1
scan 2
fork A C
fill C x 6 6 const 2           # only the child's copies
scan 2
batch 30
fill B y 20 10 const 3
scan
unmap B y 0 4
dontneed B y 4 4
unmergeable A x 12 6
scan 2
set use_zero_pages 1
fill C x 48 12 zero
scan 3
exit A
scan 2
"""

#: with several nodes, the kernel chooses the node of a page, and with the value 0 that matters
_ONE_NODE_ONLY = "merge_across_nodes"
_TIMED = "advisor_"
#: they need swap or huge pages, or take memory of the host out of use
_NOT_HERE = ("pageout", "huge", "collapse", "poison", "soft_offline")


def load(path: Path | None) -> Script:
    """Return the script of a file, or the built-in one. Raises UserError if it is wrong or unreadable."""
    if path is None:
        return parse(BUILT_IN)
    try:
        return parse(read_input(path, MOST_TEXT).decode())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a file that can be read") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8; save the script as text") from error
    except ScriptError as error:
        raise UserError(f"{path}:{error}") from error


def check(script: Script, knobs: Collection[str], nodes: int) -> None:
    """Raise ScriptError if the script cannot run on a host with `nodes` nodes."""
    for op in script.operations:
        if reason := _reason_against(op, knobs, nodes):
            raise ScriptError(f"{reason}; leave it out, or use replay", op.line)


def _reason_against(op: Operation, knobs: Collection[str], nodes: int) -> str | None:
    if isinstance(op, SetKnobOp):
        return _reason_against_knob(op.knob, knobs, nodes)
    if isinstance(op, MapOp) and op.node is not None:
        return "regions cannot be bound to nodes here"
    if isinstance(op, RequireOp) and op.what != "knob":
        return f"the host's {op.what} cannot be chosen"
    refused = isinstance(op, RangeOp) and op.action in _NOT_HERE
    if refused or isinstance(op, (HugeMapOp, MoveOp, ExecOp, MergeAnyOp, DrainOp)):
        return f"{op.text.split()[0]} cannot be run on the host"
    return None


def _reason_against_knob(knob: str, knobs: Collection[str], nodes: int) -> str | None:
    if knob not in knobs or knob.startswith(_TIMED):
        return "this knob cannot be set here"
    if knob == _ONE_NODE_ONLY and nodes > 1:
        return f"{knob} cannot be set on a host with {nodes} nodes"
    return None
