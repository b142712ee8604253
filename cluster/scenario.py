"""Scenario scripts: what processes do, when ksmd runs, and when to look; parsed into typed operations.

One operation a line, `#` starts a comment. Names are words; numbers are decimal or start with 0x. Parsing
also follows the names of processes and regions through the script, so an operation that parsed can be run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn, cast, get_args

from cluster.content import Kind, Pattern

MAX_PAGES = 1 << 18  #: pages a region may have
MAX_SCANS = 100_000  #: passes one `scan` may ask for
_ULONG_MAX = (1 << 64) - 1

RangeAction = Literal["read", "mergeable", "unmergeable", "unmap", "dontneed", "pageout"]


class ScenarioError(Exception):
    """A mistake in a script. `line` and `column` count from 1; str() gives `LINE:COLUMN: message`."""

    def __init__(self, message: str, line: int, column: int = 1) -> None:
        super().__init__(message, line, column)
        self.message = message
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: its line, counted from 1, and its text without comment."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Require(Op):
    """The rest of the scenario needs so many nodes, or swap, or a knob."""

    what: Literal["nodes", "swap", "knob"]
    nodes: int = 0
    knob: str = ""


@dataclass(frozen=True, slots=True)
class SetKnob(Op):
    """Write a file of /sys/kernel/mm/ksm."""

    knob: str
    value: str


@dataclass(frozen=True, slots=True)
class Drain(Op):
    """Whether per-CPU LRU batches are flushed before each step; the simulated machine has none."""

    on: bool


@dataclass(frozen=True, slots=True)
class Proc(Op):
    """Start a process."""

    p: str


@dataclass(frozen=True, slots=True)
class Map(Op):
    """Map a region."""

    p: str
    r: str
    pages: int
    node: int | None


@dataclass(frozen=True, slots=True)
class Fill(Op):
    """Write pages of a region."""

    p: str
    r: str
    start: int
    count: int
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class OnRange(Op):
    """Something else done to a range of pages."""

    action: RangeAction
    p: str
    r: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Move(Op):
    """Migrate pages to a node."""

    p: str
    r: str
    start: int
    count: int
    node: int


@dataclass(frozen=True, slots=True)
class Fork(Op):
    """Fork p into q."""

    p: str
    q: str


@dataclass(frozen=True, slots=True)
class Exit(Op):
    """End a process."""

    p: str


@dataclass(frozen=True, slots=True)
class MergeAny(Op):
    """Make all memory of a process mergeable, now and later."""

    p: str


@dataclass(frozen=True, slots=True)
class UnmergeAll(Op):
    """run=2, then 0."""


@dataclass(frozen=True, slots=True)
class Scan(Op):
    """Run to the end of the pass, then record; so many times."""

    times: int


@dataclass(frozen=True, slots=True)
class Batch(Op):
    """One wake-up of ksmd with so many pages, then record."""

    pages: int


@dataclass(frozen=True, slots=True)
class Record(Op):
    """Record now."""

    label: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A parsed script."""

    text: str
    ops: tuple[Op, ...]

    def nodes(self) -> int:
        """How many nodes the script requires; 1 if it does not say."""
        return max((op.nodes for op in self.ops if isinstance(op, Require)), default=1) or 1

    def swap(self) -> bool:
        """Whether the script requires swap."""
        return any(isinstance(op, Require) and op.what == "swap" for op in self.ops)


def parse(text: str) -> Scenario:
    """Parse a script; raises ScenarioError at its first mistake."""
    names = _Names()
    ops = []
    for number, line in enumerate(text.split("\n"), start=1):
        code = line.split("#", 1)[0].rstrip()
        words = _Words(code, number)
        if words.left():
            ops.append(_parse_op(words, names))
    return Scenario(text, tuple(ops))


