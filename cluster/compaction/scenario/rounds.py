"""The order in which compactors and transfers take their turns, in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cluster.compaction.internode.node_commands import TransferStep
from cluster.compaction.internode.relocator import Relocator, free_dropped
from cluster.compaction.scenario.compactor_pool import CompactorPool
from cluster.compaction.scenario.random_streams import Purpose, random_stream
from cluster.spec.compaction import CompactionSpec

T = TypeVar("T")


def drive(spec: CompactionSpec, nodes: Sequence[int], pool: CompactorPool) -> None:
    """Drive all compactors of these nodes until they are done, and the scenario's relocations.

    In each round, each compactor of a node takes a turn, and each transfer that waits for the node takes a
    step. Their order depends on the seed, the node and the round alone, so the result is the same for every
    pool.
    """
    if not spec.relocations:
        drive_compactors(spec, nodes, pool)
        return
    _run_rounds(spec, {}, pool, Relocator(spec, "before", pool))
    _run_rounds(spec, _compactors(spec, nodes), pool, Relocator(spec, "during", pool))
    _run_rounds(spec, {}, pool, Relocator(spec, "after", pool))
    free_dropped(pool)


def drive_compactors(spec: CompactionSpec, nodes: Sequence[int], pool: CompactorPool) -> None:
    """Drive all compactors of these nodes until they are done, without relocations."""
    _run_rounds(spec, _compactors(spec, nodes), pool)


def _compactors(spec: CompactionSpec, nodes: Sequence[int]) -> dict[int, list[int]]:
    """Return the numbers of each node's compactors; nothing for nodes without any."""
    return {node: list(range(spec.workers)) for node in nodes if spec.workers}


def _run_rounds(
    spec: CompactionSpec,
    left: dict[int, list[int]],
    pool: CompactorPool,
    relocator: Relocator | None = None,
) -> None:
    """Run rounds until the compactors `left`, by node, are done and the relocator has no steps left."""
    round_number = 0
    while True:
        if relocator is not None:
            relocator.begin_round()
        steps = relocator.next_steps() if relocator is not None else {}
        waiting = {node: [*left.get(node, ()), *steps.get(node, ())] for node in sorted({*left, *steps})}
        if not waiting:
            return
        orders = {node: _order(spec.seed, node, round_number, those) for node, those in waiting.items()}
        for place in range(max(map(len, orders.values()))):
            at_work = {node: order[place] for node, order in orders.items() if place < len(order)}
            _take_turns(at_work, left, pool)
            if relocator is not None:
                _take_steps(at_work, relocator, pool)
        left = {node: compactors for node, compactors in left.items() if compactors}
        round_number += 1


def _take_turns(
    at_work: dict[int, int | TransferStep], left: dict[int, list[int]], pool: CompactorPool
) -> None:
    turns = [(node, compactor) for node, compactor in at_work.items() if isinstance(compactor, int)]
    for (node, compactor), done in zip(turns, pool.take(turns) if turns else (), strict=True):
        if done:
            left[node].remove(compactor)


def _take_steps(at_work: dict[int, int | TransferStep], relocator: Relocator, pool: CompactorPool) -> None:
    steps = [step for step in at_work.values() if isinstance(step, TransferStep)]
    for step, result in zip(steps, pool.step(steps) if steps else (), strict=True):
        relocator.record(step, result)


def _order(seed: int, node: int, round_number: int, waiting: list[T]) -> list[T]:
    rng = random_stream(seed, Purpose.ORDER, node, round_number)
    return [waiting[i] for i in rng.permutation(len(waiting))]
