"""Results of the benchmark of passes: numbers and a table."""

from __future__ import annotations

from statistics import median

from rich.table import Table

from ksmcluster.bench.passes import CONTENTS, PHASES, Passes, PassRuns
from ksmcluster.bench.tools.calibration import UNIT
from ksmcluster.bench.tools.measure import BenchOutcome, Measure, spread
from ksmcluster.bench.tools.shapes import GROUP
from ksmcluster.report.console import plain_table


def outcome(runs: PassRuns) -> BenchOutcome:
    """Return the rates and, if the host's ksmd was measured, its CPU time relative to the simulator's."""
    layout = f"{runs.pages:,} pages, half unique, half in groups of {GROUP}"
    title = f"{layout}; medians of {len(runs.hashing)}, `times` from smallest to largest"
    return BenchOutcome((*_rates(runs), *_against_ksmd(runs)), ((title, _table(runs)),))


def _rates(runs: PassRuns) -> list[Measure]:
    return [
        Measure(
            f"pass, {runs.pages} pages: {content}, {phase}",
            UNIT,
            tuple(
                runs.pages / passes.seconds[phase] * loop
                for passes, loop in zip(runs.simulated[content], runs.calibrations[content], strict=True)
            ),
            f"{runs.pages / _median(runs.simulated[content], phase):,.0f} pages per CPU second",
        )
        for content in CONTENTS
        for phase in PHASES
    ]


def _against_ksmd(runs: PassRuns) -> list[Measure]:
    """Return the CPU time of the host's ksmd divided by the simulator's, repetition by repetition."""
    if not runs.real:
        return []
    measures = []
    for content in CONTENTS:
        pairs = list(zip(runs.real, runs.simulated[content], strict=True))
        name = f"pass, {runs.pages} pages: {content}"
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
    measures.append(_with_hashing(runs))
    return measures


def _with_hashing(runs: PassRuns) -> Measure:
    """Return the ratio including the time to hash pages, which ksmd spends in its passes."""
    values = tuple(
        sum(real.seconds.values()) / (sum(passes.seconds.values()) + hashing)
        for real, passes, hashing in zip(runs.real, runs.simulated["bytes"], runs.hashing, strict=True)
    )
    return Measure(f"pass, {runs.pages} pages: bytes, all three and hashing, against ksmd", "x", values)


def _median(runs: list[Passes], phase: str) -> float:
    return median(passes.seconds[phase] for passes in runs)


def _table(runs: PassRuns) -> Table:
    what = "ksmd here" if runs.real else "modelled ksmd"
    shown = plain_table("", "CPU ms", "pages/s", f"{what} ms", "times")
    for content, of_content in runs.simulated.items():
        if content == "bytes":
            shown.add_row("  bytes, hashing", *_cells(runs.pages, median(runs.hashing)))
        fill = median(passes.fill for passes in of_content)
        shown.add_row(f"  {content}, filling", *_cells(runs.pages, fill))
        for phase in PHASES:
            theirs = _ksmd_seconds(runs, content, phase)
            ratios = tuple(t / p.seconds[phase] for t, p in zip(theirs, of_content, strict=True))
            cells = _cells(runs.pages, _median(of_content, phase))
            shown.add_row(f"  {content}, {phase}", *cells, f"{median(theirs) * 1e3:,.1f}", spread(ratios))
    return shown


def _cells(pages: int, seconds: float) -> tuple[str, str]:
    return f"{seconds * 1e3:,.2f}", f"{pages / seconds:,.0f}"


def _ksmd_seconds(runs: PassRuns, content: str, phase: str) -> list[float]:
    if runs.real:
        return [real.seconds[phase] for real in runs.real]
    return [passes.modelled[phase] for passes in runs.simulated[content]]
