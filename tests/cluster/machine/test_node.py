"""A node handles every command and every kind of message, and quiet messages quietly."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from cluster.machine.node import Node
from cluster.mm.faults import Faults
from cluster.spec.compaction import CompactionSpec
from cluster.spec.scenario import KsmSpec, MachineSpec, SimulationSpec
from cluster.spec.topology import ring
from cluster.wire.commands import Command
from cluster.wire.messages import MESSAGES, Kind

ONE = np.ones(1, np.int64)


def node_of_two(migration: CompactionSpec | None) -> Node:
    machine = MachineSpec(2, 1024, ring(2))
    return Node(0, SimulationSpec(machine, KsmSpec(), (), migration=migration), {})


def test_every_message_and_command_has_a_handler() -> None:
    node = node_of_two(CompactionSpec(2, 1024, ()))
    assert set(MESSAGES) == set(Kind) == set(node._messages)
    assert set(get_args(Command)) == set(node._commands)


def test_a_quiet_message_that_is_replied_to_is_an_error() -> None:
    """GET is quiet; here its handler replies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Faults, "on_get", lambda faults, frames, _: faults._n.out.send(Kind.PUT, 1, frames))
        node = node_of_two(None)
        with pytest.raises(RuntimeError, match="GET is declared quiet"):
            node.step(None, {Kind.GET: (ONE, ONE)})
