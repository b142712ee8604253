"""Combines ksmd's work on a program, from the simulation, with its CPU time, from the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from cluster.machine.cost import Columns
from cluster.machine.fabric import InlineFabric
from cluster.machine.replay.script_engine import ScriptEngine, spec_for
from cluster.spec.profile import Profile
from ksmcluster.system.errors import UserError
from ksmcluster.validate import procfs
from ksmcluster.validate.calibrate.programs import HUGE, Program
from ksmcluster.validate.children import Children
from ksmcluster.validate.host import HostMachine
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import Ksmd

_KNOBS = {"advisor_mode": "none", "merge_across_nodes": 1, "use_zero_pages": 0, "max_page_sharing": 256}
_SPLITS, _HUGE_CHECKSUMS = "thp_split_page", "huge_checksums"
#: The field of /proc/vmstat with the number of huge pages of programs.
_HUGE_PAGES = "nr_anon_transparent_hugepages"
_ADVICE_HUGE = 14
#: The last wake-up of a pass only parks ksmd: it scans nothing.
_TO_PARK = 1
_PROCESSES = 4
#: ksmd's default sleep, and the interval of checks whether a pass is over, in seconds.
_SLEEP_MILLISECS = 20
_NAP = 0.001
#: Bytes written before each step, so that caches are as cold as after a sleep.
_BALLAST = 64 << 20


class Work(NamedTuple):
    """One step of ksmd: its name, and the statistics of one node before and after it."""

    name: str
    old: Columns
    new: Columns


class Sample(NamedTuple):
    """The host's measurements of one step of ksmd."""

    cpu_seconds: float
    wakeups: int
    pages: int
    splits: int
    #: Huge pages before the step; unlike the others, not what the step adds.
    huge_pages: int


class Measurement(NamedTuple):
    """Some work, and its time in each repetition."""

    work: Work
    wakeups: float
    cpu_seconds: tuple[float, ...]


class _CountingEngine(ScriptEngine):
    """Records the work of each scan."""

    def __init__(self, profile: Profile) -> None:
        spec = spec_for(profile, 1, tree_shape=False)
        super().__init__(profile, fabric=InlineFabric(spec, {}))
        self.scans: list[tuple[Columns, Columns]] = []

    def scan(self) -> bool:
        before = self._machine.collect()
        ended = super().scan()
        self.scans.append((before, self._machine.collect()))
        return ended


class _TimedKsmd(Ksmd):
    """Records the time of each step."""

    def __init__(self, knobs: Knobs, pages_to_scan: int) -> None:
        """ksmd sleeps after `pages_to_scan` pages; with 0 it does not sleep."""
        super().__init__(knobs)
        self.samples: list[Sample] = []
        self._pages_to_scan = pages_to_scan
        self._ballast = np.ones(_BALLAST // 8, np.int64)
        self._huge_pages_of_others = self._seen().huge_pages

    def step(self, pages: int) -> None:
        self._ballast += 1
        before = self._seen()
        if self._pages_to_scan:
            self._pass_with_sleeps()
        else:
            super().step(pages)
        huge_pages = before.huge_pages - self._huge_pages_of_others
        added = Sample(*np.subtract(self._seen(), before).tolist())
        self.samples.append(added._replace(huge_pages=huge_pages))

    def _pass_with_sleeps(self) -> None:
        self.drain()
        scans = self._knobs.number("full_scans")
        self.run_until(
            lambda: self._knobs.number("full_scans") > scans, self._pages_to_scan, _SLEEP_MILLISECS, _NAP
        )

    def _seen(self) -> Sample:
        found = procfs.vmstat((_SPLITS, _HUGE_PAGES))
        pages = self._knobs.number("pages_scanned")
        return Sample(
            self.cpu_seconds(), self.wakeups(), pages, found.get(_SPLITS, 0), found.get(_HUGE_PAGES, 0)
        )


class _HugeMachine(HostMachine):
    """Uses huge pages wherever they fit."""

    def map(self, p: str, r: str, pages: int, node: int | None) -> str:
        return super().map(p, r, pages, node) or self._on_range("advise", p, r, 0, pages, _ADVICE_HUGE)


def simulated(program: Program, profile: Profile) -> list[Work]:
    """Run a program on the simulator; return ksmd's work in each step."""
    engine = _CountingEngine(profile)
    engine.set_knob("smart_scan", str(program.smart_scan))
    program.run(engine)
    return [Work(f"{program.name}, pass {i}", *scan) for i, scan in enumerate(engine.scans, 1)]


def measured(program: Program, profile: Profile, knobs: Knobs) -> list[Sample]:
    """Run a program on the host; return the measurements of each step. Leaves the knobs changed."""
    for name, value in (_KNOBS | {"smart_scan": program.smart_scan}).items():
        if knobs.exists(name):
            knobs.must_set(name, value)
    ksmd = _TimedKsmd(knobs, program.pages_to_scan)
    with Children(_PROCESSES) as children:
        machine = (_HugeMachine if program.huge else HostMachine)(profile, knobs, ksmd, children)
        program.run(machine)
        knobs.forget_all()
    return ksmd.samples


def joined(works: Iterable[Work], repetitions: Iterable[Iterable[Sample]]) -> Iterator[Measurement]:
    """Combine the work of each step with its samples from all repetitions.

    If ksmd continued after a pass before it was stopped, the samples of this pass and the next are dropped.
    Raises UserError if ksmd visited a different number of pages than simulated in all repetitions.
    """
    for work, *samples in zip(works, *repetitions, strict=True):
        visits = int((work.new["pages_scanned"] - work.old["pages_scanned"]).sum())
        good = [sample for sample in samples if sample.pages == visits]
        if not good:
            raise UserError(
                f"ksmd visited {samples[0].pages:.0f} pages, not {visits}: does another program use KSM?"
            )
        wakeups, splits, huge_pages = (
            float(np.median([getattr(s, name) for s in good])) for name in ("wakeups", "splits", "huge_pages")
        )
        cpu_seconds = tuple(sample.cpu_seconds for sample in good)
        yield Measurement(_on_host(work, splits, huge_pages), max(wakeups - _TO_PARK, 1), cpu_seconds)


def _on_host(work: Work, splits: float, huge_pages: float) -> Work:
    """Return the work as it was with the host's huge pages, of which the simulation has none.

    All pages, scanned or not, are equally often in huge pages.
    """
    in_huge = min(huge_pages * HUGE / work.old["pages_mapped"].sum(), 1)
    checksums = (work.new["checksums"] - work.old["checksums"]) * in_huge
    done = {_SPLITS: np.array([round(splits)]), _HUGE_CHECKSUMS: checksums.round().astype(np.int64)}
    none = dict.fromkeys(done, np.zeros(1, np.int64))
    return work._replace(old=work.old | none, new=work.new | done)
