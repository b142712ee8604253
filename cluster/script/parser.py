"""Parse scripts into typed operations: what processes do, when ksmd runs, and when to record.

A line has one operation; `#` starts a comment. Names are words; numbers are decimal or start with 0x. The
parser knows which processes and regions exist at each line, so a script that it accepts can be run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, cast, get_args

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
    Operation,
    ProcOp,
    RangeAction,
    RangeOp,
    RecordOp,
    RequireOp,
    ScanOp,
    SetKnobOp,
    UnmergeAllOp,
)
from cluster.spec.content import Pattern, PatternKind
from cluster.spec.limits import MOST_NODES, MOST_SCRIPT_PAGES

MAX_PAGES = 1 << 18  #: pages that a region may have
MAX_SCANS = 100_000  #: passes that a script may ask for
_UINT_MAX = (1 << 32) - 1
_ULONG_MAX = (1 << 64) - 1


class ScriptError(Exception):
    """A mistake in a script. `line` and `column` count from 1; str() is `LINE:COLUMN: message`."""

    def __init__(self, message: str, line: int, column: int = 1) -> None:
        super().__init__(message, line, column)
        self.message = message
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed script."""

    text: str
    operations: tuple[Operation, ...]

    def nodes(self) -> int:
        """Return how many nodes the script requires; 1 if it does not say."""
        return max([1, *(op.nodes for op in self.operations if isinstance(op, RequireOp))])

    def swap(self) -> bool:
        """Return whether the script requires swap."""
        return any(isinstance(op, RequireOp) and op.what == "swap" for op in self.operations)

    def huge_pages(self) -> bool:
        """Return whether the script has regions with huge pages."""
        return any(
            isinstance(op, HugeMapOp) or (isinstance(op, RangeOp) and op.action == "huge")
            for op in self.operations
        )


def parse(text: str) -> Script:
    """Return the parsed script. Raises ScriptError at its first mistake."""
    parser = _Parser()
    lines = (_Words(line, number) for number, line in enumerate(text.split("\n"), start=1))
    return Script(text, tuple(parser.parse(words) for words in lines if words.left()))


class _Words:
    """The words of one line, taken from left to right."""

    def __init__(self, line: str, number: int) -> None:
        self.code = line.split("#", 1)[0].rstrip()
        self.line = number
        self._words = [(match[0], match.start() + 1) for match in re.finditer(r"\S+", self.code)]
        self._next = 0

    def left(self) -> int:
        """Return how many words are left."""
        return len(self._words) - self._next

    def fail(self, message: str) -> NoReturn:
        """Raise ScriptError at the word taken last."""
        raise ScriptError(message, self.line, self._words[self._next - 1][1])

    def word(self, what: str) -> str:
        """Take the next word; `what` describes it in the message if there is none."""
        if not self.left():
            raise ScriptError(f"the line ends too early; add {what}", self.line, len(self.code) + 1)
        self._next += 1
        return self._words[self._next - 1][0]

    def choice(self, what: str, choices: tuple[str, ...]) -> str:
        """Take the next word, which must be one of `choices`."""
        word = self.word(what)
        if word not in choices:
            self.fail(f"{_shown(word)} is not a known {what}; write one of {', '.join(choices)}")
        return word

    def number(self, what: str, low: int = 0, high: int = _ULONG_MAX) -> int:
        """Take the next word, which must be a number in `low` .. `high`."""
        word = self.word(what)
        if re.fullmatch(r"0[xX][0-9a-fA-F]{1,40}", word):
            value = int(word, 16)
        elif re.fullmatch(r"0|[1-9][0-9]{0,40}", word):
            value = int(word)
        else:
            self.fail(f"{_shown(word)} is not a number; write {what} in decimal, or in hex with 0x")
        if not low <= value <= high:
            self.fail(f"{what} cannot be {_shown(word)}; write {low} to {high}")
        return value

    def end(self) -> None:
        """Fail if a word is left."""
        if self.left():
            self.fail(f"nothing may follow here; remove {_shown(self.word('nothing'))}")


