"""Passes of ksmd over memory that stands still, in this process: CPU time of each, against ksmd's own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np
from rich.table import Table

from actors.engine import run_passes
from cluster.content import page_bytes
from cluster.results import PassResult
from ksmcluster.bench.calibration import UNIT, calibrated
from ksmcluster.bench.ksmd import KsmdPasses, ksmd_passes
from ksmcluster.bench.measure import Measure, Outcome, spread
from ksmcluster.bench.shapes import GROUP, grouped
from ksmcluster.errors import UserError
from ksmcluster.progress import Tell
from ksmcluster.report import plain_table

#: Half of the pages for each of the 16 processes, and half of those in groups.
PAGES_MULTIPLE = 2 * GROUP
CONTENTS = ("symbolic", "bytes")
PHASES = ("first", "merging", "steady")
#: Passes in which nothing changes that are measured, simulated and real; their mean counts.
_STEADY, _KSMD_STEADY = 20, 3
_PAGES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Passes:
    """One run: CPU seconds of the start and of each phase, and the simulated ones of ksmd."""

    fill: float
    seconds: dict[str, float]
    modelled: dict[str, float]
    #: pages_shared and pages_sharing at the end.
    merged: tuple[int, int]


@dataclass(slots=True)
class _Runs:
    """All repetitions."""

    simulated: dict[str, list[Passes]] = field(default_factory=lambda: {name: [] for name in CONTENTS})
    #: Seconds of a calibration loop beside each of them.
    calibrations: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CONTENTS})
    #: CPU seconds to make the bytes of as many contents.
    made: list[float] = field(default_factory=list)
    real: list[KsmdPasses] = field(default_factory=list)


def bench_passes(pages: int, repeat: int, *, with_ksmd: bool, tell: Tell) -> Outcome:
    """`pages` pages on one node; with the host's ksmd on as many real ones, if that is wanted.

    Raises UserError if the number is no multiple of PAGES_MULTIPLE, or the host's ksmd cannot be had.
    """
    if pages < PAGES_MULTIPLE or pages % PAGES_MULTIPLE:
        raise UserError(f"--pages {pages}: give a multiple of {PAGES_MULTIPLE}")
    runs = _Runs()
    for number in range(1, repeat + 1):
        if with_ksmd:
            tell(f"{number} of {repeat}: this host's ksmd")
            runs.real.append(ksmd_passes(pages, _KSMD_STEADY))
        runs.made.append(_making(pages))
        for content in CONTENTS:
            tell(f"{number} of {repeat}: {content}")
            passes, loop = calibrated(lambda content=content: simulated(pages, content), time.process_time)  # type: ignore[misc]
            runs.simulated[content].append(passes)
            runs.calibrations[content].append(loop)
    _check_equal(runs)
    return Outcome(
        (*_rates(pages, runs), *_against_ksmd(pages, runs)),
        (
            (
                f"{pages:,} pages, half unique, half in groups of {GROUP}; {_repeated(repeat)}",
                _table(pages, runs),
            ),
        ),
    )


def simulated(pages: int, content: str) -> Passes:
    """Run it once."""
    marks = [time.process_time()]
    spec = grouped(pages, content, passes=2 + _STEADY)
    results = list(run_passes(spec, engine="inline", on_event=lambda _: marks.append(time.process_time())))
    seconds = [done - begun for begun, done in zip(marks[1::2], marks[2::2], strict=True)]
    last = results[-1].nodes
    return Passes(
        fill=marks[1] - marks[0],
        seconds=_by_phase(seconds),
        modelled=_by_phase([_modelled(result) for result in results]),
        merged=(int(last["pages_shared"].sum()), int(last["pages_sharing"].sum())),
    )


def _making(pages: int) -> float:
    """CPU seconds for the bytes of all contents: half of the pages, and one page of each group."""
    ids = np.arange(1, pages // 2 + pages // PAGES_MULTIPLE + 1, dtype=np.uint64)
    start = time.process_time()
    for at in range(0, len(ids), _PAGES_AT_ONCE):
        page_bytes(ids[at : at + _PAGES_AT_ONCE])
    return time.process_time() - start


def _modelled(result: PassResult) -> float:
    return float(result.nodes["ksmd_cpu_ns"].sum()) * 1e-9


def _by_phase(passes: list[float]) -> dict[str, float]:
    first, merging, *steady = passes
    return dict(zip(PHASES, (first, merging, fmean(steady)), strict=True))


def _check_equal(runs: _Runs) -> None:
    """Raises UserError if ksmd did other work than was simulated: then rates cannot be compared."""
    found = {passes.merged for of_content in runs.simulated.values() for passes in of_content}
    found |= {real.merged for real in runs.real}
    if len(found) > 1:
        raise UserError(f"pages_shared and pages_sharing differ: {sorted(found)}; is KSM used by others?")


def _rates(pages: int, runs: _Runs) -> list[Measure]:
    return [
        Measure(
            f"pass, {pages} pages: {content}, {phase}",
            UNIT,
            tuple(
                pages / passes.seconds[phase] * loop
                for passes, loop in zip(runs.simulated[content], runs.calibrations[content], strict=True)
            ),
            f"{pages / _median(runs.simulated[content], phase):,.0f} pages a second of CPU",
        )
        for content in CONTENTS
        for phase in PHASES
    ]


def _against_ksmd(pages: int, runs: _Runs) -> list[Measure]:
    """CPU time of the host's ksmd in the same repetition, divided by ours."""
    if not runs.real:
        return []
    measures = []
    for content in CONTENTS:
        pairs = list(zip(runs.real, runs.simulated[content], strict=True))
        name = f"pass, {pages} pages: {content}"
        measures += [
            Measure(
                f"{name}, {phase}, against ksmd",
                "x",
                tuple(k.seconds[phase] / p.seconds[phase] for k, p in pairs),
            )
            for phase in PHASES
        ]
        sums = tuple(sum(k.seconds.values()) / sum(p.seconds.values()) for k, p in pairs)
        measures.append(Measure(f"{name}, all three, against ksmd", "x", sums))
    measures.append(_with_hashing(pages, runs))
    return measures


