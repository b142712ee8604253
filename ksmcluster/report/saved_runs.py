"""Reads runs and sweeps written by `--output`, for pictures and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ksmcluster.experiments.sweeps.stored import PLAN, read_provenance
from ksmcluster.experiments.sweeps.sweep_result import SweepResult, load_sweep
from ksmcluster.report.run_data import RunData, of_result
from ksmcluster.results.loading import load_result
from ksmcluster.system.replacing import real_path


class SavedSweep(NamedTuple):
    """A sweep in a directory."""

    #: Name of the sweep where several are shown.
    label: str
    result: SweepResult
    #: The contents of provenance.json; empty if the sweep was killed.
    provenance: Mapping[str, Any]


def read_runs(directories: Sequence[Path]) -> list[RunData]:
    """Return only the runs of `read_outputs`."""
    return read_outputs(directories)[0]


def read_outputs(directories: Sequence[Path]) -> tuple[list[RunData], list[SavedSweep]]:
    """Return the runs and the sweeps of these directories.

    Their labels are the names of the directories, or the paths if two names are equal. Raises UserError if a
    directory has no output of `simulate`, `compact` or `sweep`.
    """
    runs: list[RunData] = []
    sweeps: list[SavedSweep] = []
    for label, directory in zip(_labels(directories), directories, strict=True):
        if is_sweep(directory):
            sweeps.append(SavedSweep(label, load_sweep(directory), read_provenance(directory)))
        else:
            runs.append(of_result(load_result(directory), label))
    return runs, sweeps


def is_sweep(directory: Path) -> bool:
    """Return whether a directory has a sweep."""
    return (directory / PLAN).exists()


def _labels(directories: Sequence[Path]) -> list[str]:
    names = [real_path(directory).name for directory in directories]
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [
        str(directory) if name in twice else name for directory, name in zip(directories, names, strict=True)
    ]
