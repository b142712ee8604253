"""A driver that fails as a script says, for tests and for replays of what a driver did on a real kernel."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import numpy as np

from cluster.arrays.words import I64, Bool
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.movable.page_movable import clear_page_movable, release
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import NEVER_MOVES, IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import OWNER_SHIFT, PG_ISOLATED, PG_LOCKED, PG_LRU

ALWAYS = 255  #: a count that is never used up
GIVE_UP_SELF = (1, 2)  #: values of `rel`: migrate gives up the page itself; 2: and keeps the reference
GIVE_UP_PEER_IN_ISOLATE = (3, 4)
GIVE_UP_PEER_IN_MIGRATE = (5, 6)
GIVE_UP_IN_PUTBACK = 7


@dataclass(frozen=True, slots=True)
class ScriptedEvent:
    """A call, a page given up (`R`: its reference put, `k`: kept), or the end of an attempt to isolate (`T`).

    r: a page could not be given up, as it is locked; m: a call for a page that was given up.

    flags: 1 locked, 2 tagged movable, 4 operations set, 8 isolated, 16 LRU.
    """

    op: str
    page: int
    pfn: int
    newpfn: int
    mode: int
    answer: int
    flags_before: int
    flags_after: int
    refcount: int
    newflags_before: int = 0
    newflags_after: int = 0


@dataclass(slots=True)
class Scripts:
    """One element a page: how often isolate refuses, how often migrate fails and with which error.

    rel: what the page gives up in a call, as the constants above say; peer: the other page given up.
    """

    refusals: I64
    error: I64
    failures: I64
    rel: I64
    relerr: I64
    peer: I64
    events: list[ScriptedEvent] = field(default_factory=list)


class ScriptedDriver(PageDriver):
    """Pages with scripts. `log`: keep every call in `scripts.events`. Kept pages (rel 2, 4, 6) stay used."""

    def __init__(self, memory: Memory, *, log: bool = False) -> None:
        super().__init__(memory)
        none = np.zeros(0, np.int64)
        self.scripts = Scripts(none, none, none, none, none, none)
        self._log = log
        self._given_up: dict[int, int] = {}  #: numbers of pages given up, by their frames
        if log:
            memory.on_isolate = self._log_attempts
            memory.on_given_up = self._log_given_up

    def adopt(self, pfns: I64) -> I64:
        more = np.zeros(len(pfns), np.int64)
        s = self.scripts
        for name in ("refusals", "error", "failures", "rel", "relerr", "peer"):
            setattr(s, name, np.concatenate([getattr(s, name), more]))
        return super().adopt(pfns)

    def may_isolate(self, pages: I64, mode: IsolateMode) -> Bool:
        s, numbers = self.scripts, self.page_at[pages]
        refused = s.refusals[numbers] > 0
        self._use_up(s.refusals, numbers[refused])
        for pfn, refuses in zip(pages.tolist(), refused.tolist(), strict=True):
            self._note("I", pfn, mode=mode, answer=int(not refuses))
            self._give_up_peer(pfn, GIVE_UP_PEER_IN_ISOLATE)
        return ~refused

    def answers(self, pages: I64, mode: MigrateMode) -> I64:
        s, numbers = self.scripts, self.page_at[pages]
        answers = np.where(s.failures[numbers] > 0, s.error[numbers], 0)
        rel = s.rel[numbers]
        return np.where((rel == GIVE_UP_SELF[0]) | (rel == GIVE_UP_SELF[1]), s.relerr[numbers], answers)

    def predict_retries(self, pages: I64, mode: MigrateMode) -> I64 | None:
        s, numbers = self.scripts, self.page_at[pages]
        fails = s.failures[numbers] > 0
        if (
            self._log
            or s.rel.any()
            or s.refusals[numbers].any()
            or (s.error[numbers[fails]] != -errno.EAGAIN).any()
        ):
            return None
        return np.where(s.failures[numbers] == ALWAYS, NEVER_MOVES, s.failures[numbers])

    def tried(self, pages: I64, times: I64) -> None:
        numbers = self.page_at[pages]
        counted = self.scripts.failures[numbers] != ALWAYS
        self.scripts.failures[numbers[counted]] -= times[counted]

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        if not self._log and not self.scripts.rel.any():
            numbers = self.page_at[pages]
            answers = super().migrate_page(newpages, pages, mode)
            if answers[-1]:
                self._use_up(self.scripts.failures, numbers[len(answers) - 1 : len(answers)])
            return answers
        # a call may change what the next one meets
        return self._migrate_one(newpages[:1], pages[:1], mode)

    def _migrate_one(self, new: I64, old: I64, mode: MigrateMode) -> I64:
        number, pfn, newpfn = int(self.page_at[old[0]]), int(old[0]), int(new[0])
        before = (self._flags(pfn), self._flags(newpfn))
        self._give_up_peer(pfn, GIVE_UP_PEER_IN_MIGRATE)
        if (rel := int(self.scripts.rel[number])) in GIVE_UP_SELF:
            answers = self.answers(old, mode)
            self._give_up_self(pfn, keep=rel == GIVE_UP_SELF[1])
        else:
            answers = super().migrate_page(new, old, mode)
            if answers[0]:
                self._use_up(self.scripts.failures, np.array([number]))
        self._note("M", pfn, newpfn, mode, int(answers[0]), number=number, before=before)
        return answers

    def putback_page(self, pages: I64) -> None:
        for pfn in pages.tolist():
            number, flags = int(self.page_at[pfn]), self._flags(pfn)
            gives_up = self.scripts.rel[number] == GIVE_UP_IN_PUTBACK
            if gives_up:
                self._give_up_self(pfn, keep=False)
            self._note("P", pfn, answer=int(gives_up), number=number, before=(flags, 0))

    def _use_up(self, counts: I64, numbers: I64) -> None:
        counts[numbers] -= counts[numbers] != ALWAYS

    def _give_up_self(self, pfn: int, *, keep: bool) -> None:
        """Give up a page whose lock the VM holds; the VM goes on with it."""
        page = np.array([pfn])
        clear_page_movable(self.memory, page)
        if not keep:
            self._given_up[pfn] = int(self.page_at[pfn])
            self._forget(page)
            self.memory.put(page)

    def _give_up_peer(self, pfn: int, when: tuple[int, int]) -> None:
        number = int(self.page_at[pfn])
        rel = int(self.scripts.rel[number])
        if rel not in when:
            return
        self.scripts.rel[number] = 0
        peer = int(self.scripts.peer[number])
        page = self.frame_of[peer : peer + 1].copy()
        keep = rel == when[1]
        before = self._flags(int(page[0]))
        if len(self.memory.pages.trylock(page)) == 0:
            self._note("r", int(page[0]), answer=-errno.EAGAIN, number=peer)
            return
        self._given_up[int(page[0])] = peer
        if keep:
            release(self.memory, page, keep=True)
            self.memory.pages.unlock(page)
        else:
            self._forget(page)
            release(self.memory, page)
        self._note("k" if keep else "R", int(page[0]), number=peer, before=(before, 0))

    # the log

    def _flags(self, pfn: int) -> int:
        """Return page flags and mapping word in one number, as in `ScriptedEvent`."""
        pages = self.memory.pages
        flags = int(pages.flags[pfn]) & (PG_LOCKED | PG_ISOLATED | PG_LRU)
        word = int(pages.mapping[pfn])
        return flags | (word & 2) | (4 if word >> OWNER_SHIFT else 0)

    def _note(
        self,
        op: str,
        pfn: int,
        newpfn: int = 0,
        mode: int = 0,
        answer: int = 0,
        *,
        number: int = NO_PAGE,
        before: tuple[int, int] | None = None,
    ) -> None:
        if not self._log:
            return
        now = (self._flags(pfn), self._flags(newpfn) if newpfn else 0)
        before = now if before is None else before
        page = int(self.page_at[pfn]) if number == NO_PAGE else number
        count = int(self.memory.pages.refcount[pfn])
        self.scripts.events.append(
            ScriptedEvent(op, page, pfn, newpfn, mode, answer, before[0], now[0], count, before[1], now[1])
        )

    def _log_given_up(self, pages: I64, new: I64, mode: int) -> None:
        """Log that the VM asks for pages that were given up; the driver answers 0."""
        for pfn, newpfn in zip(pages.tolist(), new.tolist(), strict=True):
            self._note("m", pfn, newpfn, mode, number=self._given_up[pfn])

    def _log_attempts(self, asked: I64, granted: I64) -> None:
        mine = asked[self.page_at[asked] != NO_PAGE]
        for pfn, got in zip(mine.tolist(), np.isin(mine, granted).tolist(), strict=True):
            self._note("T", pfn, answer=0 if got else -errno.EBUSY)
