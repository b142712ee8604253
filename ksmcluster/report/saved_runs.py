"""Runs that `--output` wrote, for pictures and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ksmcluster.report.run_data import RunData, of_result
from ksmcluster.results.loading import load_result
from ksmcluster.system.replacing import real_path


def read_runs(directories: Sequence[Path]) -> list[RunData]:
    """Return the runs of these directories, called by their names; by their paths, if two have the same name.

    Raises UserError if a directory holds no output of `simulate` or `compact`.
    """
    names = [real_path(directory).name for directory in directories]
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [
        of_result(load_result(directory), str(directory) if name in twice else name)
        for directory, name in zip(directories, names, strict=True)
    ]
