"""Workers that processes of a scenario fork, and writes of what a page holds, against the exact engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from cluster.arrays.words import I64, U64
from cluster.exact import ExactEngine
from cluster.machine.fabric import InlineFabric
from cluster.machine.replay.script_engine import ScriptEngine
from cluster.machine.simulation import Simulation
from cluster.script.record import compare
from cluster.script.runner import ScriptTopology
from cluster.spec.keyed import content_ids
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    ProcessSpec,
    RegionSpec,
    Rewrite,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import ring
from tests.cluster.machine.engines import exact, play
from tests.cluster.machine.scripts import Script, mid_pass_scripts, scripts

COUNTERS = (
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "pages_scanned",
    "pages_skipped",
    "ksm_zero_pages",
    "rmap_items",
    "cow_ksm",
    "stable_node_chains",
    "stable_node_dups",
)
PASSES = 7
PAGES = 24
#: So many writes a second that every page of the hot part is written between any two passes.
ALWAYS = 1e9


def spec_of(kernel: str, knobs: dict[str, int], processes: tuple[ProcessSpec, ...]) -> SimulationSpec:
    machine = MachineSpec(1, 1 << 12, ring(1))
    return SimulationSpec(
        machine, KsmSpec(kernel=kernel, **knobs), processes, passes=PASSES, windows_per_pass=1
    )


def simulated(spec: SimulationSpec) -> list[dict[str, int]]:
    """Every counter after each pass, counted from the start of the pass where the simulator does."""
    simulation = Simulation(InlineFabric(spec, {}), spec, None)
    results = [simulation.run_pass() for _ in range(spec.passes)]
    return [{name: int(result.nodes[name].sum()) for name in COUNTERS} for result in results]


def replayed(
    engine: ExactEngine, writes: list[tuple[str, str, I64, U64]], passes: int
) -> list[dict[str, int]]:
    """The counters that the kernel has, of a machine with these writes after each pass and before others."""
    seen = []
    before = dict.fromkeys(("pages_scanned", "pages_skipped", "cow_ksm"), 0)
    for number in range(passes):
        for write in writes if number else ():
            engine.fill(*write)
        engine.scan()
        for write in writes:
            engine.fill(*write)
        view = engine.view()
        counts = {**view.sysfs, **view.vmstat}
        counts["rmap_items"] = sum(int(of["ksm_rmap_items"]) for of in view.procs.values())
        seen.append({name: int(counts[name]) - before.get(name, 0) for name in COUNTERS if name in counts})
        before = {name: int(counts.get(name, 0)) for name in before}
    return seen


def family(engine: ExactEngine, count: int, workers: int, regions: tuple[RegionSpec, ...]) -> None:
    """Start the processes of a kind, each followed by the workers that it forks."""
    for process in range(count):
        name = f"P{process}"
        engine.proc(name)
        for region in regions:
            engine.map(name, region.name, region.pages, None)
            if region.mergeable:
                engine.mergeable(name, region.name, 0, region.pages)
            engine.fill(name, region.name, np.arange(region.pages), held(region, process))
        for worker in range(workers):
            engine.fork(name, f"{name}.{worker + 1}")
        for pinning in [name, *(f"{name}.{worker + 1}" for worker in range(workers))]:
            for region in regions:
                if region.pinned:
                    engine.pin(pinning, region.name, 0, region.pages)


def held(region: RegionSpec, process: int) -> U64:
    """Contents at the start, equal where those of the simulator are."""
    numbers = np.arange(region.pages, dtype=np.uint64)
    match region.model:
        case ContentModel.ZERO:
            return np.zeros(region.pages, np.uint64)
        case ContentModel.REPLICATED:
            return content_ids("all", region.name, numbers=numbers)
        case _:
            return content_ids(process, region.name, numbers=numbers // np.uint64(region.copies))


REGIONS = (
    RegionSpec("own", PAGES, ContentModel.UNIQUE),
    RegionSpec("pairs", PAGES, ContentModel.UNIQUE, copies=3),
    RegionSpec("zeros", 5, ContentModel.ZERO),
    RegionSpec("lib", PAGES, ContentModel.REPLICATED),
    RegionSpec("buffers", 7, ContentModel.UNIQUE, copies=3, pinned=True),
    RegionSpec("table", 5, ContentModel.REPLICATED, pinned=True),
    RegionSpec("secret", 4, ContentModel.REPLICATED, mergeable=False),
)
SETTINGS = [
    ("6.18", {"smart_scan": 0, "max_page_sharing": 256}),
    ("6.18", {"smart_scan": 1, "max_page_sharing": 3, "use_zero_pages": 1}),
    ("6.12", {"smart_scan": 1, "max_page_sharing": 2}),
    ("6.1", {"smart_scan": 0, "max_page_sharing": 4}),
]


@pytest.mark.parametrize("same", [False, True], ids=["no-writes", "same"])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("kernel", "knobs"), SETTINGS)
def test_workers_are_forked_processes(kernel: str, knobs: dict[str, int], workers: int, same: bool) -> None:
    writes = (WriteSpec(ALWAYS, 0.5, content=Rewrite.SAME),) if same else ()
    regions = tuple(replace(region, writes=writes) for region in REGIONS)
    ours = simulated(spec_of(kernel, knobs, (ProcessSpec("pool", 2, regions, workers=workers),)))
    engine = ExactEngine(PROFILES[kernel])
    for knob, value in knobs.items():
        engine.set_knob(knob, str(value))
    family(engine, 2, workers, REGIONS)
    rewritten = []
    for process in range(2):
        for name in [f"P{process}", *(f"P{process}.{worker + 1}" for worker in range(workers))]:
            for region in REGIONS if same else ():
                hot = np.arange(max(1, round(region.pages / 2)))
                rewritten.append((name, region.name, hot, held(region, process)[hot]))
    theirs = replayed(engine, rewritten, PASSES)
    assert [{name: of_pass[name] for name in theirs[0]} for of_pass in ours] == theirs


def test_forked_pages_alone_do_not_merge() -> None:
    """Equal entries of one frame are no equal pages: only the parent's wait in the unstable tree."""
    kind = ProcessSpec("pool", 1, (RegionSpec("heap", 2048, ContentModel.UNIQUE),), workers=2)
    last = simulated(spec_of("6.18", {"smart_scan": 0}, (kind,)))[-1]
    counts = {name: last[name] for name in COUNTERS[:4]}
    assert counts == {"pages_shared": 0, "pages_sharing": 0, "pages_unshared": 2048, "pages_volatile": 4096}