class _Parser:
    """Parses line by line; knows which processes are alive, and the sizes of their regions."""

    def __init__(self) -> None:
        self._regions: dict[str, dict[str, int]] = {}
        #: Of all regions.
        self._pages = 0
        self._passes = 0

    def parse(self, words: _Words) -> Operation:
        """Return the operation of a line that is not empty."""
        name = words.choice("operation", tuple(_METHODS))
        op = _METHODS[name](self, words)
        words.end()
        return op

    def require(self, words: _Words) -> Operation:
        match words.choice("requirement", ("nodes", "swap", "knob", "thp")):
            case "nodes":
                nodes = words.number("the number of nodes", 1, MOST_NODES)
                return RequireOp(words.line, words.code, "nodes", nodes=nodes)
            case "swap":
                return RequireOp(words.line, words.code, "swap")
            case "thp":
                return RequireOp(words.line, words.code, "thp")
            case _:
                return RequireOp(words.line, words.code, "knob", knob=words.word("a knob"))

    def set_knob(self, words: _Words) -> Operation:
        knob = words.word("a knob")
        if knob == "run":
            words.fail("ksmd is run by scan and batch; leave out set run, or write unmerge_all for run=2")
        return SetKnobOp(words.line, words.code, knob, words.word("a value"))

    def drain(self, words: _Words) -> Operation:
        return DrainOp(words.line, words.code, words.choice("switch", ("on", "off")) == "on")

    def proc(self, words: _Words) -> Operation:
        return ProcOp(words.line, words.code, self._new_process(words, {}))

    def map(self, words: _Words) -> Operation:
        p, r, pages = self._new_region(words)
        node = None
        if words.left():
            words.choice("option of map", ("node",))
            node = words.number("the node", 0, MOST_NODES - 1)
        return MapOp(words.line, words.code, p, r, pages, node)

    def hugemap(self, words: _Words) -> Operation:
        p, r, pages = self._new_region(words)
        node, lazy = None, False
        while words.left():
            if words.choice("option of hugemap", ("lazy", "node")) == "lazy":
                lazy = True
            else:
                node = words.number("the node", 0, MOST_NODES - 1)
        return HugeMapOp(words.line, words.code, p, r, pages, node, lazy)

    def fill(self, words: _Words) -> Operation:
        p, r, start, count = self._range(words, optional=False)
        return FillOp(words.line, words.code, p, r, start, count, _pattern(words))

    def on_range(self, words: _Words) -> Operation:
        action = cast(RangeAction, words.code.split()[0])
        return RangeOp(words.line, words.code, action, *self._range(words, optional=True))

    def move(self, words: _Words) -> Operation:
        p, r, start, count = self._range(words, optional=False)
        return MoveOp(words.line, words.code, p, r, start, count, words.number("the node", 0, MOST_NODES - 1))

    def fork(self, words: _Words) -> Operation:
        p = self._process(words)
        return ForkOp(words.line, words.code, p, self._new_process(words, self._regions[p]))

    def exit(self, words: _Words) -> Operation:
        p = self._process(words)
        self._pages -= sum(self._regions.pop(p).values())
        return ExitOp(words.line, words.code, p)

    def exec(self, words: _Words) -> Operation:
        p = self._process(words)
        self._pages -= sum(self._regions[p].values())
        self._regions[p] = {}
        return ExecOp(words.line, words.code, p)

    def merge_any(self, words: _Words) -> Operation:
        p = self._process(words)
        if words.left():
            words.choice("option of merge_any", ("off",))
            return MergeAnyOp(words.line, words.code, p, False)
        return MergeAnyOp(words.line, words.code, p, True)

    def unmerge_all(self, words: _Words) -> Operation:
        return UnmergeAllOp(words.line, words.code)

    def scan(self, words: _Words) -> Operation:
        times = words.number("the number of passes", 0, MAX_SCANS) if words.left() else 1
        self._passes += times
        if self._passes > MAX_SCANS:
            words.fail(f"the script has more than {MAX_SCANS:,} passes; scan less often")
        return ScanOp(words.line, words.code, times)

    def batch(self, words: _Words) -> Operation:
        return BatchOp(words.line, words.code, words.number("the number of pages", 0, _UINT_MAX))

    def record(self, words: _Words) -> Operation:
        return RecordOp(words.line, words.code, words.word("a label"))

    def _process(self, words: _Words) -> str:
        p = words.word("a process")
        if p not in self._regions:
            words.fail(f"there is no process {_shown(p)} here; start it with proc or fork")
        return p

    def _new_process(self, words: _Words, regions: dict[str, int]) -> str:
        p = words.word("a name for the new process")
        if p in self._regions:
            words.fail(f"process {_shown(p)} exists already; choose another name")
        self._regions[p] = dict(regions)
        self._add_pages(words, sum(regions.values()))
        return p

    def _new_region(self, words: _Words) -> tuple[str, str, int]:
        """Take a process, the name of a new region, and its number of pages."""
        p = self._process(words)
        r = words.word("a name for the region")
        if r in self._regions[p]:
            words.fail(f"process {_shown(p)} has a region {_shown(r)} already; choose another name")
        pages = words.number("the number of pages", 1, MAX_PAGES)
        self._regions[p][r] = pages
        self._add_pages(words, pages)
        return p, r, pages

    def _add_pages(self, words: _Words, pages: int) -> None:
        self._pages += pages
        if self._pages > MOST_SCRIPT_PAGES:
            words.fail(f"all processes have more than {MOST_SCRIPT_PAGES:,} pages together; map fewer")

    def _range(self, words: _Words, *, optional: bool) -> tuple[str, str, int, int]:
        """Take a process, its region, the first page and the number of pages.

        If `optional`, the last two may be missing: then it is the whole region, or its rest.
        """
        p = self._process(words)
        r = words.word("a region")
        if r not in self._regions[p]:
            words.fail(f"process {_shown(p)} has no region {_shown(r)} here; map it first")
        pages = self._regions[p][r]
        start = words.number("the first page", 0, pages) if words.left() or not optional else 0
        left = pages - start
        count = words.number("the number of pages", 0, left) if words.left() or not optional else left
        return p, r, start, count


