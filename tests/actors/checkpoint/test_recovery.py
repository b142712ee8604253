"""What ends a run whose actors die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.answers import ActorLostError
from actors.checkpoint.recovery import recovered
from actors.runtime import CannotJoinError
from cluster.spec.errors import LostError


def test_a_cluster_that_was_there_is_lost() -> None:
    """As when the head dies with its actors: the passes before stay, and the run may be continued."""
    deaths: list[Exception] = [ActorLostError("its machine died"), CannotJoinError("Connection refused")]

    def attempt(_checkpoint: object) -> Iterator[int]:
        yield 1
        raise deaths.pop(0)

    yielded = []
    with pytest.raises(LostError, match=r"^the head of the Ray cluster is lost, in pass 2$"):
        yielded += recovered(attempt, None, 3, lambda _event: None, "pass")
    assert not deaths


def test_a_cluster_that_never_answered_is_a_mistake() -> None:
    def attempt(_checkpoint: object) -> Iterator[int]:
        raise CannotJoinError("Connection refused")
        yield 1

    with pytest.raises(CannotJoinError):
        list(recovered(attempt, None, 3, lambda _event: None, "pass"))
