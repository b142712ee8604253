"""Which actor has which nodes."""

from __future__ import annotations


def blocks(nodes: int, per_actor: int) -> list[list[int]]:
    """Nodes 0 .. nodes-1 in runs of `per_actor`, the last one maybe shorter."""
    return [list(range(first, min(first + per_actor, nodes))) for first in range(0, nodes, per_actor)]
