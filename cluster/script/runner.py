"""Runs a scenario on an engine and writes down what is seen: the document of records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod

import numpy as np
from numpy.typing import NDArray

from cluster.script.engine import KSM, NO_FRAME, BadAddressError, Engine, MachineView
from cluster.script.operations import (
    BatchOp,
    DrainOp,
    ExitOp,
    FillOp,
    ForkOp,
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

Ints = NDArray[np.int64]

#: files of /sys/kernel/mm/ksm that every kernel has and that no engine keeps: steps stand for them
_DRIVE_KSMD = ("run", "pages_to_scan", "sleep_millisecs")


@dataclass(frozen=True, slots=True)
class ScriptTopology:
    """The machine a scenario runs on, as far as a scenario can tell."""

    nodes: int = 1
    swap: bool = False
    cpus: int = 1


def run(
    scenario: Script,
    engine: Engine,
    topology: ScriptTopology,
    *,
    name: str,
    kernel: str,
    after_record: Callable[[str], None] = lambda label: None,
) -> Json:
    """Run a scenario from the start on a fresh engine; the document of its records.

    `after_record` is told the label of each record when it has been written down.

    Raises ScriptError where the script does what would kill a real process.
    """
    runner = _Runner(engine, topology, after_record)
    skipped = None
    for op in scenario.ops:
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
        "text": scenario.text,
        "events": runner.events,
        "knobs": dict(engine.knobs()),
        "records": runner.records,
    }
    if skipped:
        document["skipped"] = skipped
    return document


@dataclass(frozen=True, slots=True)
class _Frames:
    """What every page maps, by ascending slot: the pages of ended processes are not there."""

    slot: Ints
    frame: Ints
    kind: Ints

    def labels(self) -> Ints:
        """Number frames by first appearance; what is no frame keeps its negative mark."""
        labels = self.frame.copy()
        present = self.frame > NO_FRAME
        _, first, inverse = np.unique(self.frame[present], return_index=True, return_inverse=True)
        order = np.empty(len(first), dtype=np.int64)
        order[np.argsort(first)] = np.arange(len(first))
        labels[present] = order[inverse]
        return labels


class _Runner:
    """One run: the engine, the slots handed out, and what was written down so far."""

    def __init__(self, engine: Engine, topology: ScriptTopology, after_record: Callable[[str], None]) -> None:
        self._engine = engine
        self._topology = topology
        self._after_record = after_record
        self.events: list[Json] = []
        self.records: list[Json] = []
        self._slots = 0
        #: first slot of each region, by process
        self._slot0: dict[str, dict[str, int]] = {}
        self._pages: dict[tuple[str, str], int] = {}
        #: the present, as long as nothing has happened since it was seen
        self._seen: _Frames | None = None

    def unmet(self, op: RequireOp) -> str | None:
        """What a requirement misses, if anything."""
        files = (*_DRIVE_KSMD, *self._engine.knobs(), *self._engine.view().sysfs)
        met = {
            "nodes": self._topology.nodes >= op.nodes,
            "swap": self._topology.swap,
            "knob": op.knob in files,
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
        self._seen = None
        self._event_of_failure(op, "map", self._engine.map(op.p, op.r, op.pages, op.node))
        self._hand_out_slots(op.p, op.r, op.pages)

    @do.register
    def _(self, op: FillOp) -> None:
        self._seen = None
        chosen = selected(op.pattern, op.count)
        pages = np.flatnonzero(chosen) + op.start
        self._engine.fill(op.p, op.r, pages, pattern_ids(op.pattern, op.count)[chosen])

    @do.register
    def _(self, op: RangeOp) -> None:
        self._seen = None
        if op.action == "read":
            self._engine.read(op.p, op.r, op.start, op.count)
            return
        calls: dict[str, Callable[[str, str, int, int], str]] = {
            "mergeable": self._engine.mergeable,
            "unmergeable": self._engine.unmergeable,
            "unmap": self._engine.unmap,
            "dontneed": self._engine.dontneed,
            "pageout": self._engine.pageout,
        }
        self._event_of_failure(op, op.action, calls[op.action](op.p, op.r, op.start, op.count))

    @do.register
    def _(self, op: MoveOp) -> None:
        self._seen = None
        self._event(op, "move", self._engine.move(op.p, op.r, op.start, op.count, op.node), "")

    @do.register
    def _(self, op: ForkOp) -> None:
        self._seen = None
        self._engine.fork(op.p, op.q)
        self._slot0[op.q] = {}
        for r in self._slot0[op.p]:
            self._hand_out_slots(op.q, r, self._pages[op.p, r])

    @do.register
    def _(self, op: ExitOp) -> None:
        self._seen = None
        self._engine.exit(op.p)
        del self._slot0[op.p]

    @do.register
    def _(self, op: MergeAnyOp) -> None:
        self._seen = None
        error = self._engine.merge_any(op.p)
        self._event(op, "merge_any", -1 if error else 0, error)

    @do.register
    def _(self, op: UnmergeAllOp) -> None:
        self._seen = None
        self._engine.unmerge_all()

    @do.register
    def _(self, op: ScanOp) -> None:
        for k in range(op.times):
            before = self._look_before()
            if not self._engine.scan():
                self._event(op, "noscan", 0, "")
            label = f"scan@{op.line}.{k + 1}" if op.times > 1 else f"scan@{op.line}"
            self._record(op, label, before)

    @do.register
    def _(self, op: BatchOp) -> None:
        before = self._look_before()
        self._engine.batch(op.pages)
        self._record(op, f"batch@{op.line}", before)

    @do.register
    def _(self, op: RecordOp) -> None:
        self._record(op, op.label, None)

    def _hand_out_slots(self, p: str, r: str, pages: int) -> None:
        self._slot0[p][r] = self._slots
        self._pages[p, r] = pages
        self._slots += pages

    def _event(self, op: Operation, what: str, ret: int, error: str) -> None:
        self.events.append({"line": op.line, "what": what, "ret": ret, "err": error})

    def _event_of_failure(self, op: Operation, what: str, error: str) -> None:
        if error:
            self._event(op, what, -1, error)

    def _look_before(self) -> _Frames:
        if self._seen is None:
            self._seen = self._frames(self._engine.view())
        return self._seen

    def _record(self, op: Operation, label: str, before: _Frames | None) -> None:
        """Write down the present, and if `before` is given which frames became KSM pages since."""
        snapshot = self._engine.view()
        now = self._frames(snapshot)
        self._seen = now
        labels = now.labels()
        record: Json = {
            "label": label,
            "line": op.line,
            "op": op.text,
            "sysfs": dict(snapshot.sysfs),
            "vmstat": dict(snapshot.vmstat),
            "procs": {name: dict(stats) for name, stats in snapshot.procs.items()},
        }
        if before is not None and self._slots:
            record["new_ksm"] = _new_ksm(before, now, labels)
        record["regions"] = self._regions(
            snapshot, dict(zip(now.slot.tolist(), labels.tolist(), strict=True))
        )
        self.records.append(record)
        self._after_record(label)

    def _regions(self, snapshot: MachineView, labels: dict[int, int]) -> list[Json]:
        regions = []
        for view in snapshot.regions:
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
            if self._topology.nodes > 1:
                region["node"] = rle(view.node.tolist())
            regions.append(region)
        return regions

    def _frames(self, snapshot: MachineView) -> _Frames:
        views = sorted(snapshot.regions, key=lambda view: self._slot0[view.p][view.r])
        none = np.empty(0, dtype=np.int64)
        slots = [np.arange(len(view.frame)) + self._slot0[view.p][view.r] for view in views]
        return _Frames(
            slot=np.concatenate([none, *slots]),
            frame=np.concatenate([none, *(view.frame for view in views)]),
            kind=np.concatenate([none, *(view.kind for view in views)]),
        )


def _new_ksm(before: _Frames, now: _Frames, labels: Ints) -> Json:
    """The frames that are KSM pages now and were not before, and which slot mapped each before."""
    first_before = _first_of_each(before.frame)
    new_labels, of_slots = [], []
    for frame, at in _first_of_each(np.where(now.kind == KSM, now.frame, NO_FRAME)).items():
        was = first_before.get(frame)
        if was is None or before.kind[was] != KSM:
            new_labels.append(int(labels[at]))
            of_slots.append(-1 if was is None else int(before.slot[was]))
    return {"label": rle(new_labels), "frame_of_slot": rle(of_slots)}


def _first_of_each(frames: Ints) -> dict[int, int]:
    """Where each frame appears first, in the order of appearance."""
    firsts: dict[int, int] = {}
    for at, frame in enumerate(frames.tolist()):
        if frame > NO_FRAME:
            firsts.setdefault(frame, at)
    return firsts
