"""The states of nodes in a checkpoint: of nodes in this process, and of nodes that actors have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from actors.answers import answers
from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.state_files import SavedFile, write_state
from cluster.checkpoint.encode import Encoded


class NodesHost(Protocol):
    """Some of the nodes, in one process."""

    @property
    def nodes(self) -> Iterable[int]:
        """Their numbers."""

    def state(self, node: int) -> Encoded:
        """Return the state of a node, while no message is under way. The arrays are the node's own."""

    def restore(self, states: Iterable[tuple[int, Encoded]]) -> None:
        """Give each of these nodes the state that it had in another host. Raises DecodeError."""


def write_nodes(host: NodesHost, folder: Path) -> list[SavedFile]:
    """Write the states of its nodes into the folder of a checkpoint; return the files.

    Raises EncodeError for a state that no checkpoint can hold, UnwritableError if it cannot be written.
    """
    return [file for node in host.nodes for file in write_state(folder, _name_of(node), host.state(node))]


def read_nodes(host: NodesHost, checkpoint: Checkpoint) -> None:
    """Restore its nodes from a checkpoint. Raises DamagedError if it is not as it was written."""
    host.restore((node, checkpoint.read(_name_of(node))) for node in host.nodes)


HostT = TypeVar("HostT", bound=NodesHost)


class SavedNodes(Generic[HostT]):
    """The part of an actor that writes and restores its nodes' states, while no message is under way."""

    _host: HostT

    def save(self, folder: Path) -> list[SavedFile] | None:
        """Write the states of its nodes as `write_nodes` does. None: this machine has no such folder."""
        return write_nodes(self._host, folder) if folder.is_dir() else None

    def states(self) -> dict[int, Encoded]:
        """Return the states of its nodes."""
        return {node: self._host.state(node) for node in self._host.nodes}

    def restore(self, checkpoint: Checkpoint) -> bool:
        """Restore its nodes as `read_nodes` does; return False if this machine does not have it."""
        if not checkpoint.is_here():
            return False
        read_nodes(self._host, checkpoint)
        return True

    def take_state(self, node: int, state: Encoded) -> None:
        """Restore one of its nodes."""
        self._host.restore([(node, state)])


def save_actors(actors: list[Any], folder: Path) -> list[SavedFile]:
    """Let actors write the states of their nodes at the same time; return all files.

    Raises EncodeError, and UnwritableError.
    """
    files: list[SavedFile] = []
    for actor, of_actor in zip(actors, answers([a.save.remote(folder) for a in actors]), strict=True):
        if of_actor is None:
            states = answers(actor.states.remote())
            of_actor = [
                f for node, state in states.items() for f in write_state(folder, _name_of(node), state)
            ]
        files += of_actor
    return files


def restore_actors(actors: list[Any], nodes_of: list[list[int]], checkpoint: Checkpoint) -> None:
    """Let actors restore their nodes at the same time. Raises DamagedError."""
    found = answers([actor.restore.remote(checkpoint) for actor in actors])
    for actor, nodes, restored in zip(actors, nodes_of, found, strict=True):
        for node in [] if restored else nodes:
            answers(actor.take_state.remote(node, checkpoint.read(_name_of(node))))


def _name_of(node: int) -> str:
    """Return the name of the state of a node."""
    return f"node-{node}"
