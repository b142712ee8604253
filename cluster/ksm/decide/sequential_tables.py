"""Contents as objects: from the tables to `merge_odd` and `walk`, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.arrays.sorted_table import SortedTable
from cluster.arrays.words import I64, U64, Bool
from cluster.ksm.decide.events import Events
from cluster.ksm.decide.sequential import Content, Node, Outcome, Rules, UnstablePage, Visit, run
from cluster.ksm.decide.table_changes import Changes, Columns
from cluster.ksm.decide.walk import Walk, WalkedContent
from cluster.ksm.effects import Effects
from cluster.ksm.tree_shape import Shape
from cluster.ksm.trees import Trees
from cluster.ksm.visit import Event
from cluster.wire.window import Window


@dataclass(slots=True)
class _Loaded:
    """What the tables have of one content in the stable tree."""

    nodes: list[Node]
    chain: bool
    migrating: list[Node]


class OneByOne:
    def __init__(self, trees: Trees, window: Window, effects: Effects, changes: Changes) -> None:
        self._trees = trees
        self._window = window
        self._effects = effects
        self._changes = changes
        self._outcome = Outcome()
        node = trees.node
        mapcount = node.frames.mapcount
        self._rules = Rules(node.profile, node.limit, window, lambda pfn: int(mapcount[pfn]))

    def decide(self, groups: I64, digests: U64, events: Events, waiting_row: I64) -> None:
        """Contents by themselves; of all contents of the window these are the digests, the events, and the
        pages in the unstable tree."""
        start = np.searchsorted(events.group, groups, "left")
        stop = np.searchsorted(events.group, groups, "right")
        for group, low, high in zip(groups.tolist(), start.tolist(), stop.tolist(), strict=True):
            digest = int(digests[group])
            loaded = self._load(digest)
            waiter = self._waiter(int(waiting_row[group]))
            content = Content(
                digest, loaded.nodes, loaded.chain, loaded.migrating, waiter, self._rules, self._outcome
            )
            of_content = _happenings(events.of(np.arange(low, high)))
            run([(content, event) for event in of_content], self._rules.profile)
            self._keep(content)
            before = [event.row for event in of_content] + [waiter.row if waiter else -1]
            self._keep_waiting(before, [(content.waiter, digest)] if content.waiter else [])
        self._outcome.tell(self._effects)

    def walk(self, shape: Shape, digests: U64, events: Events) -> None:
        """The whole window, search by search."""
        walk = Walk(shape, self._walked, self._odd())
        for row in np.flatnonzero(np.isin(self._trees.unstable["key"], list(shape.perched()))).tolist():
            waiter = self._waiter(row)
            assert waiter is not None
            walk.waiters[waiter.key] = waiter
            walk.holds[waiter.key] = int(self._trees.unstable["holds"][row : row + 1].view(np.uint64)[0])
        before = [waiter.row for waiter in walk.waiters.values()] + events.row.tolist()
        # Of events at one position, an item's leaving comes first.
        order = np.lexsort((~np.isin(events.kind, (Event.LEAVE, Event.ERASE)), events.pos))
        events = events.of(order)
        pairs = zip(digests[events.group].tolist(), _happenings(events), strict=True)
        run([(walk.content(digest), event) for digest, event in pairs], self._rules.profile)
        for content in walk.contents.values():
            self._keep(content)
        self._keep_waiting(before, [(waiter, walk.holds[key]) for key, waiter in walk.waiters.items()])
        self._outcome.tell(self._effects)

    # From the tables.

    def _odd(self) -> set[int]:
        """Contents at which a search does something in passing."""
        stable = self._trees.stable
        odd = (stable["dup"] == 1) | (stable["dead"] == 1)
        return {*stable.digest[odd].tolist(), *self._trees.empty_chains.digest.tolist()}

    def _walked(self, digest: int, walk: Walk) -> WalkedContent:
        loaded = self._load(digest)
        return WalkedContent(
            digest, loaded.nodes, loaded.chain, loaded.migrating, self._rules, self._outcome, walk
        )

    def _load(self, digest: int) -> _Loaded:
        """A content leaves the tables."""
        trees, stable = self._trees, self._trees.stable
        digests = np.array([digest], np.uint64)
        _, row = stable.rows(digests)
        row = row[np.argsort(stable["order"][row])]
        self._changes.nodes_gone.append(row)
        _, migrating_row = trees.migrating.rows(digests)
        migrating = _nodes(trees.migrating, migrating_row, np.zeros(len(migrating_row), np.bool_))
        trees.migrating.remove(migrating_row)
        _, empty_chain = trees.empty_chains.rows(digests)
        trees.empty_chains.remove(empty_chain)
        chain = len(empty_chain) > 0 or bool(stable["dup"][row].any())
        return _Loaded(_nodes(stable, row, trees.node.away(stable["frame"][row])), chain, migrating)

    def _waiter(self, row: int) -> UnstablePage | None:
        if row < 0:
            return None
        unstable, rows = self._trees.unstable, np.array([row])
        blocked = bool(self._trees.in_the_way(rows)[0])
        return UnstablePage(int(unstable["key"][row]), int(unstable["frame"][row]), blocked, row)

    # And back.

    def _keep(self, content: Content) -> None:
        nodes = len(content.nodes)
        self._trees.front -= nodes
        columns = _columns(content.digest, content.nodes)
        columns["dup"] = np.full(nodes, int(content.chain))
        columns["order"] = self._trees.front + np.arange(nodes)
        self._changes.nodes.append(columns)
        if content.chain and nodes == 0:
            self._changes.empty_chains.append({"digest": np.array([content.digest], np.uint64)})
        self._changes.migrating.append(_columns(content.digest, content.migrating))

    def _keep_waiting(self, before: list[int], after: list[tuple[UnstablePage, int]]) -> None:
        """`before` are rows of pages that waited, or -1; `after` the pages that do, with what they hold."""
        kept = {waiter.row for waiter, _ in after}
        gone = sorted({row for row in before if row >= 0 and row not in kept})
        self._changes.waits_gone.append(np.array(gone, np.int64))
        new = [(digest, waiter.key, waiter.frame) for waiter, digest in after if waiter.row < 0]
        table = np.array(new, np.uint64).reshape(-1, 3)
        keys, frames = table[:, 1].astype(np.int64), table[:, 2].astype(np.int64)
        self._changes.wait(table[:, 0], keys, frames)
        self._effects.wait(keys, table[:, 0])


def _happenings(events: Events) -> list[Visit]:
    columns = (getattr(events, name).tolist() for name in ("pos", "key", "frame", "kind", "row"))
    return [
        Visit(pos, key, frame, Event(kind), row) for pos, key, frame, kind, row in zip(*columns, strict=True)
    ]


def _nodes(table: SortedTable, rows: I64, away: Bool) -> list[Node]:
    """Stable nodes as objects."""
    columns = (table[name][rows].tolist() for name in ("frame", "count", "dead"))
    return [
        Node(frame, count, dead == 1, gone)
        for frame, count, dead, gone in zip(*columns, away.tolist(), strict=True)
    ]


def _columns(digest: int, nodes: list[Node]) -> Columns:
    """Stable nodes as rows."""
    rows = [(node.frame, node.count, int(node.dead)) for node in nodes]
    frame, count, dead = np.array(rows, np.int64).reshape(-1, 3).T
    digests = np.full(len(nodes), digest, np.uint64)
    return {"digest": digests, "frame": frame, "count": count, "dead": dead}
