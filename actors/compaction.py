"""A compaction scenario on Ray actors, or in this process; the result is the same.

Compactor c of node n is driven by migration actor (n + c) modulo their number; transfer t between nodes, by
actor t modulo their number. In each superstep at most one of them is at work on a node, in the order that
`cluster.compaction.scenario.node_memory.drive` says; different nodes work at the same time. Within a node
they interleave: each stops in the middle of whatever it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from actors.answers import answers
from actors.engine import ENGINES, places, wait_for
from actors.hosts import blocks
from actors.runtime import connected
from actors.tuning.heap import keep_free_memory
from cluster.compaction.internode.node_transfers import Carried, Carry, Order
from cluster.compaction.scenario.node_memory import NodeReport, Turn, compact_inline, drive
from cluster.machine.pass_result import Event
from cluster.spec.compaction import CompactionSpec
from cluster.spec.errors import SimulationError

#: Times that migration actors may die in one run; then it is no accident any more.
MOST_DEATHS = 100


def run_compaction(
    spec: CompactionSpec,
    *,
    engine: str = "ray",
    address: str | None = None,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> list[NodeReport]:
    """What becomes of each node, whatever the engine and the number of actors.

    Raises SimulationError if the scenario cannot be carried out.
    """
    if engine == "inline":
        keep_free_memory()
        return compact_inline(spec)
    if engine != "ray":
        raise SimulationError(f"no engine {engine!r}; there are: {', '.join(ENGINES)}")
    with connected(address), crew_on_ray(spec, nodes_per_actor, migration_actors, on_event) as compactor_pool:
        drive(spec, range(spec.nodes), compactor_pool)
        return compactor_pool.reports()


@contextmanager
def crew_on_ray(
    spec: CompactionSpec,
    nodes_per_actor: int = 1,
    migration_actors: int = 4,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> Iterator[RayCompactorPool]:
    """Owners and migration actors, ready; gone afterwards."""
    import ray

    from actors.migration_actor import MemoryActor

    hosts = blocks(spec.nodes, nodes_per_actor)
    owners = [
        MemoryActor.options(scheduling_strategy=place).remote(host, spec)  # type: ignore[attr-defined]
        for host, place in zip(hosts, places(len(hosts)), strict=True)
    ]
    compactor_pool = RayCompactorPool(hosts, owners, migration_actors)
    try:
        wait_for(owners, on_event)
        yield compactor_pool
    finally:
        compactor_pool.close()
        for owner in owners:
            ray.kill(owner)


class RayCompactorPool:
    """Drives compactors with a pool of migration actors (implements `CompactorPool`).

    One that dies is replaced; the owners put back what its compactors had isolated, and those begin anew.
    Transfers go on where they were.
    """

    def __init__(self, hosts: list[list[int]], owners: list[Any], size: int) -> None:
        self._owners = owners
        self._owner_of = [owner for owner, host in enumerate(hosts) for _ in host]
        self._driven: list[set[tuple[int, int]]] = [set() for _ in range(size)]
        self._generations: dict[tuple[int, int], int] = {}
        self.deaths = 0
        self.pool = [self._new() for _ in range(size)]

    def _new(self) -> Any:
        from actors.migration_actor import MigrationActor

        return MigrationActor.remote(self._owners)  # type: ignore[attr-defined]

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        by_actor: dict[int, dict[int, list[Turn]]] = {}
        for node, compactor in turns:
            actor = (node + compactor) % len(self.pool)
            self._driven[actor].add((node, compactor))
            turn = Turn(node, compactor, self._generations.get((node, compactor), 0))
            by_actor.setdefault(actor, {}).setdefault(self._owner_of[node], []).append(turn)
        calls = {actor: self.pool[actor].take.remote(list(to.items())) for actor, to in by_actor.items()}
        done: dict[int, bool] = {}
        for actor, call in calls.items():
            for of_owner, ended in zip(by_actor[actor].values(), self._outcome(actor, call), strict=False):
                done |= {turn.node: end for turn, end in zip(of_owner, ended, strict=True)}
        return [done.get(node, False) for node, _ in turns]

    def carry(self, turns: Sequence[Carry]) -> list[Carried]:
        carried: dict[Carry, Carried] = {}
        while left := [turn for turn in turns if turn not in carried]:
            for between, outcomes in self._carry(left):
                carried |= zip(between, outcomes, strict=True)
        return [carried[turn] for turn in turns]

    def _carry(self, turns: Sequence[Carry]) -> Iterator[tuple[list[Carry], list[Carried]]]:
        """Turns with what came of them, but for those of actors that died."""
        by_actor: dict[int, dict[tuple[int, int], list[Carry]]] = {}
        for turn in turns:
            owners = self._owner_of[turn.node], self._owner_of[turn.peer]
            of_actor = by_actor.setdefault(turn.transfer % len(self.pool), {})
            of_actor.setdefault(owners, []).append(turn)
        calls = {
            actor: self.pool[actor].carry.remote([(*owners, between) for owners, between in to.items()])
            for actor, to in by_actor.items()
        }
        for actor, call in calls.items():
            yield from zip(by_actor[actor].values(), self._outcome(actor, call), strict=False)

    def ask(self, order: Order) -> list[Any]:
        found = answers([owner.ask.remote(order) for owner in self._owners])
        return [answer for of_owner in found for answer in of_owner]

    def _outcome(self, actor: int, call: Any) -> list[list[Any]]:
        """What the migration actor answered; nothing if it died."""
        import ray
        from ray.exceptions import ActorDiedError, RayTaskError

        try:
            ended: list[list[Any]] = ray.get(call)
        except RayTaskError:
            return answers(call)  # type: ignore[no-any-return]
        except ActorDiedError as error:
            self._replace(actor, error)
            return []
        return ended

    def _replace(self, actor: int, error: Exception) -> None:
        self.deaths += 1
        if self.deaths > MOST_DEATHS:
            raise SimulationError(f"migration actors died {self.deaths} times") from error
        by_owner: dict[int, list[Turn]] = {}
        for node, compactor in sorted(self._driven[actor]):
            generation = self._generations.get((node, compactor), 0) + 1
            self._generations[node, compactor] = generation
            by_owner.setdefault(self._owner_of[node], []).append(Turn(node, compactor, generation))
        answers([self._owners[owner].abandon.remote(turns) for owner, turns in by_owner.items()])
        self.pool[actor] = self._new()

    def close(self) -> None:
        """Ends the migration actors."""
        import ray

        for actor in self.pool:
            ray.kill(actor)

    def reports(self) -> list[NodeReport]:
        """What became of the nodes, in their order."""
        found: list[list[NodeReport]] = answers([owner.reports.remote() for owner in self._owners])
        return [report for of_owner in found for report in of_owner]