def test_what_workers_write_is_their_own() -> None:
    """Each writer leaves contents that nobody else has, so nothing merges and every page has a frame."""
    write = WriteSpec(ALWAYS, 0.5)
    kind = ProcessSpec("pool", 2, (RegionSpec("heap", 100, ContentModel.UNIQUE, writes=(write,)),), workers=3)
    spec = spec_of("6.18", {"smart_scan": 0}, (kind,))
    fabric = InlineFabric(spec, {})
    simulation = Simulation(fabric, spec, None)
    last = [simulation.run_pass() for _ in range(3)][-1]
    assert last.nodes["pages_sharing"].sum() == 0
    # The unwritten half of a parent and its three workers has one frame a page.
    assert last.nodes["frames_used"].sum() == 2 * (50 + 4 * 50)
    node = fabric.host.nodes[0].state
    contents = node.frames.content[node.frames.in_use()]
    assert len(np.unique(contents)) == len(contents)


class WritesSame(ScriptEngine):
    """Writes None where a script fills pages with what they hold."""

    def __init__(self, kernel: str, topology: ScriptTopology) -> None:
        super().__init__(PROFILES[kernel], topology.nodes, swap=topology.swap)
        self._held: dict[tuple[str, str, int], int] = {}

    def fill(self, p: str, r: str, pages: I64, contents: U64) -> str:
        region, usable = self._checked(p, r, pages)
        error = "" if usable == len(pages) else "EFAULT"
        pages, contents = pages[:usable], contents[:usable]
        names = [(p, r, page) for page in pages.tolist()]
        same = np.array([self._held.get(name, 0) for name in names], np.uint64) == contents
        mm = self._processes[p].mm
        self._machine.write(mm, region.start + pages[same], None)
        self._machine.write(mm, region.start + pages[~same], contents[~same])
        self._held.update(zip(names, contents.tolist(), strict=True))
        return error

    def fork(self, p: str, q: str) -> None:
        super().fork(p, q)
        inherited = {(q, r, page): held for (of, r, page), held in self._held.items() if of == p}
        self._held.update(inherited)

    def dontneed(self, p: str, r: str, start: int, count: int) -> str:
        for page in range(start, start + count):
            self._held.pop((p, r, page), None)
        return super().dontneed(p, r, start, count)


@settings(max_examples=150, deadline=None)
@given(scripts() | mid_pass_scripts())
def test_writing_what_a_page_holds_is_writing_the_same_content(script: Script) -> None:
    theirs = play(script.text, exact(script.kernel, script.topology), script.topology)
    ours = play(script.text, WritesSame(script.kernel, script.topology), script.topology)
    assert compare(ours, theirs) is None
