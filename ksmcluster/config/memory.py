"""How much memory the processes of a scenario map, and scaling it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES
from ksmcluster.config.migration import kept
from ksmcluster.config.problems import ConfigProblem
from ksmcluster.config.processes import PolicyConfig, ProcessConfig, RegionConfig
from ksmcluster.config.scenario import Scenario
from ksmcluster.config.sizes import format_size
from ksmcluster.system.errors import UserError


def memory_problems(scenario: Scenario) -> Iterator[ConfigProblem]:
    """Nodes that could not hold what is mapped on them if nothing were merged.

    Snapshots are left out: how much they hold is known only when they are read.
    """
    machine = scenario.machine
    for nodes, pages in _demands(scenario).items():
        room = int(len(nodes) * machine.memory_per_node * (1 - _kept(scenario)))
        if pages > room:
            where = "the machine" if len(nodes) == machine.nodes else f"what is bound to {_named(nodes)}"
            need = format_size(_memory_for(scenario, -(-pages // len(nodes))))
            yield ConfigProblem(
                ("machine", "memory_per_node"),
                f"too little for {where}: {pages} pages are mapped before any merging, and there is room for "
                f"{room}; it takes at least {need}",
            )


def pages_mapped(scenario: Scenario) -> int:
    """The most page table entries of regions at once; not of snapshots."""
    return sum(count * region.pages_touched() for count, region in _mapped(scenario))


def frames_needed(scenario: Scenario) -> int:
    """The most pages of regions that can be in memory at once, without merging; not of snapshots."""
    return sum(frames for _, frames in _placed(scenario))


def scaled(scenario: Scenario, pages_per_node: int) -> Scenario:
    """The scenario with all regions, and the pools they draw from, scaled alike.

    Afterwards the processes of a node map about `pages_per_node` pages, on the average of the nodes. A region
    keeps at least one page. When the memory of the nodes does not suffice, it becomes what is mapped and an
    eighth.
    """
    mapped = sum(count * region.size for count, region in _mapped(scenario))
    if not mapped:
        raise UserError("--pages-per-node: the scenario has no regions to scale, only snapshots")
    factor = pages_per_node * scenario.machine.nodes / mapped
    processes = tuple(_scaled_process(process, factor) for process in scenario.process)
    result = scenario.model_copy(update={"process": processes})
    need = max(-(-pages // len(nodes)) for nodes, pages in _demands(result).items())
    if _memory_for(scenario, need) > scenario.machine.memory_per_node:
        pages = _memory_for(scenario, need + -(-need // 8))
        machine = scenario.machine.model_copy(update={"memory_per_node": pages})
        result = result.model_copy(update={"machine": machine})
    return result


def _kept(scenario: Scenario) -> float:
    return kept(scenario.migration, scenario.driver or ())


def _memory_for(scenario: Scenario, pages: int) -> int:
    """Memory of a node in which there is room for so many pages of processes."""
    if scenario.migration is None:
        return pages
    blocks = math.ceil(pages / (1 - _kept(scenario)) / PAGEBLOCK_PAGES)
    return blocks * PAGEBLOCK_PAGES


def _scaled_process(process: ProcessConfig, factor: float) -> ProcessConfig:
    regions = tuple(_scaled_region(region, factor) for region in process.region)
    return process.model_copy(update={"region": regions})


def _scaled_region(region: RegionConfig, factor: float) -> RegionConfig:
    changes: dict[str, int] = {"size": max(1, round(region.size * factor))}
    if region.distinct is not None:
        changes["distinct"] = max(1, round(region.distinct * factor))
    return region.model_copy(update=changes)


def _mapped(scenario: Scenario) -> Iterator[tuple[int, RegionConfig]]:
    """Each region, and how many processes and workers map it."""
    for process in scenario.process:
        count = process.total(scenario.machine.nodes) * (1 + process.workers)
        yield from ((count, region) for region in process.region)


def _placed(scenario: Scenario) -> Iterator[tuple[PolicyConfig, int]]:
    """Policy and the most frames of each region in all processes; a worker has those of what it writes."""
    for process in scenario.process:
        count = process.total(scenario.machine.nodes)
        for region in process.region:
            frames = region.pages_touched() + process.workers * region.pages_of_worker()
            yield region.policy or process.policy, count * frames


def _demands(scenario: Scenario) -> dict[frozenset[int], int]:
    """Pages that must fit into the whole machine, and into each set of nodes that something is bound to."""
    everywhere = frozenset(range(scenario.machine.nodes))
    placed: Counter[frozenset[int]] = Counter({everywhere: 0})
    for policy, pages in _placed(scenario):
        placed[frozenset(policy.nodes or ()) if policy.kind == "bind" else everywhere] += pages
    return {nodes: sum(placed[inner] for inner in placed if inner <= nodes) for nodes in placed}


def _named(nodes: frozenset[int]) -> str:
    some = ", ".join(map(str, sorted(nodes)[:4]))
    return f"{'node' if len(nodes) == 1 else 'nodes'} {some}{', ...' if len(nodes) > 4 else ''}"
