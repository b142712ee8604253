"""Going on with a simulation from its last checkpoint."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from actors.run_options import ON_RAY, RunKeywords, RunOptions
from ksmcluster.api.checkpoints import checkpointed
from ksmcluster.api.running import Progress, one_line
from ksmcluster.api.simulating import run

if TYPE_CHECKING:
    from ksmcluster.results.result import Result


def resume(
    directory: str | os.PathLike[str],
    options: RunOptions = ON_RAY,
    *,
    progress: Progress | None = None,
    **changes: Unpack[RunKeywords],
) -> Result:
    """Go on with a simulation from the last checkpoint of a directory, and return its result.

    `options` and `progress` are those of `simulate`; the engine and the number of actors may differ from
    those of the run before. Raises UserError if the directory has no checkpoint of this version.
    """
    with one_line():
        options = replace(replace(options, **changes), checkpoint=os.fspath(directory))
    return run(checkpointed(directory), options, progress)
