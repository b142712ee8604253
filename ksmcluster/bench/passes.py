"""Benchmark of ksmd's passes over memory that does not change, in this process, beside the real ksmd."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

import numpy as np

from cluster.machine.pass_result import PassResult
from cluster.spec.content import page_bytes
from cluster.spec.digest import digest_pages
from ksmcluster.bench.ksmd import KsmdPasses, ksmd_passes
from ksmcluster.bench.tools.calibration import calibrated
from ksmcluster.bench.tools.clocked import clocked
from ksmcluster.bench.tools.shapes import GROUP, grouped
from ksmcluster.report.progress import Tell
from ksmcluster.system.errors import UserError

#: 16 processes have equally many pages, and half of these are in groups.
PAGES_MULTIPLE = 2 * GROUP
CONTENTS = ("symbolic", "bytes")
PHASES = ("first", "merging", "steady")
#: Number of steady passes, simulated and real; their mean counts.
_STEADY, _KSMD_STEADY = 20, 3
_PAGES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Passes:
    """One run: CPU seconds of the start and of each phase, and the modelled CPU seconds of ksmd."""

    fill: float
    seconds: dict[str, float]
    modelled: dict[str, float]
    #: pages_shared and pages_sharing at the end.
    merged: tuple[int, int]


@dataclass(slots=True)
class PassRuns:
    """All repetitions."""

    pages: int
    simulated: dict[str, list[Passes]] = field(default_factory=lambda: {name: [] for name in CONTENTS})
    #: Seconds of a calibration loop, one per run.
    calibrations: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CONTENTS})
    #: CPU seconds to hash the contents, measured separately: a run hashes them when it fills memory.
    hashing: list[float] = field(default_factory=list)
    real: list[KsmdPasses] = field(default_factory=list)


def measure_passes(pages: int, repeat: int, *, with_ksmd: bool, tell: Tell) -> PassRuns:
    """Time passes over `pages` pages on one node; `with_ksmd` also times the host's ksmd on real pages.

    Raises UserError if `pages` is not a multiple of PAGES_MULTIPLE, or if the host's ksmd is not available.
    """
    if pages < PAGES_MULTIPLE or pages % PAGES_MULTIPLE:
        raise UserError(f"--pages {pages}: give a multiple of {PAGES_MULTIPLE}")
    runs = PassRuns(pages)
    for number in range(1, repeat + 1):
        if with_ksmd:
            tell(f"{number} of {repeat}: this host's ksmd")
            runs.real.append(ksmd_passes(pages, _KSMD_STEADY))
        runs.hashing.append(_hashing(pages))
        for content in CONTENTS:
            tell(f"{number} of {repeat}: {content}")
            passes, loop = calibrated(partial(simulated, pages, content), time.process_time)
            runs.simulated[content].append(passes)
            runs.calibrations[content].append(loop)
    _check_equal(runs)
    return runs


def simulated(pages: int, content: str) -> Passes:
    """Run the simulation once."""
    run = clocked(grouped(pages, content, passes=2 + _STEADY), time.process_time)
    last = run.results[-1].nodes
    return Passes(
        fill=run.start,
        seconds=_by_phase(run.seconds),
        modelled=_by_phase([_modelled(result) for result in run.results]),
        merged=(int(last["pages_shared"].sum()), int(last["pages_sharing"].sum())),
    )


def _hashing(pages: int) -> float:
    """Return the CPU seconds to hash each content once: half of the pages, and one page of each group."""
    ids = np.arange(1, pages // 2 + pages // PAGES_MULTIPLE + 1, dtype=np.uint64)
    seconds = 0.0
    for at in range(0, len(ids), _PAGES_AT_ONCE):
        contents = page_bytes(ids[at : at + _PAGES_AT_ONCE])
        start = time.process_time()
        digest_pages(contents)
        seconds += time.process_time() - start
    return seconds


def _modelled(result: PassResult) -> float:
    return float(result.nodes["ksmd_cpu_ns"].sum()) * 1e-9


def _by_phase(passes: list[float]) -> dict[str, float]:
    first, merging, *steady = passes
    return dict(zip(PHASES, (first, merging, fmean(steady)), strict=True))


def _check_equal(runs: PassRuns) -> None:
    """Raise UserError if ksmd's work differs from the simulation, so that rates cannot be compared."""
    found = {passes.merged for of_content in runs.simulated.values() for passes in of_content}
    found |= {real.merged for real in runs.real}
    if len(found) > 1:
        raise UserError(f"pages_shared and pages_sharing differ: {sorted(found)}; do others use KSM?")
