"""Compacting memory from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from actors.run_options import ON_RAY, RunOptions
from cluster.machine.pass_result import ActorsStarting
from ksmcluster.api.checkpoints import checkpoint_before_the_end, keeper
from ksmcluster.api.keywords import Keywords, check_address, check_unchanged, listening, taken
from ksmcluster.api.plugins import try_drivers
from ksmcluster.api.running import Progress, RunClock, check_memory, one_line
from ksmcluster.config import DEFAULT_COMPACTION, load_compaction
from ksmcluster.system import host_memory

if TYPE_CHECKING:
    from ksmcluster.config.compaction import CompactionScenario
    from ksmcluster.results.compaction.compaction_result import CompactionResult


def compact(
    config: CompactionScenario | str | os.PathLike[str] | Mapping[str, Any] = DEFAULT_COMPACTION,
    options: RunOptions = ON_RAY,
    *,
    progress: Progress | bool | None = None,
    **changes: Unpack[Keywords],
) -> CompactionResult:
    """Compact the memory of every node of a scenario, with movable and with unmovable driver pages.

    `config` is what `load_compaction` takes or returns; `options`, keyword arguments and `progress` are those
    of `simulate`. With the engine `ray`, one actor holds the memory of `nodes_per_actor` nodes. Raises
    UserError as `simulate` does.
    """
    from actors.compaction.run_compaction import run_compaction
    from ksmcluster.config.compaction import CompactionScenario, to_compaction_spec
    from ksmcluster.results.compaction.compaction_result import CompactionResult

    options, overrides = taken(compact, options, changes)
    check_address(options)
    if isinstance(config, CompactionScenario):
        check_unchanged("compact", overrides)
        scenario = config
    else:
        scenario = load_compaction(config, overrides)
    spec = to_compaction_spec(scenario)
    try_drivers(spec.drivers)
    pages = spec.nodes * spec.pages_per_node
    size = pages * host_memory.COMPACTED_PAGE
    check_memory(options, spec.nodes, pages, size, "machine.memory_per_node")
    checkpoints = keeper(scenario, options)
    with one_line(), listening(progress, "round") as listener:
        clock = RunClock(
            listener, lambda event: isinstance(event, ActorsStarting) and event.done == event.total
        )
        with checkpoint_before_the_end(options.checkpoint, clock.on_event) as on_event:
            reports = run_compaction(spec, options, on_event=on_event, checkpoints=checkpoints)
    return CompactionResult.of(scenario, reports, clock.timing(options))
