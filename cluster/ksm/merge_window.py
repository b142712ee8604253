"""One scan window in the trees of one node: decide, apply, tell."""

from __future__ import annotations

from cluster.ksm.decide.decide_window import decide
from cluster.ksm.trees import Trees
from cluster.wire.window import Window


def merge_window(trees: Trees, window: Window) -> None:
    """Decide the visits that arrived, change the tables once, and send all messages once."""
    trees.start_window(window)
    decision = decide(trees, window, trees.take_arrivals())
    trees.apply(decision.table_changes)
    decision.messages.send(trees.node.out, trees.node.nodes)
