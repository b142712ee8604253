"""The memory that the processes of a scenario map, and how to scale it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES
from cluster.spec.limits import MOST_PAGES
from ksmcluster.config.migration import kept
from ksmcluster.config.problems import ConfigProblem
from ksmcluster.config.processes import PolicyConfig, ProcessConfig, RegionConfig
from ksmcluster.config.scenario import Scenario
from ksmcluster.config.sizes import format_size
from ksmcluster.system.errors import UserError


def memory_problems(scenario: Scenario) -> Iterator[ConfigProblem]:
    """Yield a problem for each set of nodes that could not hold its mapped memory without merging.

    Snapshots are not counted: their size is known only when they are read.
    """
    machine = scenario.machine
    for nodes, pages in _demands(scenario).items():
        room = int(len(nodes) * machine.memory_per_node * (1 - _kept(scenario)))
        if pages > room:
            where = "the machine" if len(nodes) == machine.nodes else f"the memory bound to {_named(nodes)}"
            need = format_size(_memory_for(scenario, -(-pages // len(nodes))))
            yield ConfigProblem(
                ("machine", "memory_per_node"),
                f"too little for {where}: {pages} pages are mapped before any merging, but only {room} fit; "
                f"at least {need} is needed",
            )


def pages_mapped(scenario: Scenario) -> int:
    """Return the most page table entries of regions at any time, without snapshots."""
    return sum(count * region.pages_touched() for count, region in _mapped(scenario))


def frames_needed(scenario: Scenario) -> int:
    """Return the most pages of regions in memory at any time without merging, without snapshots."""
    return sum(frames for _, frames in _placed(scenario))


def scaled(scenario: Scenario, pages_per_node: int) -> Scenario:
    """Return the scenario with all regions and their pools scaled by the same factor.

    Afterwards the processes of a node map about `pages_per_node` pages, averaged over the nodes. A region
    keeps at least one page. If the memory of the nodes is too small, it grows to 9/8 of the mapped memory.
    """
    mapped = sum(count * region.size for count, region in _mapped(scenario))
    if not mapped:
        raise UserError("--pages-per-node: the scenario has no regions to scale, only snapshots")
    if pages_per_node > MOST_PAGES:
        raise UserError(f"--pages-per-node: the most is {MOST_PAGES:,}")
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
    """Return the memory that a node needs for `pages` pages of processes."""
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
    """Yield how many processes and workers map each region, and the region."""
    for process in scenario.process:
        count = process.total(scenario.machine.nodes) * (1 + process.workers)
        yield from ((count, region) for region in process.region)


def _placed(scenario: Scenario) -> Iterator[tuple[PolicyConfig, int]]:
    """Yield the policy and the most frames of each region; a worker has frames for the pages it writes."""
    for process in scenario.process:
        count = process.total(scenario.machine.nodes)
        for region in process.region:
            frames = region.pages_touched() + process.workers * region.pages_of_worker()
            yield region.policy or process.policy, count * frames


def _demands(scenario: Scenario) -> dict[frozenset[int], int]:
    """Return the pages that must fit into the whole machine, and into each set of nodes with bound memory."""
    everywhere = frozenset(range(scenario.machine.nodes))
    placed: Counter[frozenset[int]] = Counter({everywhere: 0})
    for policy, pages in _placed(scenario):
        placed[frozenset(policy.nodes or ()) if policy.kind == "bind" else everywhere] += pages
    return {nodes: sum(placed[inner] for inner in placed if inner <= nodes) for nodes in placed}


def _named(nodes: frozenset[int]) -> str:
    some = ", ".join(map(str, sorted(nodes)[:4]))
    return f"{'node' if len(nodes) == 1 else 'nodes'} {some}{', ...' if len(nodes) > 4 else ''}"
