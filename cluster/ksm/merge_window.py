"""One scan window in the trees of one node: decide, apply, tell."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import Digests, empty, node_of_key
from cluster.ksm.decide.decide_window import Decision, WindowVisits, decide
from cluster.ksm.decide.split_tries import SplitTries
from cluster.ksm.trees import Trees
from cluster.wire.messages import Kind
from cluster.wire.window import Window


def merge_window(trees: Trees, window: Window) -> None:
    """Decide the visits that arrived, change the tables once, and send all messages once."""
    trees.start_window(window)
    _carry_out(trees, decide(trees, window, trees.take_arrivals()))


def _carry_out(trees: Trees, decision: Decision) -> None:
    trees.apply(decision.table_changes)
    decision.messages.send(trees.node.out, trees.node.nodes)


class HugeWindow:
    """A window with huge pages: decided again as splits become known (`cluster.ksm.decide.split_tries`)."""

    def __init__(self, trees: Trees, window: Window) -> None:
        self._trees = trees
        trees.start_window(window)
        self._visits = WindowVisits(trees, window, trees.take_arrivals(), huge=True)
        self._decide(empty(np.uint64))

    def _decide(self, routed: Digests) -> None:
        node = self._trees.node
        self._version = node.split_times.version
        self._tries = SplitTries(node.split_times, routed, node.profile, node.failed)
        self._decision = self._visits.decide(self._tries)

    def tell_tries(self) -> None:
        """Decide again if what is known of splits matters, and tell the owners of huge pages the tries."""
        node = self._trees.node
        if self._tries.one_by_one and self._version != node.split_times.version:
            self._decide(self._tries.not_as_planned())
        while len(routed := self._tries.not_as_planned()) > len(self._tries.routed):
            self._decide(routed)
        rows = self._tries.rows()
        node.out.send(Kind.SPLIT_TRY, node_of_key(rows.key), *rows)

    def merge(self) -> None:
        """Carry out what was decided last."""
        self._trees.node.counters["thp_split_page_failed"] += self._tries.self_pairs
        _carry_out(self._trees, self._decision)
