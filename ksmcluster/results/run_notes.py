"""Notes on facts of a run that could mislead a comparison with another run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cluster.arrays.words import I64
from cluster.machine.pass_result import PassResult
from cluster.machine.run_end import CONVERGED_PASSES, RunEnd
from cluster.spec.content import PAGE_SIZE
from cluster.spec.scenario import ProcessSpec, SimulationSpec
from ksmcluster.report import text
from ksmcluster.results.result import saved_bytes

#: The figures that may alternate, besides the saved memory.
_ALTERNATING = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages")
#: A figure alternates if it swings by more than this share of the mapped pages ...
_SWING = 0.01
#: ... and returns to within this share of the swing.
_RETURN = 0.1


def run_notes(spec: SimulationSpec, passes: Sequence[PassResult]) -> Iterator[str]:
    """Yield the notes on a run, a line each."""
    yield from _first_pass(spec, passes)
    yield from _outside(spec, passes)
    yield from _not_converged(spec, passes)
    yield from _threads(spec, passes)
    yield from _alternating(passes)


def _first_pass(spec: SimulationSpec, passes: Sequence[PassResult]) -> Iterator[str]:
    """Yield a note if ksmd has seen each page once, and so could not know which of them change."""
    if len(passes) == passes[-1].full_scans == 1 and spec.ksm.history == "fresh":
        took = text.seconds(passes[-1].simulated_seconds)
        yield (
            f"the run ended with ksmd's first pass, which took {took} of simulated time: pages merge from "
            "the second pass on, so simulate two passes or more"
        )


def _outside(spec: SimulationSpec, passes: Sequence[PassResult]) -> Iterator[str]:
    """Yield notes on events of the scenario that come after the end of the run."""
    end = passes[-1].simulated_seconds
    for kind in spec.processes:
        yield from _late_writes(kind, end)
        times = kind.layout.times[1:] if kind.layout else ()
        if late := sum(time > end for time in times):
            yield (
                f"{kind.name}: {late:,} of {len(times) + 1:,} moments come after the end of the run "
                f"({text.seconds(end)} of simulated time)"
            )
    for number, relocation in enumerate(spec.relocations):
        if (relocation.after_pass or 0) > len(passes):
            yield (
                f"migration.relocate[{number}]: nothing is moved, because the run ends before "
                f"pass {relocation.after_pass}"
            )


def _late_writes(kind: ProcessSpec, end: float) -> Iterator[str]:
    for region in kind.regions:
        starts = [write.start for write in region.writes if write.rate and write.start >= end]
        if starts:
            yield (
                f"{kind.name}, {region.name}: writes begin at {text.seconds(min(starts))}, after the end of "
                f"the run ({text.seconds(end)} of simulated time)"
            )


def _not_converged(spec: SimulationSpec, passes: Sequence[PassResult]) -> Iterator[str]:
    if spec.tolerance is None:
        return
    end = RunEnd(replace(spec, passes=None))
    if not any(end.is_last(result) for result in passes):
        yield (
            f"the run has not converged within {text.counted(len(passes), 'pass')}: its figures changed by "
            f"more than {spec.tolerance:g} of the mapped pages over the last {CONVERGED_PASSES} passes, or "
            "some writes have not begun or stopped yet"
        )


def _threads(spec: SimulationSpec, passes: Sequence[PassResult]) -> Iterator[str]:
    """Yield a note for one ksmd per node: equal numbers of passes are then not equal times."""
    if spec.ksm.threads == "per-node" and spec.seconds is None and spec.writes:
        took = text.seconds(passes[-1].simulated_seconds)
        yield (
            f"with one ksmd per node, {text.counted(len(passes), 'pass')} took {took} of simulated time, far "
            "less than with a single ksmd: compare the two at equal simulated time, with --seconds"
        )


def _alternating(passes: Sequence[PassResult]) -> Iterator[str]:
    """Yield a note on figures whose final value depends on the number of passes."""
    mapped = int(passes[-1].nodes["pages_mapped"].sum())
    columns = {name: np.array([int(r.nodes[name].sum()) for r in passes]) for name in _ALTERNATING}
    columns["saved"] = np.array([int(saved_bytes(r.nodes).sum()) // PAGE_SIZE for r in passes])
    periods = {name: period_of(values, _SWING * mapped) for name, values in columns.items()}
    if swinging := {name: period for name, period in periods.items() if period}:
        period = max(swinging.values())
        yield (
            f"{', '.join(swinging)}: the final value depends on the pass; these figures repeat every "
            f"{period} passes, so compare means over {period} passes (passes.parquet)"
        )


def period_of(values: I64, swing: float) -> int:
    """Return the period of a figure in passes: int64[passes] -> 2 or more; 0 if it does not alternate.

    Only the last two periods count.
    """
    for period in range(2, min(len(values) // 2, CONVERGED_PASSES) + 1):
        last, before = values[-period:], values[-2 * period : -period]
        range_ = int(last.max() - last.min())
        if range_ > swing and np.abs(last - before).max() <= _RETURN * range_:
            return period
    return 0
