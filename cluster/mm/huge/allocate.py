"""Huge pages for page faults and for MADV_COLLAPSE, from this node and from others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cluster.arrays.words import (
    HUGE_FRAME,
    HUGE_SIZE,
    I64,
    Bool,
    FrameWords,
    ItemKeys,
    Slots,
    frame_word,
    mm_of_key,
    node_of_key,
)
from cluster.mm.node_state import NodeState
from cluster.wire.messages import Kind

#: Called with bases and the first frames of their huge pages; -1 where none was free.
Allocated = Callable[[Slots, FrameWords], None]


class HugeAllocator:
    """Gives 512 virtual pages at once a huge page full of zeros, from one node each.

    Where that has none the caller gets -1: the kernel then takes small pages (thp_fault_fallback).
    """

    def __init__(self, node: NodeState) -> None:
        self._n = node
        #: Who waits for the replies of other nodes, by base.
        self._waiting: dict[int, Allocated] = {}

    def allocate(self, bases: Slots, nodes: I64, then: Allocated) -> None:
        """Allocate a huge page on the node given for each base; call `then`, perhaps in a later step."""
        n = self._n
        keys = n.keys_of(bases)
        here = nodes == n.id
        away = ~here
        self._waiting.update(dict.fromkeys(bases[away].tolist(), then))
        n.out.send(Kind.ALLOC_HUGE, nodes[away], bases[away], keys[away])
        if here.any():
            then(bases[here], self._take(keys[here]))

    @property
    def waiting(self) -> int:
        """Return how many huge pages other nodes have been asked for."""
        return len(self._waiting)

    def waits(self, bases: Slots) -> Bool:
        """Return for which bases other nodes have been asked for huge pages: int64[n] -> bool[n]."""
        return np.isin(bases, list(self._waiting))

    def _take(self, keys: ItemKeys) -> FrameWords:
        """Take huge pages of this node; return the words of their first frames, -1 for none."""
        n = self._n
        first = n.frames.alloc_huge(len(keys))
        pfns = (first[:, None] + np.arange(HUGE_SIZE)).ravel()
        n.frames.map_anon(pfns, np.repeat(mm_of_key(keys[: len(first)]), HUGE_SIZE))
        n.frames.write(pfns, np.zeros(len(pfns), np.uint64), np.zeros(len(pfns), np.uint64))
        words = np.full(len(keys), -1)
        words[: len(first)] = frame_word(n.id, first) | HUGE_FRAME
        return words

    def on_alloc_huge(self, bases: Slots, keys: ItemKeys) -> None:
        self._n.out.send(Kind.ALLOC_HUGE_REPLY, node_of_key(keys), bases, self._take(keys))

    def on_alloc_huge_reply(self, bases: Slots, words: FrameWords) -> None:
        for base, word in zip(bases.tolist(), words.tolist(), strict=True):
            self._waiting.pop(base)(np.array([base]), np.array([word]))


def slots_of(bases: Slots) -> Slots:
    """Return all slots of these bases: int64[n] -> int64[n * HUGE_SIZE]."""
    slots: Slots = (bases[:, None] + np.arange(HUGE_SIZE)).ravel()
    return slots


def words_of(first: FrameWords) -> FrameWords:
    """Return the words of all frames of huge pages, by their first: int64[n] -> int64[n * HUGE_SIZE]."""
    words: FrameWords = (first[:, None] + np.arange(HUGE_SIZE)).ravel()
    return words
