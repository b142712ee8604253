"""A pool of migration actors, which drive the compactors of nodes that other actors own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from actors.answers import answers, wait_for
from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.node_states import restore_actors, save_actors
from actors.checkpoint.state_files import SavedFile
from cluster.compaction.internode.node_commands import AnswerT, NodeCommand, StepResult, TransferStep
from cluster.compaction.scenario.node_report import NodeReport
from cluster.spec.errors import SimulationError

#: Deaths of migration actors that a run survives; more are no accident.
MOST_DEATHS = 100

T = TypeVar("T", bound=Hashable)


class RayCompactorPool:
    """Drives compactors with a pool of migration actors (implements `CompactorPool`).

    A migration actor that dies is replaced, and its call repeated. Calls are numbered, and an owner carries
    out each number once (`NumberedCalls`), so a death at any moment leaves the result as it is. An owner
    serves one pool only: a second pool would number its calls from 1 again.
    """

    def __init__(self, nodes_of: list[list[int]], owners: list[Any], size: int) -> None:
        """Take the nodes of each owner, the owners' handles, and the number of migration actors to start."""
        self._nodes_of = nodes_of
        self._owners = owners
        self._owner_of = [owner for owner, nodes in enumerate(nodes_of) for _ in nodes]
        self._seq = 0
        self.deaths = 0
        self.pool = [self._new() for _ in range(size)]

    def _new(self) -> Any:
        from actors.compaction.migration_actor import MigrationActor

        return MigrationActor.remote(self._owners)  # type: ignore[attr-defined]

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        work: dict[int, dict[tuple[int, ...], list[tuple[int, int]]]] = {}
        for node, compactor in turns:
            of_actor = work.setdefault((node + compactor) % len(self.pool), {})
            of_actor.setdefault((self._owner_of[node],), []).append((node, compactor))
        done: dict[tuple[int, int], bool] = self._call("take", work)
        return [done[turn] for turn in turns]

    def step(self, steps: Sequence[TransferStep]) -> list[StepResult]:
        work: dict[int, dict[tuple[int, ...], list[TransferStep]]] = {}
        for step in steps:
            owners = self._owner_of[step.node], self._owner_of[step.peer]
            of_actor = work.setdefault(step.transfer % len(self.pool), {})
            of_actor.setdefault(owners, []).append(step)
        results: dict[TransferStep, StepResult] = self._call("step", work)
        return [results[step] for step in steps]

    def ask(self, command: NodeCommand[AnswerT]) -> list[AnswerT]:
        found = answers([owner.ask.remote(command) for owner in self._owners])
        return [answer for of_owner in found for answer in of_owner]

    def _call(self, method: str, work: Mapping[int, Mapping[tuple[int, ...], list[T]]]) -> dict[T, Any]:
        """Let migration actors carry out turns or steps, by actor and owners; return the result of each."""
        self._seq += 1
        parts = {actor: [(*owners, turns) for owners, turns in to.items()] for actor, to in work.items()}
        calls = {actor: self._ask(actor, method, of_actor) for actor, of_actor in parts.items()}
        done: dict[T, Any] = {}
        for actor, call in calls.items():
            outcomes = self._outcomes(actor, call)
            while outcomes is None:
                outcomes = self._outcomes(actor, self._ask(actor, method, parts[actor]))
            for turns, of_owner in zip(work[actor].values(), outcomes, strict=True):
                done |= zip(turns, of_owner, strict=True)
        return done

    def _ask(self, actor: int, method: str, parts: list[Any]) -> Any:
        return getattr(self.pool[actor], method).remote(self._seq, parts)

    def _outcomes(self, actor: int, call: Any) -> list[list[Any]] | None:
        """Return the answer of a migration actor; if it died, replace it and return None."""
        from ray.exceptions import RayError, RayTaskError

        try:
            outcomes: list[list[Any]] = wait_for(call)
        except RayTaskError:
            return answers(call)  # type: ignore[no-any-return]
        except RayError as error:
            self._replace(actor, error)
            return None
        return outcomes

    def _replace(self, actor: int, error: Exception) -> None:
        import ray

        self.deaths += 1
        if self.deaths > MOST_DEATHS:
            raise SimulationError(f"migration actors died {self.deaths} times") from error
        ray.kill(self.pool[actor])  # It may be alive and out of reach.
        self.pool[actor] = self._new()

    def close(self) -> None:
        """End the migration actors."""
        import ray

        for actor in self.pool:
            ray.kill(actor)

    def save(self, folder: Path) -> list[SavedFile]:
        """Let the owners write their nodes' states between two rounds; return the files."""
        return save_actors(self._owners, folder)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Let the owners restore their nodes from a checkpoint."""
        restore_actors(self._owners, self._nodes_of, checkpoint)

    def finish(self) -> list[NodeReport]:
        """End the compaction; return the report of each node, in their order."""
        found: list[list[NodeReport]] = answers([owner.finish.remote() for owner in self._owners])
        return [report for of_owner in found for report in of_owner]