class _Words:
    """The words of one line, taken from left to right."""

    def __init__(self, code: str, line: int) -> None:
        self.code = code
        self.line = line
        self._words = [(match[0], match.start() + 1) for match in re.finditer(r"\S+", code)]
        self._next = 0

    def left(self) -> int:
        return len(self._words) - self._next

    def fail(self, message: str) -> NoReturn:
        """Raise at the word taken last."""
        column = self._words[self._next - 1][1] if self._next else 1
        raise ScenarioError(message, self.line, column)

    def word(self, what: str) -> str:
        if not self.left():
            raise ScenarioError(f"the line ends too early; add {what}", self.line, len(self.code) + 1)
        self._next += 1
        return self._words[self._next - 1][0]

    def choice(self, what: str, choices: tuple[str, ...]) -> str:
        word = self.word(what)
        if word not in choices:
            self.fail(f"{_quoted(word)} is no {what}; write one of {', '.join(choices)}")
        return word

    def number(self, what: str, high: int = _ULONG_MAX, low: int = 0) -> int:
        word = self.word(what)
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", word):
            value = int(word, 16)
        elif re.fullmatch(r"0|[1-9][0-9]{0,19}", word):
            value = int(word)
        else:
            self.fail(f"{_quoted(word)} is no number; write {what} in decimal, or in hex with 0x")
        if not low <= value <= high:
            self.fail(f"{what} is {_quoted(word)}; it must be {low} to {high}")
        return value

    def end(self) -> None:
        if self.left():
            word = self.word("nothing")
            self.fail(f"nothing may follow here; remove {_quoted(word)}")


class _Names:
    """The processes alive at a point of the script, with the sizes of their regions."""

    def __init__(self) -> None:
        self._procs: dict[str, dict[str, int]] = {}

    def known(self, words: _Words) -> str:
        p = words.word("a process")
        if p not in self._procs:
            words.fail(f"there is no process {_quoted(p)} here; start it with proc or fork")
        return p

    def new(self, words: _Words, regions: dict[str, int]) -> str:
        q = words.word("the name of the new process")
        if q in self._procs:
            words.fail(f"process {_quoted(q)} exists already; choose another name")
        self._procs[q] = dict(regions)
        return q

    def regions(self, p: str) -> dict[str, int]:
        return self._procs[p]

    def end(self, p: str) -> None:
        del self._procs[p]

    def region(self, words: _Words, p: str) -> str:
        r = words.word("a region")
        if r not in self._procs[p]:
            words.fail(f"process {_quoted(p)} has no region {_quoted(r)} here; map it first")
        return r


def _parse_op(words: _Words, names: _Names) -> Op:
    name = words.choice("operation", tuple(_PARSERS))
    op = _PARSERS[name](name, words, names)
    words.end()
    return op


def _require(_: str, words: _Words, names: _Names) -> Op:
    what = words.choice("requirement", ("nodes", "swap", "knob"))
    if what == "nodes":
        return Require(words.line, words.code, "nodes", nodes=words.number("the number of nodes", 1024, 1))
    if what == "swap":
        return Require(words.line, words.code, "swap")
    return Require(words.line, words.code, "knob", knob=words.word("a knob"))


def _set(_: str, words: _Words, names: _Names) -> Op:
    knob = words.word("a knob")
    if knob == "run":
        words.fail("ksmd is run by scan and batch; leave out set run, or write unmerge_all for run=2")
    return SetKnob(words.line, words.code, knob, words.word("a value"))


def _drain(_: str, words: _Words, names: _Names) -> Op:
    return Drain(words.line, words.code, words.choice("switch", ("on", "off")) == "on")


def _proc(_: str, words: _Words, names: _Names) -> Op:
    return Proc(words.line, words.code, names.new(words, {}))


def _map(_: str, words: _Words, names: _Names) -> Op:
    p = names.known(words)
    r = words.word("a name for the region")
    if r in names.regions(p):
        words.fail(f"process {_quoted(p)} has a region {_quoted(r)} already; choose another name")
    pages = words.number("the number of pages", MAX_PAGES, 1)
    names.regions(p)[r] = pages
    node = None
    if words.left():
        words.choice("option of map", ("node",))
        node = words.number("the node", 1023)
    return Map(words.line, words.code, p, r, pages, node)