def _pattern(words: _Words) -> Pattern:
    kind = cast(PatternKind, words.choice("pattern", get_args(PatternKind)))
    a, b = 0, 1
    if kind != "zero":
        a = words.number("the seed" if kind in ("rand", "rand0") else "the first content")
    if kind in ("mod", "rand", "rand0"):
        b = words.number("the number of contents", 1)
    step, seed, one_in = 1, 0, 1
    while words.left():
        if words.choice("option of fill", ("if", "step")) == "step":
            step = words.number("the step")
        else:
            seed = words.number("the seed")
            one_in = words.number("N of one page in N")
    return Pattern(kind, a, b, step, seed, one_in)


def _shown(word: str) -> str:
    """Return a word of the script in a form that fits a one-line message."""
    cut = word if len(word) <= 40 else word[:40] + "..."
    return cut if re.fullmatch(r"[!-~]+", cut) else ascii(cut)


_METHODS: dict[str, Callable[[_Parser, _Words], Operation]] = {
    "require": _Parser.require,
    "set": _Parser.set_knob,
    "drain": _Parser.drain,
    "proc": _Parser.proc,
    "map": _Parser.map,
    "hugemap": _Parser.hugemap,
    "fill": _Parser.fill,
    **dict.fromkeys(get_args(RangeAction), _Parser.on_range),
    "move": _Parser.move,
    "fork": _Parser.fork,
    "exit": _Parser.exit,
    "exec": _Parser.exec,
    "merge_any": _Parser.merge_any,
    "unmerge_all": _Parser.unmerge_all,
    "scan": _Parser.scan,
    "batch": _Parser.batch,
    "record": _Parser.record,
}
