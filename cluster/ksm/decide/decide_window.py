"""What one scan window does to the contents of one node's trees: a function of the tables and the visits.

`decide` changes nothing. Its result depends neither on the number of actors nor on the size of portions:
visits arrive by sending node, not by actor; contents are sorted by digest, and the visits of each by scan
position; and each content is decided by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import changes, distinct, is_in, order_by, rows_where
from cluster.arrays.sorted_table import expand
from cluster.arrays.words import I64, Bool, Digests, FrameWords, ItemKeys, block_of, is_huge_word, ksm_word
from cluster.ksm.decide.batch import gather
from cluster.ksm.decide.classify import kinds_table
from cluster.ksm.decide.decide_batch import decide_batch
from cluster.ksm.decide.plan import NONE
from cluster.ksm.decide.sorted_visits import SortedVisits
from cluster.ksm.decide.split_tries import SplitTries, ZerosGone, first_tries
from cluster.ksm.gone_zeros import NONE_STOPPED, gone_before, stopped_searches
from cluster.ksm.page_updates import PageUpdates
from cluster.ksm.scan import PORTION
from cluster.ksm.table_changes import TableChanges
from cluster.ksm.trees import Trees
from cluster.ksm.visit import Arrivals, VisitKind
from cluster.wire.window import END, Window

#: Visits that search for nothing but a stable node.
_STABLE_ONLY = kinds_table(VisitKind.STABLE_ONLY, VisitKind.STABLE_ONLY_FIXED)


class Decision(NamedTuple):
    """What becomes of the visits of a window."""

    #: For `Trees.apply`.
    table_changes: TableChanges
    #: For the nodes of pages and frames.
    messages: PageUpdates


def decide(trees: Trees, window: Window, arrivals: Arrivals) -> Decision:
    """Return the changes of the trees and the messages that follow from the visits of a window.

    The trees stand as `Trees.start_window` leaves them; `arrivals` are the visits that nodes have sent.
    """
    return WindowVisits(trees, window, arrivals, huge=False).decide(None)


class WindowVisits:
    """The visits of a window; with huge pages they are decided again as splits become known."""

    def __init__(self, trees: Trees, window: Window, arrivals: Arrivals, *, huge: bool) -> None:
        self._trees, self._window, self._arrivals, self._huge = trees, window, arrivals, huge
        #: What no split changes, the tries to split huge pages that follow from it, and the other contents.
        self._new: Decision | None = None
        self._tries = NewTries()
        self._contents: _ArrivalsByContent | None = None
        self._stopped = NONE_STOPPED

    def decide(self, tries: SplitTries | None) -> Decision:
        """Decide the window; with huge pages, as `tries` says, to which tries to split them are added."""
        trees, window = self._trees, self._window
        shape, also, portion = trees.shape, trees.recheck, PORTION
        if shape is not None:
            # Searches change the shape one after the other, so they work on a copy.
            shape = shape.copy()
            also = np.concatenate([also, trees.unstable.digest])
        decision = Decision(TableChanges(trees.front, shape), PageUpdates())
        if shape is None and trees.node.knows_order:
            self._look_for_gone_zeros(tries)
        if self._contents is None:
            self._contents = self._by_content(also, decision, shaped=shape is not None)
            if self._contents is None:
                return decision
        elif self._new is not None:
            decision = self._new
        if self._huge and self._new is not None:
            decision = Decision(decision.table_changes.copy(), decision.messages.copy())
        if tries is not None:
            self._tries.add_to(tries)
        if shape is not None:
            # Searches of all contents walk over the same tree.
            portion = len(self._arrivals.digest) + len(also)
        for digests, visits in self._contents.portions(portion):
            decide_batch(gather(trees, window, digests, visits, tries), *decision)
        return decision

    def _by_content(self, also: Digests, decision: Decision, *, shaped: bool) -> _ArrivalsByContent | None:
        """Return what is to be decided, None for nothing; without shapes, decide the new contents at once."""
        trees, arrivals = self._trees, self._arrivals.without(self._stopped.arrivals)
        if not shaped:
            arrivals = _without_fruitless_searches(trees, arrivals)
            self._stop_searches(decision)
        if len(arrivals.digest) + len(also) == 0:
            return None
        contents = _ArrivalsByContent(trees, arrivals, also)
        if not shaped:
            contents.decide_new(self._window, decision, self._tries if self._huge else None)
            self._new = decision
        return contents

    def _look_for_gone_zeros(self, tries: SplitTries | None) -> None:
        """Find the searches that a page of zeros stops which is gone, and start afresh if they are others."""
        trees, window = self._trees, self._window
        before = window.low - 1 if gone_before(trees, window) else END
        zeros = ZerosGone(before, before)
        if before == END and tries is not None:
            zeros = self._decide_zeros(tries.again())
        stopped = NONE_STOPPED
        if zeros.gone < END:
            stopped = stopped_searches(trees, self._arrivals, window, zeros, tries)
        if not stopped.same_as(self._stopped):
            self._stopped, self._contents, self._tries = stopped, None, NewTries()

    def _decide_zeros(self, tries: SplitTries) -> ZerosGone:
        """Return when a page of zeros in the unstable tree is taken away."""
        trees, zeros = self._trees, np.zeros(1, np.uint64)
        arrivals = self._arrivals.without(np.flatnonzero(self._arrivals.digest))
        for digests, visits in _ArrivalsByContent(trees, arrivals, zeros).portions(PORTION):
            batch = gather(trees, self._window, digests, visits, tries)
            decide_batch(batch, TableChanges(trees.front, None), PageUpdates())
        return tries.zeros

    def _stop_searches(self, decision: Decision) -> None:
        """Let the pages of searches that are stopped be in no tree."""
        arrivals, rows = self._stopped
        if len(arrivals) + len(rows):
            keys = np.concatenate([self._arrivals.key[arrivals], self._trees.unstable["key"][rows]])
            decision.messages.remove_from_trees(keys, np.zeros(len(keys), np.uint8))
            decision.table_changes.unstable_gone.append(rows)


class NewTries:
    """Tries to split huge pages that follow from contents of which the trees have nothing."""

    def __init__(self) -> None:
        self._rows: list[tuple[FrameWords, ItemKeys, I64, Digests]] = []

    def add(self, frames: FrameWords, keys: ItemKeys, positions: I64, digests: Digests) -> None:
        """Add visits, of which the first to each huge page counts."""
        rows = first_tries(frames, positions)
        self._rows.append((frames[rows], keys[rows], positions[rows], digests[rows]))

    def add_to(self, tries: SplitTries) -> None:
        for frames, keys, positions, digests in self._rows:
            tries.add_planned(frames, keys, positions, digests, np.full(len(frames), NONE))


def _without_fruitless_searches(trees: Trees, arrivals: Arrivals) -> Arrivals:
    """Return the visits without searches of stable trees that neither have the content nor get it."""
    if arrivals.kind.max(initial=0) < VisitKind.STABLE_ONLY:
        return arrivals
    stable_only = _STABLE_ONLY[arrivals.kind]
    about = (arrivals.digest[~stable_only], trees.recheck, trees.stable.digest, trees.empty_chains.digest)
    rows = rows_where(~stable_only | is_in(arrivals.digest, distinct(np.concatenate(about))))
    return Arrivals._make(column[rows] for column in arrivals)


class _ArrivalsByContent:
    """The contents of visits, and `also` others, ascending, with their visits in scan order."""

    def __init__(self, trees: Trees, arrived: Arrivals, also: Digests) -> None:
        self._trees, self._arrived = trees, arrived
        #: Whether all visits are to pages with frames of their own that are looked up.
        self._plain = not (arrived.kind != VisitKind.CANDIDATE).any()
        # An item leaves its old tree before it is looked up: visits of one position stay as they came.
        self._ascend = self._in_scan_order()
        self._order, digests = order_by(arrived.digest, None if self._ascend else self._pos)
        start = np.flatnonzero(changes(digests))
        self._digests = digests[start]
        if len(also):
            self._digests = distinct(np.concatenate([self._digests, also]))
            start = np.searchsorted(digests, self._digests)
        #: Of each content, the first of its visits in `order`, and how many it has.
        self._start = start
        self._count = np.diff(start, append=len(digests))

    @cached_property
    def _pos(self) -> I64:
        """Scan positions of the visits; rarely needed where these came in order."""
        return self._trees.node.position(self._arrived.key)

    def _in_scan_order(self) -> bool:
        """Return whether the visits came in scan order.

        Portions take less memory than all visits at once; they overlap by one.
        """
        keys, node = self._arrived.key, self._trees.node
        return all(node.in_scan_order(keys[low : low + PORTION + 1]) for low in range(0, len(keys), PORTION))

    def decide_new(self, window: Window, decision: Decision, tries: NewTries | None) -> None:
        """Decide contents of which the trees have nothing: the most frequent ones, which need no plan.

        With huge pages (`tries`), not those of zeros, nor those whose first two pages are of one huge page.
        """
        new, limit = self._new(), self._trees.node.limit
        if tries is not None:
            new &= (self._digests != 0) & ~self._begins_in_one_huge_page()
            new &= self._trees.unstable.lost_zeros(self._digests) < 0
        single = new & (self._count == 1)
        merging = new & (self._count > 1) & (self._count <= limit)
        if not self._plain:
            merging &= ~self._have(self._arrived.kind == VisitKind.CANDIDATE_FIXED)
        self._wait(np.flatnonzero(single), decision.table_changes)
        if tries is not None:
            self._add_tries(np.flatnonzero(merging), tries)
        self._merge(np.flatnonzero(merging), window, decision)
        left = np.flatnonzero(~(single | merging))
        self._digests, self._start, self._count = self._digests[left], self._start[left], self._count[left]

    def _have(self, chosen: Bool) -> Bool:
        """Return which contents have any of these visits: bool[arrivals] -> bool[contents]."""
        if not chosen.any():
            return np.zeros(len(self._count), np.bool_)
        before = np.concatenate([[0], np.cumsum(chosen[self._order])])
        have: Bool = before[self._start + self._count] > before[self._start]
        return have

    def _new(self) -> Bool:
        """Return which contents come as pages with frames of their own, and are not in the trees."""
        trees = self._trees
        kind = self._arrived.kind
        new: Bool = self._count > 0
        if not self._plain:
            new &= ~self._have((kind != VisitKind.CANDIDATE) & (kind != VisitKind.CANDIDATE_FIXED))
        for known in (trees.stable, trees.unstable, trees.empty_chains, trees.migrating):
            if len(known):
                new &= ~is_in(self._digests, known.digest)
        return new

    def _wait(self, chosen: I64, table_changes: TableChanges) -> None:
        """Insert single pages into the unstable tree."""
        rows = self._order[self._start[chosen]]
        table_changes.add_unstable(self._digests[chosen], self._arrived.key[rows], self._arrived.frame[rows])

    def _merge(self, chosen: I64, window: Window, decision: Decision) -> None:
        """Let the first page wait, the second make a stable node with it, and the rest join."""
        if len(chosen) == 0:
            return
        table_changes, messages = decision
        arrived, digests = self._arrived, self._digests[chosen]
        start, others = self._start[chosen], self._count[chosen] - 1
        new_stable_pages = self._order[start + 1]
        frames = ksm_word(arrived.frame[new_stable_pages], window.seq)
        # Of each content the visits from the second on, and the first in place of the second.
        at = expand(start + 1, others)
        at[np.cumsum(others) - others] -= 1
        messages.make_stable(arrived.key[new_stable_pages], frames)
        # In the order in which they came: pages of one node, ascending, are quicker to find there.
        mapped, joins = np.empty(len(arrived.key), np.int64), np.zeros(len(arrived.key), np.bool_)
        rows = self._order[at]
        mapped[rows] = np.repeat(frames, others)
        joins[rows] = True
        rows = np.flatnonzero(joins)
        messages.merge(arrived.key[rows], mapped[rows])
        messages.add_mappings(frames, others)
        table_changes.add_stable(digests, frames, others + 1, np.zeros(len(chosen), np.bool_))

    def _begins_in_one_huge_page(self) -> Bool:
        """Return of which contents the first two visits are to pages of one huge page."""
        frames, begins = self._arrived.frame, self._count > 1
        several = np.flatnonzero(begins)
        start = self._start[several]
        first, second = frames[self._order[start]], frames[self._order[start + 1]]
        begins[several] = is_huge_word(first) & (block_of(first) == block_of(second))
        return begins

    def _add_tries(self, chosen: I64, tries: NewTries) -> None:
        """Add the tries of pages that merge; the visit to a content's second page splits the first too."""
        arrived, start, others = self._arrived, self._start[chosen], self._count[chosen] - 1
        if len(chosen) == 0:
            return
        joins = np.zeros(len(arrived.key), np.bool_)
        joins[self._order[expand(start + 1, others)]] = True
        rows = np.flatnonzero(joins & is_huge_word(arrived.frame))
        if self._ascend:
            # Visits to a huge page come one after the other, and the first of a run counts.
            rows = rows[changes(block_of(arrived.frame[rows]))]
        tries.add(arrived.frame[rows], arrived.key[rows], self._pos[rows], arrived.digest[rows])
        first, second = self._order[start], self._order[start + 1]
        tries.add(arrived.frame[first], arrived.key[first], self._pos[second], self._digests[chosen])

    def portions(self, size: int) -> Iterator[tuple[Digests, SortedVisits]]:
        """Yield at most `size` contents at once, and as many visits unless one content has more."""
        arrived, behind = self._arrived, np.cumsum(self._count)
        low, contents = 0, len(self._digests)
        while low < contents:
            fitting = int(np.searchsorted(behind, behind[low] - self._count[low] + size, "right"))
            high = min(max(fitting, low + 1), low + size, contents)
            count = self._count[low:high]
            rows = self._order[expand(self._start[low:high], count)]
            group = np.repeat(np.arange(high - low), count)
            yield (
                self._digests[low:high],
                SortedVisits(
                    group,
                    self._pos[rows],
                    arrived.key[rows],
                    arrived.frame[rows],
                    arrived.kind[rows],
                    np.full(len(rows), NONE),
                ),
            )
            low = high
