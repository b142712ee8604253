"""Run a script on a machine and write its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod

import numpy as np

from cluster.arrays.words import I64
from cluster.script.engine import HUGE_PAGES, KSM, NO_FRAME, BadAddressError, Engine, MachineView
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
    RangeOp,
    RecordOp,
    RequireOp,
    ScanOp,
    SetKnobOp,
    UnmergeAllOp,
)
from cluster.script.parser import Script, ScriptError
from cluster.script.record import Json, rle
from cluster.spec.content import pattern_ids, selected

#: files of /sys/kernel/mm/ksm that drive ksmd: every kernel has them, but scripts use steps in their place
_DRIVE_KSMD = ("run", "pages_to_scan", "sleep_millisecs")


@dataclass(frozen=True, slots=True)
class ScriptTopology:
    """The machine that a script runs on, as far as a script can tell."""

    nodes: int = 1
    swap: bool = False
    cpus: int = 1


def run(
    script: Script,
    engine: Engine,
    topology: ScriptTopology,
    *,
    name: str,
    kernel: str,
    after_record: Callable[[str], None] = lambda label: None,
) -> Json:
    """Run a script on a fresh machine and return the document of its records.

    Calls `after_record` with the label of each record once that is written. Raises ScriptError at an
    operation that would kill a real process.
    """
    runner = _Runner(engine, topology, after_record, huge_pages=script.huge_pages())
    skipped = None
    for op in script.operations:
        if isinstance(op, RequireOp):
            skipped = runner.unmet(op)
            if skipped:
                break
            continue
        try:
            runner.do(op)
        except BadAddressError as error:
            raise ScriptError(f"{error}; leave it out", op.line) from error
    document: Json = {
        "scenario": name,
        "kernel": kernel,
        "topology": {"nodes": topology.nodes, "cpus": topology.cpus, "swap": topology.swap},
        "text": script.text,
        "events": runner.events,
        "knobs": dict(engine.knobs()),
        "records": runner.records,
    }
    if skipped:
        document["skipped"] = skipped
    return document


@dataclass(frozen=True, slots=True)
class _MappedFrames:
    """What each page of the live processes maps, by ascending slot: three int64[pages]."""

    slot: I64
    frame: I64
    kind: I64

    def labels(self) -> I64:
        """Return frames numbered by first appearance; NO_FRAME and SWAPPED stay."""
        labels = self.frame.copy()
        present = self.frame > NO_FRAME
        _, first, inverse = np.unique(self.frame[present], return_index=True, return_inverse=True)
        order = np.empty(len(first), dtype=np.int64)
        order[np.argsort(first)] = np.arange(len(first))
        labels[present] = order[inverse]
        return labels


class _Runner:
    """One run: the machine, the slots given to pages, and the records so far.

    A slot is the number of a page in the script, in the order of mapping and forking.
    """

    def __init__(
        self,
        engine: Engine,
        topology: ScriptTopology,
        after_record: Callable[[str], None],
        *,
        huge_pages: bool,
    ) -> None:
        self._engine = engine
        self._topology = topology
        self._after_record = after_record
        self._huge_pages = huge_pages
        self.events: list[Json] = []
        self.records: list[Json] = []
        self._slots = 0
        #: first slot of each region, by process
        self._slot0: dict[str, dict[str, int]] = {}
        self._pages: dict[tuple[str, str], int] = {}
        #: what pages map now; None if an operation may have changed it
        self._current: _MappedFrames | None = None

    def unmet(self, op: RequireOp) -> str | None:
        """Return the requirement if the machine does not meet it."""
        files = (*_DRIVE_KSMD, *self._engine.knobs(), *self._engine.view().sysfs)
        met = {
            "nodes": self._topology.nodes >= op.nodes,
            "swap": self._topology.swap,
            "knob": op.knob in files,
            "thp": True,
        }
        return None if met[op.what] else op.what

    @singledispatchmethod
    def do(self, op: Operation) -> None:
        """Run one operation."""
        raise NotImplementedError(type(op).__name__)

    @do.register
    def _(self, op: DrainOp) -> None:
        pass

    @do.register
    def _(self, op: SetKnobOp) -> None:
        error = self._engine.set_knob(op.knob, op.value)
        what = "unsupported" if error == "ENOENT" else "set"
        self._event(op, what, -1 if error else 0, error)

    @do.register
    def _(self, op: ProcOp) -> None:
        self._engine.proc(op.p)
        self._slot0[op.p] = {}

    @do.register
    def _(self, op: MapOp) -> None:
        self._current = None
        self._event_of_failure(op, "map", self._engine.map(op.p, op.r, op.pages, op.node))
        self._assign_slots(op.p, op.r, op.pages)

    @do.register
    def _(self, op: HugeMapOp) -> None:
        self._current = None
        self._event_of_failure(op, "map", self._engine.map(op.p, op.r, op.pages, op.node))
        self._engine.huge(op.p, op.r, 0, op.pages)
        if not op.lazy:
            firsts = np.arange(op.pages // HUGE_PAGES) * HUGE_PAGES
            self._engine.fill(op.p, op.r, firsts, np.zeros(len(firsts), dtype=np.uint64))
        self._assign_slots(op.p, op.r, op.pages)

    @do.register
    def _(self, op: FillOp) -> None:
        self._current = None
        chosen = selected(op.pattern, op.count)
        pages = np.flatnonzero(chosen) + op.start
        contents = pattern_ids(op.pattern, op.count)[chosen]
        self._event_of_failure(op, "fill", self._engine.fill(op.p, op.r, pages, contents))

    @do.register
    def _(self, op: RangeOp) -> None:
        self._current = None
        calls: dict[str, Callable[[str, str, int, int], str]] = {
            "read": self._engine.read,
            "pin": self._engine.pin,
            "mergeable": self._engine.mergeable,
            "unmergeable": self._engine.unmergeable,
            "unmap": self._engine.unmap,
            "dontneed": self._engine.dontneed,
            "pageout": self._engine.pageout,
            "huge": self._engine.huge,
            "collapse": self._engine.collapse,
            "poison": self._engine.poison,
            "soft_offline": self._engine.soft_offline,
        }
        self._event_of_failure(op, op.action, calls[op.action](op.p, op.r, op.start, op.count))

    @do.register
    def _(self, op: MoveOp) -> None:
        self._current = None
        self._event(op, "move", self._engine.move(op.p, op.r, op.start, op.count, op.node), "")

    @do.register
    def _(self, op: ForkOp) -> None:
        self._current = None
        self._engine.fork(op.p, op.q)
        self._slot0[op.q] = {}
        for r in self._slot0[op.p]:
            self._assign_slots(op.q, r, self._pages[op.p, r])

    @do.register
    def _(self, op: ExitOp) -> None:
        self._current = None
        self._engine.exit(op.p)
        del self._slot0[op.p]

    @do.register
    def _(self, op: ExecOp) -> None:
        self._current = None
        self._engine.exec(op.p)
        self._slot0[op.p] = {}

    @do.register
    def _(self, op: MergeAnyOp) -> None:
        self._current = None
        error = self._engine.merge_any(op.p, on=op.on)
        self._event(op, "merge_any", -1 if error else 0, error)

    @do.register
    def _(self, op: UnmergeAllOp) -> None:
        self._current = None
        self._engine.unmerge_all()

    @do.register
    def _(self, op: ScanOp) -> None:
        for k in range(op.times):
            before = self._mapped_now()
            if not self._engine.scan():
                self._event(op, "noscan", 0, "")
            label = f"scan@{op.line}.{k + 1}" if op.times > 1 else f"scan@{op.line}"
            self._record(op, label, before)

    @do.register
    def _(self, op: BatchOp) -> None:
        before = self._mapped_now()
        self._engine.batch(op.pages)
        self._record(op, f"batch@{op.line}", before)

    @do.register
    def _(self, op: RecordOp) -> None:
        self._record(op, op.label, None)

    def _assign_slots(self, p: str, r: str, pages: int) -> None:
        self._slot0[p][r] = self._slots
        self._pages[p, r] = pages
        self._slots += pages

    def _event(self, op: Operation, what: str, ret: int, error: str) -> None:
        self.events.append({"line": op.line, "what": what, "ret": ret, "err": error})

    def _event_of_failure(self, op: Operation, what: str, error: str) -> None:
        if error:
            self._event(op, what, -1, error)

    def _mapped_now(self) -> _MappedFrames:
        if self._current is None:
            self._current = self._frames(self._engine.view())
        return self._current

    def _record(self, op: Operation, label: str, before: _MappedFrames | None) -> None:
        """Write a record; with `before`, also which frames became KSM pages since then."""
        view = self._engine.view()
        now = self._frames(view)
        self._current = now
        labels = now.labels()
        record: Json = {
            "label": label,
            "line": op.line,
            "op": op.text,
            "sysfs": dict(view.sysfs),
            "vmstat": dict(view.vmstat) | (dict(view.thp_vmstat) if self._huge_pages else {}),
            "procs": {name: dict(stats) for name, stats in view.procs.items()},
        }
        if before is not None and self._slots:
            record["new_ksm"] = _new_ksm(before, now, labels)
        record["regions"] = self._regions(view, dict(zip(now.slot.tolist(), labels.tolist(), strict=True)))
        self.records.append(record)
        self._after_record(label)

    def _regions(self, machine: MachineView, labels: dict[int, int]) -> list[Json]:
        regions = []
        for view in machine.regions:
            slot0 = self._slot0[view.p][view.r]
            pages = len(view.frame)
            region: Json = {
                "p": view.p,
                "r": view.r,
                "slot0": slot0,
                "n": pages,
                "part": rle([labels[slot] for slot in range(slot0, slot0 + pages)]),
                "kind": rle(view.kind.tolist()),
            }
            if view.thp is not None:
                region["thp"] = rle(view.thp.tolist())
            if self._topology.nodes > 1:
                region["node"] = rle(view.node.tolist())
            regions.append(region)
        return regions

    def _frames(self, machine: MachineView) -> _MappedFrames:
        views = sorted(machine.regions, key=lambda view: self._slot0[view.p][view.r])
        none = np.empty(0, dtype=np.int64)
        slots = [np.arange(len(view.frame)) + self._slot0[view.p][view.r] for view in views]
        return _MappedFrames(
            slot=np.concatenate([none, *slots]),
            frame=np.concatenate([none, *(view.frame for view in views)]),
            kind=np.concatenate([none, *(view.kind for view in views)]),
        )


def _new_ksm(before: _MappedFrames, now: _MappedFrames, labels: I64) -> Json:
    """Return the frames that have become KSM pages, and the first slot that mapped each before."""
    first_before = _first_of_each(before.frame)
    new_labels, of_slots = [], []
    for frame, at in _first_of_each(np.where(now.kind == KSM, now.frame, NO_FRAME)).items():
        was = first_before.get(frame)
        if was is None or before.kind[was] != KSM:
            new_labels.append(int(labels[at]))
            of_slots.append(-1 if was is None else int(before.slot[was]))
    return {"label": rle(new_labels), "frame_of_slot": rle(of_slots)}


def _first_of_each(frames: I64) -> dict[int, int]:
    """Return the index at which each frame appears first, in the order of appearance."""
    firsts: dict[int, int] = {}
    for at, frame in enumerate(frames.tolist()):
        if frame > NO_FRAME:
            firsts.setdefault(frame, at)
    return firsts
