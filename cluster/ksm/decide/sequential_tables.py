"""Contents as objects: from the tables to `sequential` and `walk`, and back into changes of the tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

import numpy as np

from cluster.arrays.sorted_table import SortedTable, expand
from cluster.arrays.words import I64, Bool, Digests, block_of
from cluster.ksm.decide.batch import ContentBatch
from cluster.ksm.decide.message_rows import MessageRows
from cluster.ksm.decide.sequential import Content, UnstablePage, Visit, run
from cluster.ksm.decide.sorted_visits import SortedVisits
from cluster.ksm.decide.split_tries import ZerosGone
from cluster.ksm.decide.stable_nodes import ContentNodes, MergeRules, NodeOfContent
from cluster.ksm.decide.walk import Walk, WalkedContent
from cluster.ksm.page_updates import PageUpdates
from cluster.ksm.table_changes import Columns, TableChanges
from cluster.ksm.tree_shape import Shape
from cluster.ksm.visit import VisitKind


class OneByOne:
    """Decides contents of a batch one by one, and adds what follows to the changes and the messages."""

    def __init__(self, batch: ContentBatch, changes: TableChanges, updates: PageUpdates) -> None:
        self._batch = batch
        self._trees = batch.trees
        self._changes = changes
        self._updates = updates
        node = batch.trees.node
        self._messages = MessageRows(node.leaving_ends_age)
        mapcount = node.frames.mapcount
        self._rules = MergeRules(
            node.profile, node.limit, batch.window, lambda pfn: int(mapcount[pfn]), batch.tries
        )

    def decide(self, groups: I64) -> None:
        """Decide these contents, each by itself."""
        visits = self._batch.visits
        start = np.searchsorted(visits.group, groups, "left")
        count = np.searchsorted(visits.group, groups, "right") - start
        contents = self._contents(groups)
        before = [content.unstable_page.row for content in contents if content.unstable_page is not None]
        if contents and contents[0].digest == 0:
            before += self._decide_zeros(contents[0], visits, expand(start[:1], count[:1]))
            start, count = start[1:], count[1:]
        of_contents = iter(_as_objects(visits.of(expand(start, count))))
        for content, visited in zip(contents[len(contents) - len(count) :], count.tolist(), strict=True):
            before += self._run(content, list(islice(of_contents, visited)))
        self._keep(contents)
        pages = [(content.unstable_page, content.digest) for content in contents]
        self._keep_unstable(before, [(page, digest) for page, digest in pages if page and not page.lost])
        self._messages.add_to(self._updates)

    def _contents(self, groups: I64) -> list[Content]:
        """Return these contents as objects; their digests ascend."""
        batch = self._batch
        digests = batch.digests[groups]
        columns = (
            digests.tolist(),
            self._load(digests),
            self._unstable_pages(batch.waiting_row[groups]),
            batch.lost_row[groups].tolist(),
        )
        return [
            Content(digest, nodes, page or self._lost_page(lost_row), self._rules, self._messages)
            for digest, nodes, page, lost_row in zip(*columns, strict=True)
        ]

    def _run(self, content: Content, visits: list[Visit]) -> list[int]:
        """Decide visits one by one; return their rows in the unstable tree."""
        run([(content, visit) for visit in visits], self._rules.profile)
        return [visit.row for visit in visits]

    def _decide_zeros(self, content: Content, visits: SortedVisits, rows: I64) -> list[int]:
        """Decide the visits to pages of zeros; return the rows in the unstable tree of those decided singly.

        These are all but a few for each huge page, until a page that is gone ends all other searches.
        """
        thinned = self._thin_out(visits, rows)
        left = np.delete(rows, thinned - rows[0]) if len(rows) else rows
        plain = (visits.kind[left] == VisitKind.CANDIDATE) & (visits.row[left] < 0)
        may_end = self._rules.tries is not None and bool(plain.all())
        decided: list[int] = []
        low, high = 0, 2 if may_end else len(left)
        while low < len(left) and not (may_end and content.ends_searches):
            decided += self._run(content, _as_objects(visits.of(left[low:high])))
            low, high = high, 2 * high
        self._remove_thinned(visits.of(np.concatenate([thinned, left[low:]])))
        page = content.unstable_page
        if page is not None and self._rules.tries is not None:
            inserted = int(self._trees.node.position(np.array([page.key]))[0])
            self._rules.tries.zeros = ZerosGone(inserted, page.gone_at(self._rules.tries))
        return decided

    def _thin_out(self, visits: SortedVisits, rows: I64) -> I64:
        """Return visits to pages of zeros of huge pages that need not be decided.

        The pages are gone by then, or it does not matter whether they are.
        """
        tries = self._rules.tries
        if tries is None or not tries.zero_gone:
            return rows[:0]
        simple = np.isin(visits.kind[rows], (VisitKind.CANDIDATE, VisitKind.HUGE_ZERO)).all()
        rows = rows[tries.takes_away(visits.frame[rows]) & (visits.row[rows] < 0)]
        tries.assume_planned()
        thinned = tries.split_before(block_of(visits.frame[rows]), visits.pos[rows])
        if simple:
            there = np.flatnonzero(~thinned)
            some = rows[there]
            thinned[there] = tries.thin_out(block_of(visits.frame[some]), visits.pos[some])
        return rows[thinned]

    def _remove_thinned(self, visits: SortedVisits) -> None:
        """Let those of these visits whose huge pages nothing has split find searches blocked."""
        if len(visits.key) and self._rules.tries is not None:
            split = self._rules.tries.split_before(block_of(visits.frame), visits.pos)
            keys = visits.key[~split]
            self._messages.removed_from_trees += [(key, 0) for key in keys.tolist()]

    def walk(self, shape: Shape) -> None:
        """Decide the whole batch, search by search, on trees of this shape, which changes."""
        unstable, visits = self._trees.unstable, self._batch.visits
        visited = self._batch.digests[np.unique(visits.group)]
        loaded = dict(zip(visited.tolist(), self._load(visited), strict=True))

        def load(digest: int, walk: Walk) -> WalkedContent:
            nodes = loaded.pop(digest, None) or self._load(np.array([digest], np.uint64))[0]
            return WalkedContent(digest, nodes, self._rules, self._messages, walk)

        walk = Walk(shape, load, self._changed_by_searches(), self._rules.tries)
        rows = np.flatnonzero(np.isin(unstable["key"], shape.unstable_keys()))
        holds = unstable["holds"][rows].view(np.uint64).tolist()
        for page, held in zip(self._unstable_pages(rows), holds, strict=True):
            assert page is not None
            walk.unstable_pages[page.key] = page
            walk.holds[page.key] = held
        before = [page.row for page in walk.unstable_pages.values()] + visits.row.tolist()
        # Of visits at one position, an item's leaving comes first.
        order = np.lexsort((~np.isin(visits.kind, (VisitKind.LEAVE, VisitKind.ERASE)), visits.pos))
        visits = visits.of(order)
        pairs = zip(self._batch.digests[visits.group].tolist(), _as_objects(visits), strict=True)
        run([(walk.content(digest), visit) for digest, visit in pairs], self._rules.profile)
        self._keep(walk.contents.values())
        self._keep_unstable(before, [(page, walk.holds[key]) for key, page in walk.unstable_pages.items()])
        self._messages.add_to(self._updates)

    # From the tables.

    def _changed_by_searches(self) -> set[int]:
        """Return the contents that a search changes when it passes by: those with dups or dead nodes."""
        stable = self._trees.stable
        changed = (stable["dup"] == 1) | (stable["dead"] == 1)
        return {*stable.digest[changed].tolist(), *self._trees.empty_chains.digest.tolist()}

    def _load(self, digests: Digests) -> list[ContentNodes]:
        """Return what the tables have of these contents; its rows are to go, and `_keep` adds others."""
        trees, stable, changes = self._trees, self._trees.stable, self._changes
        of, row = stable.rows(digests)
        order = np.lexsort((stable["order"][row], of))
        of, row = of[order], row[order]
        of_migrating, migrating_row = trees.migrating.rows(digests)
        of_chain, empty_chain = trees.empty_chains.rows(digests)
        changes.stable_gone.append(row)
        changes.migrating_gone.append(migrating_row)
        changes.empty_chains_gone.append(empty_chain)
        chain = np.zeros(len(digests), np.bool_)
        chain[of_chain] = chain[of[stable["dup"][row] == 1]] = True
        away = trees.node.away(stable["frame"][row])
        in_tree = _from_rows(len(digests), of, stable, row, away)
        at_home = np.zeros(len(migrating_row), np.bool_)
        migrating = _from_rows(len(digests), of_migrating, trees.migrating, migrating_row, at_home)
        return [
            ContentNodes(nodes, waiting, self._rules, self._messages, chain=is_chain)
            for nodes, waiting, is_chain in zip(in_tree, migrating, chain.tolist(), strict=True)
        ]

    def _unstable_pages(self, rows: I64) -> list[UnstablePage | None]:
        """Return the pages in these rows of the unstable tree; None where the row is -1."""
        unstable, there = self._trees.unstable, rows[rows >= 0]
        blocked = unstable.blocks_search(there).tolist()
        columns = (
            unstable["key"][there].tolist(),
            unstable["frame"][there].tolist(),
            blocked,
            there.tolist(),
        )
        pages = map(UnstablePage, *columns)
        return [next(pages) if row >= 0 else None for row in rows.tolist()]

    def _lost_page(self, row: int) -> UnstablePage | None:
        if row < 0:
            return None
        lost = self._trees.unstable.lost
        return UnstablePage(int(lost["key"][row]), int(lost["frame"][row]), blocked=False, lost=True)

    # And back.

    def _keep(self, contents: Collection[Content]) -> None:
        """Add the rows of these contents."""
        changes = self._changes
        columns = _to_columns([(content.digest, content.nodes.in_tree) for content in contents])
        columns["dup"] = np.array(
            [int(of.nodes.chain) for of in contents for _ in of.nodes.in_tree], np.int64
        )
        count = len(columns["dup"])
        columns["order"] = changes.take_front(count) + np.arange(count)
        changes.stable_added.append(columns)
        empty_chains = [of.digest for of in contents if of.nodes.chain and not of.nodes.in_tree]
        changes.empty_chains_added.append({"digest": np.array(empty_chains, np.uint64)})
        changes.migrating_added.append(_to_columns([(of.digest, of.nodes.migrating) for of in contents]))

    def _keep_unstable(self, before: list[int], after: list[tuple[UnstablePage, int]]) -> None:
        """Remove and add rows of pages in the unstable tree.

        `before` are rows of pages that waited, or -1; `after` pages that wait now, with what they hold.
        """
        kept = {page.row for page, _ in after}
        gone = sorted({row for row in before if row >= 0 and row not in kept})
        self._changes.unstable_gone.append(np.array(gone, np.int64))
        new = [(digest, page) for page, digest in after if page.row < 0]
        digests = np.array([digest for digest, _ in new], np.uint64)
        keys, frames = np.array([(page.key, page.frame) for _, page in new], np.int64).reshape(-1, 2).T
        self._changes.add_unstable(digests, keys, frames)
        self._updates.insert_unstable(keys, digests)


def _as_objects(visits: SortedVisits) -> list[Visit]:
    """Return visits one by one."""
    columns = (column.tolist() for column in (visits.pos, visits.key, visits.frame, visits.kind, visits.row))
    return [
        Visit(pos, key, frame, VisitKind(kind), row)
        for pos, key, frame, kind, row in zip(*columns, strict=True)
    ]


def _from_rows(
    contents: int, of: I64, table: SortedTable, rows: I64, away: Bool
) -> list[list[NodeOfContent]]:
    """Return rows of stable nodes as objects, by content; `of` are the contents of the rows."""
    found: list[list[NodeOfContent]] = [[] for _ in range(contents)]
    columns = (table[name][rows].tolist() for name in ("frame", "count", "dead"))
    for content, frame, count, dead, gone in zip(of.tolist(), *columns, away.tolist(), strict=True):
        found[content].append(NodeOfContent(frame, count, dead == 1, gone))
    return found


def _to_columns(nodes_of: Sequence[tuple[int, Sequence[NodeOfContent]]]) -> Columns:
    """Return the stable nodes of contents as rows."""
    rows = [(node.frame, node.count, int(node.dead)) for _, nodes in nodes_of for node in nodes]
    frame, count, dead = np.array(rows, np.int64).reshape(-1, 3).T
    digests = np.array([digest for digest, nodes in nodes_of for _ in nodes], np.uint64)
    return {"digest": digests, "frame": frame, "count": count, "dead": dead}
