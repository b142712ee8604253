"""What one scan window does to the contents of one node's trees, a portion after the other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from cluster.arrays.columns import changes, distinct, is_in, order_by, rows_where
from cluster.arrays.sorted_table import expand
from cluster.arrays.words import I64, U64, Bool, empty, ksm_word
from cluster.ksm.decide.batch import Decision
from cluster.ksm.decide.events import Events
from cluster.ksm.decide.table_changes import Changes
from cluster.ksm.effects import Effects
from cluster.ksm.scan import PORTION
from cluster.ksm.trees import Arrived, Trees
from cluster.ksm.visit import Event
from cluster.wire.window import Window


def decide(trees: Trees, window: Window) -> None:
    """Carries out the lookups that arrived, and tells the nodes of the pages."""
    if window.first:
        trees.drop_stale_migrating()
    arrived, shape, also = trees.arrived(), trees.shape, trees.recheck
    portion = PORTION
    if shape is None:
        arrived = _worth_a_look(trees, arrived)
    else:
        if window.first:
            shape.start_pass()
            trees.drop_gone(window.pass_number)
        trees.follow(shape)
        also = np.concatenate([also, trees.unstable.digest])
        # Searches of all contents walk over the same tree.
        portion = len(arrived.digest) + len(also)
    if len(arrived.digest) + len(also) == 0:
        return
    trees.version += 1
    effects, changed = Effects(trees.node), Changes()
    unsettled = [empty(np.uint64)]
    contents = _Contents(trees, arrived, also)
    if shape is None:
        contents.decide_new(trees, window, effects, changed)
    for digests, arrivals in contents.portions(portion):
        decision = Decision(trees, window, effects, changed, digests, arrivals)
        decision.carry_out()
        unsettled.append(digests[np.flatnonzero(decision.unsettled)])
    changed.carry_out(trees)
    trees.recheck = _to_recheck(trees, np.concatenate(unsettled))


def _worth_a_look(trees: Trees, arrived: Arrived) -> Arrived:
    """Without the searches of stable trees that do not have the content, and do not get it either."""
    in_vain = arrived.kind == Event.STABLE_ONLY
    if not in_vain.any():
        return arrived
    about = (arrived.digest[~in_vain], trees.recheck, trees.stable.digest, trees.empty_chains.digest)
    rows = rows_where(~in_vain | is_in(arrived.digest, distinct(np.concatenate(about))))
    return Arrived(*(getattr(arrived, name)[rows] for name in Arrived.__slots__))


class _Contents:
    """The contents of events that arrived, and `also` others, ascending, with their events in scan order."""

    def __init__(self, trees: Trees, arrived: Arrived, also: U64) -> None:
        self._arrived, self._node = arrived, trees.node
        # An item leaves its old tree before it is looked up: events of one position stay as they came.
        self._order, digests = order_by(arrived.digest, None if self._in_scan_order() else self._pos)
        start = np.flatnonzero(changes(digests))
        self._digests = digests[start]
        if len(also):
            self._digests = distinct(np.concatenate([self._digests, also]))
            start = np.searchsorted(digests, self._digests)
        #: Of each content, the first of its events in `order`, and how many it has.
        self._start = start
        self._count = np.diff(start, append=len(digests))

    @cached_property
    def _pos(self) -> I64:
        """Scan positions of the events, if anybody needs them."""
        return self._node.position(self._arrived.key)

    def _in_scan_order(self) -> bool:
        """Whether the events came so. Portions take less memory than all at once; they overlap by one."""
        keys = self._arrived.key
        return all(
            self._node.in_scan_order(keys[low : low + PORTION + 1]) for low in range(0, len(keys), PORTION)
        )

    def decide_new(self, trees: Trees, window: Window, effects: Effects, changed: Changes) -> None:
        """Contents of which the trees have nothing, the most frequent ones, need no plan."""
        new = self._new(trees)
        lonely = new & (self._count == 1)
        merging = new & (self._count > 1) & (self._count <= trees.node.limit)
        self._wait(np.flatnonzero(lonely), changed)
        self._merge(np.flatnonzero(merging), trees, window, effects, changed)
        left = np.flatnonzero(~(lonely | merging))
        self._digests, self._start, self._count = self._digests[left], self._start[left], self._count[left]

    def _new(self, trees: Trees) -> Bool:
        """Which contents come as pages with frames of their own, and are not in the trees."""
        new: Bool = self._count > 0
        other = self._arrived.kind != Event.CANDIDATE
        if other.any():
            before = np.concatenate([[0], np.cumsum(other[self._order])])
            new &= before[self._start + self._count] == before[self._start]
        for known in (trees.stable, trees.unstable, trees.empty_chains, trees.migrating):
            if len(known):
                new &= ~is_in(self._digests, known.digest)
        return new

    def _wait(self, chosen: I64, changed: Changes) -> None:
        """A single page waits."""
        rows = self._order[self._start[chosen]]
        changed.wait(self._digests[chosen], self._arrived.key[rows], self._arrived.frame[rows])

    def _merge(self, chosen: I64, trees: Trees, window: Window, effects: Effects, changed: Changes) -> None:
        """The first page waits, the second founds a stable node with it, the rest join."""
        if len(chosen) == 0:
            return
        arrived, digests = self._arrived, self._digests[chosen]
        start, others = self._start[chosen], self._count[chosen] - 1
        new_stable_pages = self._order[start + 1]
        frames = ksm_word(arrived.frame[new_stable_pages], window.seq)
        # Of each content the events from the second on, and the first in place of the second.
        at = expand(start + 1, others)
        at[np.cumsum(others) - others] -= 1
        effects.found_nodes(arrived.key[new_stable_pages], frames)
        # In the order in which they came: pages of one node, ascending, are quicker to find there.
        mapped, joins = np.empty(len(arrived.key), np.int64), np.zeros(len(arrived.key), np.bool_)
        rows = self._order[at]
        mapped[rows] = np.repeat(frames, others)
        joins[rows] = True
        rows = np.flatnonzero(joins)
        effects.map(arrived.key[rows], mapped[rows])
        effects.get(frames, others)
        changed.found(trees, digests, frames, others + 1, np.zeros(len(chosen), np.bool_))

    def portions(self, size: int) -> Iterator[tuple[U64, Events]]:
        """At most `size` contents at once, and as many events unless one content has more."""
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
                Events(
                    group,
                    self._pos[rows],
                    arrived.key[rows],
                    arrived.frame[rows],
                    arrived.kind[rows],
                    np.full(len(rows), -1),
                ),
            )
            low = high


def _to_recheck(trees: Trees, digests: U64) -> U64:
    """Contents with a page that waits and something that its next visit could change."""
    stable, unstable = trees.stable, trees.unstable
    which, row = stable.rows(digests)
    count, dup = stable["count"][row], stable["dup"][row] == 1
    useful = is_in(digests, trees.empty_chains.digest)
    room = (count < trees.node.limit) & ((count > 0) | (not trees.node.profile.chains))
    useful[which[room | (stable["dead"][row] == 1)]] = True
    useful |= np.bincount(which[dup], minlength=len(digests)) == 1
    waiting = np.bincount(unstable.rows(digests)[0], minlength=len(digests))
    recheck: U64 = digests[(waiting > 1) | ((waiting == 1) & useful)]
    return recheck
