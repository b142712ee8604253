"""Carries out a sweep: runs its points, stores each record, and returns the result."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

from actors.run_options import INLINE, RunOptions
from ksmcluster.api.keywords import Keywords, taken
from ksmcluster.config import DEFAULT, Overrides
from ksmcluster.experiments.sweeps import journal
from ksmcluster.experiments.sweeps.axes import axes_of, make_points
from ksmcluster.experiments.sweeps.journal import Journal
from ksmcluster.experiments.sweeps.on_ray import run_on_ray
from ksmcluster.experiments.sweeps.plan import Plan, RunKey, Source, make_plan
from ksmcluster.experiments.sweeps.run_one import Progress, RunDone, RunRecord, failed, run_one
from ksmcluster.experiments.sweeps.stored import PROVENANCE, TABLE, Preference, read_records
from ksmcluster.experiments.sweeps.sweep_result import SweepResult, sweep_of
from ksmcluster.experiments.sweeps.table import parquet
from ksmcluster.experiments.sweeps.workers import run_side_by_side
from ksmcluster.results.provenance import provenance
from ksmcluster.system.errors import UserError


def sweep(
    scenario: Source = DEFAULT,
    vary: Mapping[str, str | Iterable[object]] | None = None,
    options: RunOptions = INLINE,
    *,
    output: str | Path | None = None,
    overrides: Overrides | None = None,
    zipped: bool = False,
    seeds: int = 1,
    jobs: int | None = None,
    passes_rows: bool = False,
    resume: bool = False,
    objectives: str | None = None,
    limits: Sequence[str] = (),
    progress: Progress | bool | None = None,
    **changes: Unpack[Keywords],
) -> SweepResult:
    """Run a scenario with all combinations of the values in `vary`, and return the result.

    A point that fails is part of the result, with its error.

    Args:
        scenario: what `load` or `load_compaction` takes.
        vary: values by key: `{"ksm.pages_to_scan": [100, 200], "nodes": "1..16x2"}`. Keys are those of the
            scenario, and `nodes`, `passes`, `pages_per_node`, `engine` and other options of a run.
        options: how the runs are carried out.
        output: a directory that stores each run as soon as it is finished.
        overrides: changes that apply to all points. Its fields can also be given as keyword arguments.
        zipped: pair the values by position (the first of each key, then the second, and so on) instead of
            taking all combinations.
        seeds: runs per point, each with its own seed.
        jobs: points that run in parallel. With the engine `inline`, each has a process; the default is 1. On
            Ray, each has actors that run one point after another; by default there are as many jobs as the
            cluster has cores and memory for.
        passes_rows: also keep the figures of each pass.
        resume: run what is missing in `output`.
        objectives: figures to optimize, as in `SweepResult.choose`.
        limits: bounds that the recommended point must meet.
        progress: called when a run is finished. True shows the progress, also in a notebook.
        changes: fields of `options` and of `Overrides`.

    Raises:
        UserError: for errors that the user can fix.
        RunFailedError: if the disk of `output` is full.
    """
    options, more = taken(sweep, options, changes)
    if overrides is not None and more != Overrides():
        raise UserError("sweep: give changes as overrides or as keyword arguments, not both")
    points = make_points(axes_of(vary or {}), zipped=zipped)
    plan = make_plan(scenario, points, overrides or more, options, seeds=seeds, passes_rows=passes_rows)
    wanted = Preference(objectives, (limits,) if isinstance(limits, str) else tuple(limits))
    with _listener(progress) as listener:
        return carry_out(plan, Path(output) if output is not None else None, jobs, resume, listener, wanted)


@contextmanager
def _listener(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """Yield the function to call for each finished run: None, the one given, or a progress display."""
    if progress is not True:
        yield progress or None
        return
    from rich.console import Console

    from ksmcluster.experiments.sweeps.sweep_progress import shown

    with shown(Console(stderr=True)) as listener:
        yield listener


def carry_out(
    plan: Plan,
    output: Path | None,
    jobs: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    wanted: Preference | None = None,
) -> SweepResult:
    """Carry out the missing runs of a plan, and store them in the directory `output`.

    The objectives and limits in `wanted` are stored there, too.
    """
    if resume and output is None:
        raise UserError("resume: give the output of the sweep that is to go on")
    if (jobs is not None and jobs < 1) or not plan.seeds:
        raise UserError(f"--{'jobs' if plan.seeds else 'seeds'}: must be at least 1")
    wanted, described = wanted or Preference(), plan.describe(output)
    if output is None:
        done: dict[RunKey, RunRecord] = {}
        _run_all(plan, jobs, done, None, progress)
        return sweep_of(described, done, wanted)
    with journal.opened(output, described, resume=resume) as kept:
        done = read_records(kept.directory)
        start = time.perf_counter()
        # Now, too: a sweep that is killed has its objectives and limits.
        _write_provenance(kept, jobs, None, wanted)
        try:
            _run_all(plan, jobs, done, kept, progress)
        finally:
            result = sweep_of(described, done, wanted)
            kept.write(TABLE, parquet(result.to_arrow()))
            _write_provenance(kept, jobs, time.perf_counter() - start, wanted)
    return result


def _write_provenance(kept: Journal, jobs: int | None, seconds: float | None, wanted: Preference) -> None:
    data = provenance({"jobs": jobs, "wall_seconds": seconds}) | {"wanted": wanted._asdict()}
    kept.write(PROVENANCE, json.dumps(data, indent=2).encode() + b"\n")


def _run_all(
    plan: Plan,
    jobs: int | None,
    done: dict[RunKey, RunRecord],
    kept: Journal | None,
    progress: Progress | None,
) -> None:
    """Carry out the runs that are missing in `done` or failed, and add them to it."""
    left = [key for key in plan.keys if key not in done or done[key].error]
    start, total = time.perf_counter(), len(plan.keys)
    for count, record in enumerate(_records(plan, left, jobs), 1):
        done[record.key] = record
        if kept is not None:
            kept.add(record)
        if progress is not None:
            each = (time.perf_counter() - start) / count
            point = plan.points[record.key.point - 1].point
            so_far = total - len(left) + count
            progress(RunDone(so_far, total, point, record, each * (len(left) - count)))


def _records(plan: Plan, keys: Sequence[RunKey], jobs: int | None) -> Iterator[RunRecord]:
    """Yield the records of runs: first those without a scenario, then inline runs, then runs on Ray."""
    errors = {key: plan.points[key.point - 1].error for key in keys}
    yield from (failed(key, error) for key, error in errors.items() if error)
    tasks = [plan.task(key) for key, error in errors.items() if not error]
    inline = [task for task in tasks if not task.options.on_ray]
    if jobs is not None and jobs > 1 and len(inline) > 1:
        yield from run_side_by_side(inline, jobs)
    else:
        yield from map(run_one, inline)
    if on_ray := [task for task in tasks if task.options.on_ray]:
        yield from run_on_ray(on_ray, jobs)
