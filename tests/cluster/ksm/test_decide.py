"""A window's decision is a function of the tables and the visits that arrived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.arrays.rbtree import RbNode
from cluster.ksm import merge_window
from cluster.ksm.decide.decide_window import Decision, decide
from cluster.ksm.tree_shape import Shape
from cluster.ksm.trees import Trees
from cluster.ksm.visit import Arrivals
from cluster.script.runner import ScriptTopology
from cluster.wire.mailbox import Mail, Outbox
from cluster.wire.window import Window
from tests.cluster.machine.engines import play, vector
from tests.cluster.machine.scripts import Script, mid_pass_scripts, scripts

#: Dups that are recounted, moved to the front, and pruned; pages that change while they wait.
CHAINS = Script(
    "6.12",
    ScriptTopology(2),
    "set max_page_sharing 2\nset stable_node_chains_prune_millisecs 0\nproc A\nmap A x 12\n"
    "fill A x 0 12 mod 1 2\nmergeable A x\nscan 2\nfill A x 0 5 mod 9 2\nbatch 3\nfill A x 6 4 seq 7\nscan 2",
)


def shape_of(shape: Shape | None) -> object:
    """The entries of trees in the order of their insertion, and from the top with their colours."""
    if shape is None:
        return None
    keys = shape.stable_digests(), shape.unstable_keys()
    return keys, below(shape.stable.root, "digest"), below(shape.unstable.root, "key")


def below(node: RbNode | None, name: str) -> object:
    """A part of a tree."""
    return None if node is None else (getattr(node, name), node.red, [below(n, name) for n in node.child])


@contextmanager
def read_only(trees: Trees) -> Iterator[None]:
    """Inside, no column of the trees' tables can be written, nor another one put in its place unseen."""
    tables = [trees.stable, trees.unstable, trees.migrating, trees.empty_chains]
    columns = [column for table in tables for column in (table.digest, *table.columns.values())]
    columns.append(trees.recheck)
    writeable = [column.flags.writeable for column in columns]
    before = (trees.front, trees.version, shape_of(trees.shape))
    for column in columns:
        column.flags.writeable = False
    yield
    for column, was in zip(columns, writeable, strict=True):
        column.flags.writeable = was
    now = [column for table in tables for column in (table.digest, *table.columns.values())]
    assert [id(column) for column in [*now, trees.recheck]] == [id(column) for column in columns]
    assert (trees.front, trees.version, shape_of(trees.shape)) == before


def sent(decision: Decision, nodes: int) -> Mail:
    """The messages of a decision."""
    out = Outbox(0, nodes)
    decision.messages.send(out, nodes)
    return out.pack()


def changed(decision: Decision) -> dict[str, object]:
    """What a decision changes in the tables, by name."""
    changes = decision.table_changes
    return vars(changes) | {"shape": shape_of(changes.shape)}


def assert_same(ours: Any, theirs: Any) -> None:
    """Nested tuples, lists and dictionaries with arrays in them are equal."""
    np.testing.assert_equal(ours, theirs)


def decide_twice(trees: Trees, window: Window, arrivals: Arrivals) -> Decision:
    """The decision, found twice: nothing has changed, nothing is sent, and the second one is the same."""
    node = trees.node
    with read_only(trees), patch.object(node, "out", Outbox(node.id, node.nodes)):
        first = decide(trees, window, arrivals)
        second = decide(trees, window, arrivals)
        assert not node.out.pack().tables
    assert_same(sent(first, node.nodes), sent(second, node.nodes))
    assert_same(changed(first), changed(second))
    return second


@settings(max_examples=60, deadline=None)
@given(scripts() | mid_pass_scripts(), st.booleans())
@example(CHAINS, True)
@example(CHAINS, False)
def test_deciding_changes_nothing(script: Script, tree_shape: bool) -> None:
    plain = play(script.text, vector(script.kernel, script.topology, tree_shape=tree_shape), script.topology)
    with patch.object(merge_window, "decide", decide_twice):
        twice = play(
            script.text, vector(script.kernel, script.topology, tree_shape=tree_shape), script.topology
        )
    assert twice == plain
