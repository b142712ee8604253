"""What ksmd did to a program, from the simulation, and the CPU time that it took, from the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from cluster.machine.cost import Columns
from cluster.machine.fabric import InlineFabric
from cluster.machine.script_engine import ScriptEngine, spec_for
from cluster.spec.profile import Profile
from ksmcluster.system.errors import UserError
from ksmcluster.validate import procfs
from ksmcluster.validate.calibrate.programs import Program
from ksmcluster.validate.children import Children
from ksmcluster.validate.host import HostMachine
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import Ksmd

_KNOBS = {"advisor_mode": "none", "use_zero_pages": 0, "max_page_sharing": 256}
_SPLITS = "thp_split_page"
_ADVICE_HUGE = 14
_PROCESSES = 4
#: An idle ksmd: how often it wakes up, for how long it sleeps, and how often to look, in seconds.
_IDLE_WAKEUPS = 50
_IDLE_MILLISECS = 20
_IDLE_NAP = 0.01
#: Bytes that are written before each step, so that the pages of small programs are not in the cache.
_BALLAST = 64 << 20


class Work(NamedTuple):
    """The statistics of one node before and after ksmd did something, and what to call it."""

    name: str
    old: Columns
    new: Columns


class Sample(NamedTuple):
    """What the host tells of one step of ksmd."""

    cpu_seconds: float
    wakeups: int
    pages: int
    splits: int


class Measurement(NamedTuple):
    """Some work, and how long it took in each repetition."""

    work: Work
    wakeups: float
    cpu_seconds: tuple[float, ...]


class _CountingEngine(ScriptEngine):
    """Notes what each scan does."""

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
    """Notes how long each step takes."""

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self.samples: list[Sample] = []
        self._ballast = np.zeros(_BALLAST // 8, np.int64)

    def step(self, pages: int) -> None:
        self._ballast += 1
        before = self._seen()
        super().step(pages)
        self._note(before)

    def idle(self) -> None:
        """Wake up many times, for a page each."""
        before, begin = self._seen(), self.wakeups()
        self.run_until(lambda: self.wakeups() - begin >= _IDLE_WAKEUPS, 1, _IDLE_MILLISECS, _IDLE_NAP)
        self._note(before)

    def _seen(self) -> Sample:
        splits = procfs.vmstat((_SPLITS,)).get(_SPLITS, 0)
        return Sample(self.cpu_seconds(), self.wakeups(), self._knobs.number("pages_scanned"), splits)

    def _note(self, before: Sample) -> None:
        self.samples.append(Sample(*np.subtract(self._seen(), before).tolist()))


class _HugeMachine(HostMachine):
    """Has huge pages wherever they fit."""

    def map(self, p: str, r: str, pages: int, node: int | None) -> str:
        return super().map(p, r, pages, node) or self._on_range("advise", p, r, 0, pages, _ADVICE_HUGE)


def simulated(program: Program, profile: Profile) -> list[Work]:
    """Run a program on the simulator; return what ksmd does in each step."""
    engine = _CountingEngine(profile)
    engine.set_knob("smart_scan", str(program.smart_scan))
    program.run(engine)
    works = [Work(f"{program.name}, pass {i}", *scan) for i, scan in enumerate(engine.scans, 1)]
    if program.idle:
        _, last = engine.scans[-1]
        works.append(Work(program.name, last, last))
    return works


def measured(program: Program, profile: Profile, knobs: Knobs) -> list[Sample]:
    """Run a program on the host; return what it tells of each step. Leaves the knobs changed."""
    for name, value in (_KNOBS | {"smart_scan": program.smart_scan}).items():
        if knobs.exists(name):
            knobs.must_set(name, value)
    ksmd = _TimedKsmd(knobs)
    with Children(_PROCESSES) as children:
        machine = (_HugeMachine if program.huge else HostMachine)(profile, knobs, ksmd, children)
        program.run(machine)
        if program.idle:
            ksmd.idle()
        knobs.forget_all()
    return ksmd.samples


def joined(works: Iterable[Work], repetitions: Iterable[Iterable[Sample]]) -> Iterator[Measurement]:
    """Put the samples of all repetitions beside the work that they are of.

    Raises UserError if ksmd visited other pages than was simulated.
    """
    for work, *samples in zip(works, *repetitions, strict=True):
        visits = int((work.new["pages_scanned"] - work.old["pages_scanned"]).sum())
        of_others = {sample.pages for sample in samples} - {visits}
        idle = work.old is work.new
        if of_others and not idle:
            raise UserError(f"ksmd visited {of_others.pop()} pages, not {visits}: is KSM used by others?")
        wakeups, pages, splits = (
            float(np.median([getattr(sample, name) for sample in samples]))
            for name in ("wakeups", "pages", "splits")
        )
        more = {_SPLITS: splits} | ({"pages_scanned": pages} if idle else {})
        yield Measurement(_more(work, more), wakeups, tuple(sample.cpu_seconds for sample in samples))


def _more(work: Work, counts: dict[str, float]) -> Work:
    """Return work with other counts, as the host has them."""
    zero = {name: np.zeros(1, np.int64) for name in counts}
    done = {name: np.array([round(count)]) for name, count in counts.items()}
    return work._replace(old=work.old | zero, new=work.new | done)
