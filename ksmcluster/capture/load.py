"""From snapshot files to what the simulated machine is filled with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack

import numpy as np

from cluster.arrays.words import I64, U64
from cluster.spec.captured_pages import CapturedMapping, CapturedMoment, CapturedPages, CapturedProcess
from cluster.spec.scenario import Clones, SimulationSpec
from ksmcluster.capture import snapshot
from ksmcluster.errors import UserError
from ksmcluster.report import text

#: A process's pages at each moment: vpn int64[n], content uint64[n].
Moments = tuple[tuple[I64, U64], ...]


def load_pages(paths: Iterable[str]) -> dict[str, CapturedPages]:
    """All mergeable pages of the snapshots of a scenario, by path; 17 bytes a page and moment.

    Raises UserError if a file is no snapshot, or their digests have different keys.
    """
    with ExitStack() as stack:
        opened = {path: stack.enter_context(snapshot.Snapshot.open(path)) for path in dict.fromkeys(paths)}
        _check_keys(opened)
        read = {
            path: [_moments(found, index) for index in range(len(found.processes))]
            for path, found in opened.items()
        }
    common = _common([moments for processes in read.values() for moments in processes])
    return {
        path: CapturedPages(
            tuple(_process(*pair, common) for pair in zip(found.processes, read[path], strict=True)),
            found.moments,
        )
        for path, found in opened.items()
    }


def notes(
    spec: SimulationSpec, snapshots: Mapping[str, CapturedPages], simulated_seconds: float
) -> Iterator[str]:
    """What a reader of the result has to know of the snapshots, a line each."""
    for kind in spec.processes:
        if kind.snapshot is None:
            continue
        captured = len(snapshots[kind.snapshot].processes)
        clones = sum(other.count for other in spec.processes if other.snapshot == kind.snapshot)
        if captured == 1 < clones and kind.clones is Clones.DISTINCT:
            yield (
                f"{kind.name}: {clones:,} clones of one process, so what they share is unknown: this "
                'saving is a lower bound, and that with clones = "identical" an upper one'
            )
        times = snapshots[kind.snapshot].times(kind.replay_interval)
        if len(times) > 1 and times[-1] < simulated_seconds:
            yield (
                f"{kind.name}: {len(times):,} moments end at {text.seconds(times[-1])} of "
                f"{text.seconds(simulated_seconds)} simulated; then memory stands still"
            )


def _check_keys(opened: Mapping[str, snapshot.Snapshot]) -> None:
    """Pages whose digests have different keys would never be equal, whatever they held."""
    paths = list(opened)
    for path in paths[1:]:
        if not opened[path].comparable(opened[paths[0]]):
            raise UserError(
                f"{path} and {paths[0]} have digests of different keys, so that no page of one would merge "
                "with one of the other: capture them together, or both with the same --key-file"
            )


def _moments(found: snapshot.Snapshot, index: int) -> Moments:
    pages = (found.pages(index, moment) for moment in range(len(found.moments)))
    return tuple((vpn.astype(np.int64), content) for vpn, content in pages)


def _common(processes: list[Moments]) -> U64:
    """Contents that two or more of the processes hold, at whatever moments, and zeros; ascending."""
    held = [np.unique(np.concatenate([content for _, content in moments])) for moments in processes]
    contents, holders = np.unique(np.concatenate([*held, np.zeros(1, np.uint64)]), return_counts=True)
    common: U64 = contents[(holders > 1) | (contents == 0)]
    return common


def _process(process: snapshot.SnapshotProcess, moments: Moments, common: U64) -> CapturedProcess:
    return CapturedProcess(
        name=process.name,
        # Pages that KSM would pass over are not loaded, so whatever is may be merged.
        mappings=tuple(
            CapturedMapping(m.name, m.start_vpn, m.pages, mergeable=True) for m in process.mappings
        ),
        moments=tuple(CapturedMoment(vpn, content, ~np.isin(content, common)) for vpn, content in moments),
    )
