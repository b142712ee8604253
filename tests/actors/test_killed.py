"""Migration actors killed at any moment: the result is that of a run in which none died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from random import Random
from threading import Event, Thread
from typing import Any, TypeVar

import pytest
import ray
from ray.exceptions import ActorDiedError

from actors.answers import answers
from actors.compaction.numbered_calls import NumberedCalls
from actors.compaction.ray_compactor_pool import RayCompactorPool
from actors.compaction.run_compaction import compactor_pool_on_ray, run_compaction
from actors.placement import node_blocks
from actors.run_options import INLINE, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.run_passes import run_passes
from actors.watching.processes import descendants
from cluster.compaction.internode.node_commands import StepResult, TransferStep
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.rounds import drive
from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import Simulation
from cluster.spec.compaction import CompactionSpec, DriverSpec
from cluster.spec.errors import SimulationError
from tests.actors.test_compaction import MOVING, SPEC
from tests.actors.test_engine import COMPACTED, MIGRATION, same

T = TypeVar("T")
#: `Checked` fails if a page is isolated twice, or moved or put back without being isolated.
CHECKED = "tests.cluster.compaction.test_interleavings:Checked"
DRIVERS = (
    DriverSpec("swap", "zram", 0.5, 0.7, (("object_size", 1300),)),
    DriverSpec("odd", CHECKED, 0.3, 0.5, (("refuse", 0.05), ("again", 0.1), ("fail", 0.05))),
)
DIRECT = CompactionSpec(
    2,
    8 * 512,
    DRIVERS,
    lru=0.1,
    unmovable=0.05,
    trigger="direct",
    attempts=2,
    order=8,
    compactors=3,
    batch=8,
    turn=200,
)
SIMULATED = replace(COMPACTED, migration=replace(MIGRATION, compactors=2, turn=200, batch=32))


def migration_actors() -> list[int]:
    """Return the processes of all migration actors of this process, also of those that are still starting."""
    return processes("MigrationActor")


def processes(kind: str) -> list[int]:
    """Return the processes of actors of this class that descend from this process, ascending."""
    ours = descendants([os.getpid()])
    return sorted(one.pid for one in ours if one.command().startswith(f"ray::{kind}"))


def kill(pids: Sequence[int]) -> int:
    """Kill these processes; return how many there were."""
    killed = 0
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed += 1
    return killed


class Killer:
    """Kills migration actors from time to time; `kills` counts them, `runs` those in which it was at work."""

    def __init__(self, seed: int) -> None:
        self.kills = 0
        self.runs = 0
        self._rng = Random(seed)
        self._over = Event()

    def wants(self, kills: int) -> bool:
        """Whether it takes another run until it has killed so many."""
        assert self.runs < 20, "hardly any migration actors are found"
        return self.kills < kills

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Kill at most four more, one at a time or all at once, while the block runs."""
        self.runs += 1
        self._over.clear()
        thread = Thread(target=self._kill_some, args=[self.kills + 4])
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _kill_some(self, most: int) -> None:
        longest = self._rng.choice([0.02, 0.1, 0.5])
        while self.kills < most and not self._over.wait(self._rng.uniform(0, longest)):
            victims = migration_actors()
            count = self._rng.choice([1, len(victims)])
            self.kills += kill(self._rng.sample(victims, min(count, len(victims))))


def test_simulate_whenever_migration_actors_are_killed(ray_cluster: str) -> None:
    inline = list(run_passes(SIMULATED, INLINE))
    killer = Killer(1)
    while killer.wants(5):
        with killer.at_work():
            made = list(
                run_passes(SIMULATED, RunOptions(address=ray_cluster, nodes_per_actor=3, migration_actors=2))
            )
        check_passes(made, inline)


def check_passes(made: list[PassResult], inline: list[PassResult]) -> None:
    assert same(made, inline)
    assert [repr(result.compaction) for result in made] == [repr(result.compaction) for result in inline]


@pytest.mark.parametrize("spec", [MOVING, DIRECT], ids=["moving", "direct"])
def test_compact_whenever_migration_actors_are_killed(ray_cluster: str, spec: CompactionSpec) -> None:
    inline = repr(run_compaction(spec, INLINE))
    killer = Killer(2)
    while killer.wants(4):
        with killer.at_work():
            made = run_compaction(
                spec, RunOptions(address=ray_cluster, nodes_per_actor=2, migration_actors=2)
            )
        assert repr(made) == inline


class Disturbed:
    """A pool in whose calls something happens: `disturb` gets the call's number and what it would do."""

    def __init__(
        self, compactor_pool: RayCompactorPool, disturb: Callable[[int, Callable[[], Any]], Any]
    ) -> None:
        self.compactor_pool = compactor_pool
        self.ask = compactor_pool.ask
        self.calls = 0
        self._disturb = disturb

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        return self._next(lambda: self.compactor_pool.take(turns))

    def step(self, steps: Sequence[TransferStep]) -> list[StepResult]:
        return self._next(lambda: self.compactor_pool.step(steps))

    def _next(self, call: Callable[[], list[T]]) -> list[T]:
        self.calls += 1
        done: list[T] = self._disturb(self.calls, call)
        return done


def pids_of(compactor_pool: RayCompactorPool) -> list[int]:
    """Processes of its migration actors that are alive; waits for those that are starting."""
    pids = []
    for actor in compactor_pool.pool:
        with suppress(ActorDiedError):
            pids.append(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))
    return pids


