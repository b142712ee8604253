"""Contents as objects: from the tables to `sequential` and `walk`, and back into changes of the tables."""

from __future__ import annotations

import numpy as np

from cluster.arrays.sorted_table import SortedTable
from cluster.arrays.words import I64, Bool, block_of
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
        batch, visits = self._batch, self._batch.visits
        start = np.searchsorted(visits.group, groups, "left")
        stop = np.searchsorted(visits.group, groups, "right")
        for group, low, high in zip(groups.tolist(), start.tolist(), stop.tolist(), strict=True):
            digest = int(batch.digests[group])
            page = self._unstable_page(int(batch.waiting_row[group]))
            page = page or self._lost_page(int(batch.lost_row[group]))
            content = Content(digest, self._load(digest), page, self._rules, self._messages)
            rows = np.arange(low, high)
            if digest == 0:
                of_content = self._decide_zeros(content, visits, rows)
            else:
                of_content = self._run(content, visits.of(rows))
            if digest == 0 and content.unstable_page is not None and batch.tries is not None:
                inserted = int(self._trees.node.position(np.array([content.unstable_page.key]))[0])
                batch.tries.zeros = ZerosGone(inserted, content.unstable_page.gone_at(batch.tries))
            self._keep(content)
            before = [visit.row for visit in of_content] + [page.row if page else -1]
            page = content.unstable_page
            self._keep_unstable(before, [(page, digest)] if page and not page.lost else [])
        self._messages.add_to(self._updates)

    def _run(self, content: Content, visits: SortedVisits) -> list[Visit]:
        """Decide visits one by one, and return them."""
        of_content = _as_objects(visits)
        run([(content, visit) for visit in of_content], self._rules.profile)
        return of_content

    def _decide_zeros(self, content: Content, visits: SortedVisits, rows: I64) -> list[Visit]:
        """Decide the visits to pages of zeros; return those that are decided one by one.

        These are all but a few for each huge page, until a page that is gone ends all other searches.
        """
        thinned = self._thin_out(visits, rows)
        left = np.delete(rows, thinned - rows[0]) if len(rows) else rows
        plain = (visits.kind[left] == VisitKind.CANDIDATE) & (visits.row[left] < 0)
        may_end = self._rules.tries is not None and bool(plain.all())
        decided: list[Visit] = []
        low, high = 0, 2 if may_end else len(left)
        while low < len(left) and not (may_end and content.ends_searches):
            decided += self._run(content, visits.of(left[low:high]))
            low, high = high, 2 * high
        self._remove_thinned(visits.of(np.concatenate([thinned, left[low:]])))
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
        walk = Walk(shape, self._load_walked, self._changed_by_searches(), self._rules.tries)
        for row in np.flatnonzero(np.isin(unstable["key"], shape.unstable_keys())).tolist():
            page = self._unstable_page(row)
            assert page is not None
            walk.unstable_pages[page.key] = page
            walk.holds[page.key] = int(unstable["holds"][row : row + 1].view(np.uint64)[0])
        before = [page.row for page in walk.unstable_pages.values()] + visits.row.tolist()
        # Of visits at one position, an item's leaving comes first.
        order = np.lexsort((~np.isin(visits.kind, (VisitKind.LEAVE, VisitKind.ERASE)), visits.pos))
        visits = visits.of(order)
        pairs = zip(self._batch.digests[visits.group].tolist(), _as_objects(visits), strict=True)
        run([(walk.content(digest), visit) for digest, visit in pairs], self._rules.profile)
        for content in walk.contents.values():
            self._keep(content)
        self._keep_unstable(before, [(page, walk.holds[key]) for key, page in walk.unstable_pages.items()])
        self._messages.add_to(self._updates)

    # From the tables.

    def _changed_by_searches(self) -> set[int]:
        """Return the contents that a search changes when it passes by: those with dups or dead nodes."""
        stable = self._trees.stable
        changed = (stable["dup"] == 1) | (stable["dead"] == 1)
        return {*stable.digest[changed].tolist(), *self._trees.empty_chains.digest.tolist()}

    def _load_walked(self, digest: int, walk: Walk) -> WalkedContent:
        return WalkedContent(digest, self._load(digest), self._rules, self._messages, walk)

    def _load(self, digest: int) -> ContentNodes:
        """Return what the tables have of a content; its rows are to go, and `_keep` adds others."""
        trees, stable, changes = self._trees, self._trees.stable, self._changes
        digests = np.array([digest], np.uint64)
        _, row = stable.rows(digests)
        row = row[np.argsort(stable["order"][row])]
        _, migrating_row = trees.migrating.rows(digests)
        _, empty_chain = trees.empty_chains.rows(digests)
        changes.stable_gone.append(row)
        changes.migrating_gone.append(migrating_row)
        changes.empty_chains_gone.append(empty_chain)
        nodes = _from_rows(stable, row, trees.node.away(stable["frame"][row]))
        migrating = _from_rows(trees.migrating, migrating_row, np.zeros(len(migrating_row), np.bool_))
        chain = len(empty_chain) > 0 or bool(stable["dup"][row].any())
        return ContentNodes(nodes, migrating, self._rules, self._messages, chain=chain)

    def _unstable_page(self, row: int) -> UnstablePage | None:
        if row < 0:
            return None
        unstable, rows = self._trees.unstable, np.array([row])
        blocked = bool(unstable.blocks_search(rows)[0])
        return UnstablePage(int(unstable["key"][row]), int(unstable["frame"][row]), blocked, row)

    def _lost_page(self, row: int) -> UnstablePage | None:
        if row < 0:
            return None
        lost = self._trees.unstable.lost
        return UnstablePage(int(lost["key"][row]), int(lost["frame"][row]), blocked=False, lost=True)

    # And back.

    def _keep(self, content: Content) -> None:
        """Add the rows of a content."""
        changes, nodes, count = self._changes, content.nodes, len(content.nodes.in_tree)
        columns = _to_columns(content.digest, nodes.in_tree)
        columns["dup"] = np.full(count, int(nodes.chain))
        columns["order"] = changes.take_front(count) + np.arange(count)
        changes.stable_added.append(columns)
        if nodes.chain and count == 0:
            changes.empty_chains_added.append({"digest": np.array([content.digest], np.uint64)})
        changes.migrating_added.append(_to_columns(content.digest, nodes.migrating))

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


def _from_rows(table: SortedTable, rows: I64, away: Bool) -> list[NodeOfContent]:
    """Return rows of stable nodes as objects."""
    columns = (table[name][rows].tolist() for name in ("frame", "count", "dead"))
    return [
        NodeOfContent(frame, count, dead == 1, gone)
        for frame, count, dead, gone in zip(*columns, away.tolist(), strict=True)
    ]


def _to_columns(digest: int, nodes: list[NodeOfContent]) -> Columns:
    """Return stable nodes as rows."""
    rows = [(node.frame, node.count, int(node.dead)) for node in nodes]
    frame, count, dead = np.array(rows, np.int64).reshape(-1, 3).T
    digests = np.full(len(nodes), digest, np.uint64)
    return {"digest": digests, "frame": frame, "count": count, "dead": dead}
