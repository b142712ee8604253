"""What the trees of one node tell the nodes of pages and frames after a window."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U8, U64, node_of_frame, node_of_key
from cluster.mm.node_state import NodeState
from cluster.wire.messages import Kind


class Effects:
    """Names what becomes of pages, by item key, and sends it."""

    def __init__(self, node: NodeState) -> None:
        self._n = node

    def rekey(self, keys: I64, digests: U64) -> None:
        """These pages have contents of other digests by now; to be told with what becomes of them."""
        self._n.out.send(Kind.REKEY, node_of_key(keys), keys, digests)

    def found_nodes(self, keys: I64, frames: I64) -> None:
        """The frames of these pages become KSM frames, with stable nodes."""
        out = self._n.out
        out.send(Kind.MAKE_KSM, node_of_frame(frames), frames)
        out.send(Kind.STABLE, node_of_key(keys), keys, frames)

    def map(self, keys: I64, frames: I64) -> None:
        """These pages map KSM frames instead of their own; the frames are told by `get`."""
        self._n.out.send(Kind.MERGE, node_of_key(keys), keys, frames)

    def get(self, frames: I64, count: I64) -> None:
        """So many pages more map these frames."""
        self._n.out.send(Kind.GET, node_of_frame(frames), frames, count)

    def wait(self, keys: I64, digests: U64) -> None:
        """These pages have been put into the unstable tree."""
        self._n.out.send(Kind.WAIT, node_of_key(keys), keys, digests)

    def hang(self, keys: I64, unseen: U8) -> None:
        """The items of these pages hang on the stable nodes of the frames that they map anyway."""
        self._n.out.send(Kind.ADDED_TO_STABLE, node_of_key(keys), keys, unseen)

    def loosen(self, keys: I64, seen: U8) -> None:
        """The items of these pages are in no tree."""
        self._n.out.send(Kind.REMOVED_FROM_TREES, node_of_key(keys), keys, seen)

    def break_out(self, keys: I64, frames: I64, digests: U64) -> None:
        """The frames of these pages become KSM frames without stable nodes, and are left again."""
        out = self._n.out
        out.send(Kind.MAKE_KSM, node_of_frame(frames), frames)
        out.send(Kind.BREAK, node_of_key(keys), keys, frames, digests)

    def map_zero(self, keys: I64) -> None:
        """These pages map the shared zero page instead of frames."""
        self._n.out.send(Kind.MAP_ZERO, node_of_key(keys), keys)

    def drop(self, frames: I64) -> None:
        """These stable nodes are gone with all their items, whose pages may be anywhere."""
        self._to_all(Kind.DROPPED, frames)

    def land(self, frames: I64) -> None:
        """Stable nodes are in the trees of their frames' nodes again."""
        self._to_all(Kind.LANDED, frames)

    def unlink(self, frames: I64) -> None:
        """Stable nodes whose frames have migrated are not in their old trees any more."""
        self._to_all(Kind.UNLINKED, frames)

    def orphan(self, frames: I64) -> None:
        """Stable nodes are gone whose frames are still in swap caches."""
        self._to_all(Kind.ORPHANED, frames)

    def _to_all(self, kind: Kind, frames: I64) -> None:
        nodes = self._n.nodes
        self._n.out.send(kind, np.repeat(np.arange(nodes), len(frames)), np.tile(frames, nodes))
