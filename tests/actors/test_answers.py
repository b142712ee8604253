"""What comes out of an actor that fails, in whatever form Ray reports it."""

from __future__ import annotations

import os
import pickle
import signal
from typing import Any

import numpy as np
import pytest
import ray

from actors.answers import ActorLostError, answers


@ray.remote(num_cpus=0)
class Greedy:
    """Wants more than any machine has."""

    def want(self) -> None:
        np.zeros(1 << 60, np.uint8)

    def pid(self) -> int:
        return os.getpid()

    def put(self) -> list[Any]:
        """Return a reference to an object of its own."""
        return [ray.put(np.zeros(1 << 20, np.uint8))]

    def ask(self, other: Any) -> Any:
        """Wait for another actor, in Ray's own way."""
        return ray.get(other.pid.remote())

    def take(self, found: Any) -> int:
        return len(found)


def greedy() -> tuple[Any, int]:
    actor = Greedy.remote()  # type: ignore[attr-defined]
    return actor, answers(actor.pid.remote())


def test_want_of_memory_comes_out_as_itself(ray_cluster: str) -> None:
    with pytest.raises(MemoryError):
        answers(greedy()[0].want.remote())


def test_a_death_says_which_actor_and_where(ray_cluster: str) -> None:
    actor, pid = greedy()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorLostError, match=r"^an actor on \S+ died: its process was killed or cr") as found:
        answers([actor.pid.remote(), actor.pid.remote()])
    assert found.value.actor == actor._actor_id.hex()
    # It travels from the coordinator to the driver.
    assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value)


def test_a_death_that_another_actor_saw(ray_cluster: str) -> None:
    """RayTaskError around ActorDiedError."""
    (dead, pid), (other, _) = greedy(), greedy()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorLostError, match="died: its process was killed or crashed"):
        answers(other.ask.remote(dead))


def test_an_argument_whose_owner_died(ray_cluster: str) -> None:
    (owner, pid), (other, _) = greedy(), greedy()
    (owned,) = answers(owner.put.remote())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorLostError) as found:
        for _ in range(1000):  # until Ray has noticed
            answers(other.take.remote(owned))
    assert "\n" not in str(found.value)