def _range(words: _Words, names: _Names, *, optional: bool) -> tuple[str, str, int, int]:
    p = names.known(words)
    r = names.region(words, p)
    pages = names.regions(p)[r]
    start = words.number("the first page", pages) if words.left() or not optional else 0
    count = words.number("the number of pages") if words.left() or not optional else pages - start
    if start + count > pages:
        words.fail(
            f"region {_quoted(r)} ends at page {pages}; take at most {pages - start} pages from {start}"
        )
    return p, r, start, count


def _on_range(name: str, words: _Words, names: _Names) -> Op:
    p, r, start, count = _range(words, names, optional=True)
    return OnRange(words.line, words.code, cast(RangeAction, name), p, r, start, count)


def _fill(_: str, words: _Words, names: _Names) -> Op:
    p, r, start, count = _range(words, names, optional=False)
    return Fill(words.line, words.code, p, r, start, count, _pattern(words))


def _pattern(words: _Words) -> Pattern:
    kind = cast(Kind, words.choice("pattern", get_args(Kind)))
    a, b = 0, 1
    if kind in ("const", "seq", "mod"):
        a = words.number("the first content")
    elif kind in ("rand", "rand0"):
        a = words.number("the seed")
    if kind in ("mod", "rand", "rand0"):
        b = words.number("the number of contents", low=1)
    step, seed, one_in = 1, 0, 1
    while words.left():
        if words.choice("option of fill", ("if", "step")) == "step":
            step = words.number("the step", low=1)
        else:
            seed = words.number("the seed")
            one_in = words.number("N of one page in N", low=1)
    return Pattern(kind, a, b, step, seed, one_in)


def _move(_: str, words: _Words, names: _Names) -> Op:
    p, r, start, count = _range(words, names, optional=False)
    return Move(words.line, words.code, p, r, start, count, words.number("the node", 1023))


def _fork(_: str, words: _Words, names: _Names) -> Op:
    p = names.known(words)
    return Fork(words.line, words.code, p, names.new(words, names.regions(p)))


def _exit(_: str, words: _Words, names: _Names) -> Op:
    p = names.known(words)
    names.end(p)
    return Exit(words.line, words.code, p)


def _merge_any(_: str, words: _Words, names: _Names) -> Op:
    return MergeAny(words.line, words.code, names.known(words))


def _unmerge_all(_: str, words: _Words, names: _Names) -> Op:
    return UnmergeAll(words.line, words.code)


def _scan(_: str, words: _Words, names: _Names) -> Op:
    times = words.number("the number of passes", MAX_SCANS) if words.left() else 1
    return Scan(words.line, words.code, times)


def _batch(_: str, words: _Words, names: _Names) -> Op:
    return Batch(words.line, words.code, words.number("the number of pages", (1 << 32) - 1))


def _record(_: str, words: _Words, names: _Names) -> Op:
    return Record(words.line, words.code, words.word("a label"))


def _quoted(word: str) -> str:
    """A word from the script, fit for a one-line message."""
    shown = word if len(word) <= 40 else word[:40] + "..."
    return shown if re.fullmatch(r"[!-~]+", shown) else ascii(shown)


_PARSERS: dict[str, Callable[[str, _Words, _Names], Op]] = {
    "require": _require,
    "set": _set,
    "drain": _drain,
    "proc": _proc,
    "map": _map,
    "fill": _fill,
    **dict.fromkeys(get_args(RangeAction), _on_range),
    "move": _move,
    "fork": _fork,
    "exit": _exit,
    "merge_any": _merge_any,
    "unmerge_all": _unmerge_all,
    "scan": _scan,
    "batch": _batch,
    "record": _record,
}
