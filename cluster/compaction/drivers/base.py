"""The base class of drivers of movable pages: it knows which of their pages is in which frame."""

from __future__ import annotations

import errno

import numpy as np

from cluster.arrays.words import I64, U64, Bool
from cluster.compaction.movable.page_movable import clear_page_movable, release, set_page_movable
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import NEVER_MOVES, IsolateMode, MigrateMode, PageStateError
from cluster.compaction.pages.page_map import MigrateType, PageKind

NO_PAGE = -1  #: in place of a page number, or of the frame of a page that was freed


class PageDriver:
    """A driver that owns pages numbered 0, 1, ... and lets the VM move them.

    page_at int64[frames]: number of the page in a frame, or NO_PAGE; frame_of int64[pages]: its frame, or
    NO_PAGE once freed. Subclasses say in `may_isolate` and `answers` when a page cannot move, and in `moved`
    what else moves with it. A subclass is `steady` if asking for its `answers` does not change them: the VM
    then asks once in place of up to ten times, which is faster.
    """

    kind = PageKind.MOVABLE
    migratetype = MigrateType.MOVABLE  #: of the memory that its pages are allocated from
    steady = False

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.owner = memory.register(self)
        self.page_at: I64 = np.full(memory.pages.count, NO_PAGE, np.int64)
        self.frame_of: I64 = np.zeros(0, np.int64)

    @property
    def content(self) -> U64:
        """The content of each frame. uint64[frames]."""
        return self.memory.pages.content

    def allocate(self, count: int) -> I64:
        """Take at most `count` new pages from the free memory; return their numbers. int64[0..count]."""
        return self.adopt(self.memory.alloc_bulk(count, self.migratetype))

    def adopt(self, pfns: I64) -> I64:
        """Make frames without another user pages of this driver; return their numbers. int64[n]."""
        numbers = np.arange(len(self.frame_of), len(self.frame_of) + len(pfns))
        self.frame_of = np.concatenate([self.frame_of, pfns])
        self.page_at[pfns] = numbers
        pages = self.memory.pages
        pages.mark_used(pfns)
        pages.set_kind(pfns, self.kind)
        if len(pages.trylock(pfns)) < len(pfns):
            raise PageStateError("frames to adopt are locked by another user")
        self.make_movable(pfns)
        pages.unlock(pfns)
        return numbers

    def make_movable(self, pfns: I64) -> None:
        """Mark locked pages as movable."""
        set_page_movable(self.memory, pfns, self.owner)

    def discard(self, units: I64) -> None:
        """Give up units, which are pages here. int64[n]."""
        self.free(units)

    def free(self, numbers: I64) -> None:
        """Give up pages, even isolated ones; raise PageStateError if one is locked. int64[n]."""
        pfns = self.frame_of[numbers]
        if len(self.memory.pages.trylock(pfns)) < len(pfns):
            raise PageStateError("pages to free are locked by another user")
        self._forget(pfns)
        release(self.memory, pfns)

    def _forget(self, pfns: I64) -> None:
        self.frame_of[self.page_at[pfns]] = NO_PAGE
        self.page_at[pfns] = NO_PAGE

    # for subclasses to change

    def may_isolate(self, pages: I64, mode: IsolateMode) -> Bool:
        """Return which of these pages (pfns) the VM may have now. int64[n] -> bool[n]."""
        return np.ones(len(pages), np.bool_)

    def answers(self, pages: I64, mode: MigrateMode) -> I64 | None:
        """Return 0 or an error for each of these pages (pfns); None: all can move. int64[n] -> int64[n]."""
        return None

    def moved(self, newpages: I64, pages: I64) -> None:
        """Move what else belongs to pages that were moved with their contents. int64[n], int64[n]."""

    # MovableOperations

    def isolate_page(self, pages: I64, mode: IsolateMode) -> Bool:
        return self.may_isolate(pages, mode)

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        answers = self.answers(pages, mode)
        if answers is None:
            answers = np.zeros(len(pages), np.int64)
        elif len(answers) != len(pages):
            what = f"{type(self).__name__}.answers: {len(answers)} answers for {len(pages)} pages"
            raise PageStateError(f"{what}; there must be one for each")
        elif answers.any():
            first = int(np.argmax(answers != 0))
            if first == 0:
                return answers[:1]
            answers, newpages, pages = answers[: first + 1], newpages[:first], pages[:first]
        numbers = self.page_at[pages]
        self.page_at[pages] = NO_PAGE
        self.page_at[newpages] = numbers
        self.frame_of[numbers] = newpages
        self.content[newpages] = self.content[pages]
        self.moved(newpages, pages)
        set_page_movable(self.memory, newpages, self.owner)
        clear_page_movable(self.memory, pages)
        return answers

    def predict_retries(self, pages: I64, mode: MigrateMode) -> I64 | None:
        own = type(self)
        if (own.migrate_page, own.may_isolate) != (PageDriver.migrate_page, PageDriver.may_isolate):
            return None
        if not self.steady and own.answers is not PageDriver.answers:
            return None
        answers = self.answers(pages, mode)
        if answers is None:
            return np.zeros(len(pages), np.int64)
        eagain = answers == -errno.EAGAIN
        return np.where(eagain, NEVER_MOVES, 0) if (eagain | (answers == 0)).all() else None

    def foresee(self, pages: I64, mode: MigrateMode) -> I64 | None:
        """Return `predict_retries` by its old name, for subclasses that extend it."""
        return self.predict_retries(pages, mode)

    def tried(self, pages: I64, times: I64) -> None:
        """Change nothing: a driver whose attempts change something does not predict retries."""

    def putback_page(self, pages: I64) -> None:
        """Change nothing: pages keep their numbers while they are isolated."""
