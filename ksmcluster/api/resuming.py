"""Continuing a run from its last checkpoint."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from actors.run_options import ON_RAY, RunKeywords, RunOptions
from ksmcluster.api.checkpoints import checkpointed
from ksmcluster.api.compacting import compact
from ksmcluster.api.keywords import check_address
from ksmcluster.api.running import Progress, one_line
from ksmcluster.api.simulating import run
from ksmcluster.config import Scenario

if TYPE_CHECKING:
    from ksmcluster.results.compaction.compaction_result import CompactionResult
    from ksmcluster.results.result import Result


def resume(
    directory: str | os.PathLike[str],
    options: RunOptions = ON_RAY,
    *,
    progress: Progress | None = None,
    **changes: Unpack[RunKeywords],
) -> Result | CompactionResult:
    """Continue a run of `simulate` or `compact` from its last checkpoint, and return its result.

    Args:
        directory: the directory of the run's checkpoints.
        options: how the run is carried out. The engine and the number of actors may differ from those of the
            first run.
        progress: called with each event of the run.
        changes: fields of `options`: `resume("run.ckpt", engine="inline")`.

    Raises:
        UserError: if the directory has no checkpoint of this version, and as `simulate` and
            `compact` do.
    """
    with one_line():
        options = replace(options, **changes | {"checkpoint": os.fspath(directory)})
    check_address(options)
    scenario, _steps = checkpointed(directory)
    if isinstance(scenario, Scenario):
        return run(scenario, options, progress)
    return compact(scenario, options, progress=progress)