def _with_hashing(pages: int, runs: _Runs) -> Measure:
    """Pages may be hashed when memory is filled, which counts here; to make their bytes does not."""
    hashing = (
        max(passes.fill - without.fill - made, 0.0)
        for passes, without, made in zip(
            runs.simulated["bytes"], runs.simulated["symbolic"], runs.made, strict=True
        )
    )
    values = tuple(
        sum(real.seconds.values()) / (sum(passes.seconds.values()) + hashed)
        for real, passes, hashed in zip(runs.real, runs.simulated["bytes"], hashing, strict=True)
    )
    return Measure(f"pass, {pages} pages: bytes, all three and hashing, against ksmd", "x", values)


def _median(runs: list[Passes], phase: str) -> float:
    return median(passes.seconds[phase] for passes in runs)


def _table(pages: int, runs: _Runs) -> Table:
    what = "ksmd here" if runs.real else "modelled ksmd"
    shown = plain_table("", "CPU ms", "pages/s", f"{what} ms", "times")
    for content, of_content in runs.simulated.items():
        if content == "bytes":
            shown.add_row("  bytes, making them", *_cells(pages, median(runs.made)))
        fill = median(passes.fill for passes in of_content)
        shown.add_row(f"  {content}, filling", *_cells(pages, fill))
        for phase in PHASES:
            theirs = _ksmd_seconds(runs, content, phase)
            ratios = tuple(t / p.seconds[phase] for t, p in zip(theirs, of_content, strict=True))
            cells = _cells(pages, _median(of_content, phase))
            shown.add_row(f"  {content}, {phase}", *cells, f"{median(theirs) * 1e3:,.1f}", spread(ratios))
    return shown


def _cells(pages: int, seconds: float) -> tuple[str, str]:
    return f"{seconds * 1e3:,.2f}", f"{pages / seconds:,.0f}"


def _ksmd_seconds(runs: _Runs, content: str, phase: str) -> list[float]:
    if runs.real:
        return [real.seconds[phase] for real in runs.real]
    return [passes.modelled[phase] for passes in runs.simulated[content]]


def _repeated(repeat: int) -> str:
    return f"medians of {repeat}, `times` from least to most"