def test_all_die_before_a_turn_and_again_while_others_take_their_place(ray_cluster: str) -> None:
    with compactor_pool_on_ray(MOVING, RunOptions(migration_actors=2)) as compactor_pool:

        def disturb(number: int, call: Callable[[], Any]) -> Any:
            if number in (1, 2, 9):
                for actor in compactor_pool.pool:
                    ray.kill(actor)
                compactor_pool.pool = [compactor_pool._new() for _ in compactor_pool.pool]
                for actor in compactor_pool.pool:
                    ray.kill(actor)
            return call()

        drive(MOVING, range(MOVING.nodes), Disturbed(compactor_pool, disturb))
        assert compactor_pool.deaths >= 3
        reports = compactor_pool.finish()
    assert repr(reports) == repr(run_compaction(MOVING, INLINE))


def test_a_dead_actors_call_that_arrives_late_changes_nothing(ray_cluster: str) -> None:
    """Each call comes a second time when it is over, and the first ones again and again."""
    turns_of: dict[int, list[tuple[int, int]]] = {}
    with compactor_pool_on_ray(SPEC, RunOptions(migration_actors=2)) as compactor_pool:

        class Late(Disturbed):
            def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
                done = super().take(turns)
                turns_of[compactor_pool._seq] = list(turns)
                for seq in {1, 2, compactor_pool._seq - 1, compactor_pool._seq} & set(turns_of):
                    again = [
                        compactor_pool._owners[node].take_turns.remote(seq, [(node, c)])
                        for node, c in turns_of[seq]
                    ]
                    repeated = [ended for (ended,) in ray.get(again)]
                    assert seq != compactor_pool._seq or repeated == done
                return done

        drive(SPEC, range(SPEC.nodes), Late(compactor_pool, lambda _number, call: call()))
        reports = compactor_pool.finish()
    assert repr(reports) == repr(run_compaction(SPEC, INLINE))


def test_transfers_are_continued_by_other_actors(ray_cluster: str) -> None:
    """All migration actors die at a random moment of each of the first calls."""
    spec = replace(MOVING, compactors=1)
    rng = Random(3)
    with compactor_pool_on_ray(spec, RunOptions(migration_actors=2)) as compactor_pool:

        def disturb(number: int, call: Callable[[], Any]) -> Any:
            if number > 8:
                return call()
            pids = pids_of(compactor_pool)
            thread = Thread(target=lambda: Event().wait(rng.uniform(0, 0.004)) or kill(pids))
            thread.start()
            done = call()
            thread.join()
            return done

        drive(spec, range(spec.nodes), Disturbed(compactor_pool, disturb))
        assert compactor_pool.deaths >= 4
        reports: list[NodeReport] = compactor_pool.finish()
    assert repr(reports) == repr(run_compaction(spec, INLINE))


def test_all_die_between_two_compactions(ray_cluster: str) -> None:
    inline = list(run_passes(SIMULATED, INLINE))
    with (
        closing(ActorPool()) as pool,
        closing(RayCompactorPool(node_blocks(5, 3), pool.actors(2), 2)) as compactor_pool,
    ):
        simulation = Simulation(pool.fabric(SIMULATED, 3), SIMULATED, compactor_pool)
        made = []
        for _ in range(SIMULATED.passes):
            kill(pids_of(compactor_pool))
            made.append(simulation.run_pass())
        made[-1] = replace(made[-1], census=simulation.census())
        assert compactor_pool.deaths >= 2 * SIMULATED.passes
    check_passes(made, inline)


def test_too_many_deaths_end_the_run_with_an_error(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.compaction.ray_compactor_pool.MOST_DEATHS", 1)
    with compactor_pool_on_ray(SPEC, RunOptions(migration_actors=2)) as compactor_pool:

        def disturb(_number: int, call: Callable[[], Any]) -> Any:
            kill(pids_of(compactor_pool))
            return call()

        with pytest.raises(SimulationError, match="migration actors died 2 times"):
            drive(SPEC, range(SPEC.nodes), Disturbed(compactor_pool, disturb))


def test_the_death_of_an_owner_ends_the_run_with_an_error(ray_cluster: str) -> None:
    with compactor_pool_on_ray(SPEC, RunOptions(migration_actors=2)) as compactor_pool:

        def disturb(number: int, call: Callable[[], Any]) -> Any:
            if number == 3:
                ray.kill(compactor_pool._owners[1])
            return call()

        with pytest.raises(SimulationError, match=r"a memory actor on .* died"):
            drive(SPEC, range(SPEC.nodes), Disturbed(compactor_pool, disturb))
            answers(compactor_pool._owners[1].finish.remote())


def test_work_that_failed_is_not_done_again() -> None:
    calls = NumberedCalls()
    done: list[str] = []

    def work(name: str) -> Callable[[], str]:
        def write() -> str:
            done.append(name)
            if name == "fails":
                raise SimulationError("out of order")
            return name

        return write

    assert [calls.once(0, 1, work("first")), calls.once(1, 1, work("other node"))] == ["first", "other node"]
    for _ in range(2):
        with pytest.raises(SimulationError, match="out of order"):
            calls.once(0, 2, work("fails"))
    assert calls.once(0, 4, work("later")) == calls.once(0, 4, work("again")) == "later"
    calls.once(0, 3, work("late"))
    assert done == ["first", "other node", "fails", "later"]
