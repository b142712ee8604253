"""What a window changes in the tables of the trees, collected first and carried out at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cluster.arrays.sorted_table import SortedTable
from cluster.arrays.words import I64, U64, Array, Bool, empty
from cluster.ksm.trees import Trees
from cluster.wire.mailbox import joined

#: Columns of a table by name, that of the digests under `digest`.
Columns = dict[str, Array]


@dataclass(slots=True)
class Changes:
    """Rows to go, and rows to come."""

    waits_gone: list[I64] = field(default_factory=list)
    waits: list[Columns] = field(default_factory=list)
    nodes_gone: list[I64] = field(default_factory=list)
    nodes: list[Columns] = field(default_factory=list)
    migrating: list[Columns] = field(default_factory=list)
    empty_chains: list[Columns] = field(default_factory=list)

    def wait(self, digests: U64, keys: I64, frames: I64) -> None:
        """These pages have been put into the unstable tree."""
        clean = np.zeros(len(keys), np.int32)
        holds = digests.view(np.int64)
        row: Columns = {"digest": digests, "key": keys, "frame": frames, "dirty": clean, "holds": holds}
        self.waits.append(row)

    def found(self, trees: Trees, digests: U64, frames: I64, counts: I64, dup: Bool) -> None:
        """New stable nodes with these KSM frames and so many items, in front of others of their contents."""
        new = len(digests)
        trees.front -= new
        order = trees.front + np.arange(new)[::-1]
        row: Columns = {"digest": digests, "frame": frames, "count": counts, "dup": dup, "order": order}
        self.nodes.append(row | {"dead": np.zeros(new, np.int8)})

    def carry_out(self, trees: Trees) -> None:
        trees.stable.remove(np.concatenate([empty(), *self.nodes_gone]))
        trees.unstable.remove(np.concatenate([empty(), *self.waits_gone]))
        _insert(trees.stable, self.nodes)
        _insert(trees.unstable, self.waits)
        _insert(trees.migrating, self.migrating)
        _insert(trees.empty_chains, self.empty_chains)


def _insert(table: SortedTable, parts: list[Columns]) -> None:
    """Adds rows to a table in one go."""
    parts = [part for part in parts if len(part["digest"])]
    if not parts:
        return
    names = ("digest", *table.columns)
    columns = dict(zip(names, joined([tuple(part[name] for name in names) for part in parts]), strict=True))
    digests = columns.pop("digest")
    if (digests[1:] < digests[:-1]).any():
        order = np.argsort(digests, kind="stable")
        digests = digests[order]
        columns = {name: values[order] for name, values in columns.items()}
    table.insert(digests, **columns)
