"""Which nodes map whose KSM frames: node_pairs.parquet.

docs/reference/results.md describes its columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cluster.spec.topology import Distances
from ksmcluster.results.columns import ColumnTable


class NodePairs(ColumnTable):
    """Columns: `statistics.OF_PAIR`. One row per pair of nodes with KSM mappings; all int64."""


def node_pairs(mappings: NDArray[np.int64], distance: Distances) -> NodePairs:
    """Return the pairs with mappings, int64[nodes, nodes] by the processes' node and the frames'."""
    node, frame_node = np.nonzero(mappings)
    return NodePairs(
        node=node,
        frame_node=frame_node,
        distance=distance[node, frame_node].astype(np.int64),
        ksm_mappings=mappings[node, frame_node],
    )


def matrix(table: Mapping[str, ArrayLike], nodes: int) -> NDArray[np.int64]:
    """Return the mappings of the table as int64[nodes, nodes]."""
    mappings = np.zeros((nodes, nodes), np.int64)
    mappings[np.asarray(table["node"]), np.asarray(table["frame_node"])] = table["ksm_mappings"]
    return mappings
