"""The coordinator's part in memory failure and soft offline (`cluster.numa.memory_failure`)."""

from __future__ import annotations

from collections.abc import Callable

from cluster.arrays.words import HUGE_SIZE, I64, Bool, empty, is_huge_word
from cluster.machine.fabric import Exchange
from cluster.mm.page_state import PTE_HWPOISON, PTE_ZERO
from cluster.spec.profile import Profile
from cluster.wire import commands as c


class MachineMemoryFailure:
    """Lets memory of processes fail. Methods return the name of the error, if any."""

    def __init__(self, exchange: Exchange, next_seq: Callable[[], int], profile: Profile) -> None:
        self._exchange = exchange
        self._next_seq = next_seq
        self._profile = profile
        #: The failure of the shared zero page is noted, though no process loses it.
        self._zero_page_failed = False
        self._any_lost = False

    def poison(self, mm: int, start: int, mapped: Bool) -> str:
        """Let the frames of pages fail, one after the other, up to the first error (MADV_HWPOISON).

        `mapped` says which pages from `start` on are mapped. bool[pages]
        """
        return self._each(mm, start, mapped, self._poison)

    def soft_offline(self, mm: int, start: int, mapped: Bool) -> str:
        """Move pages to other frames, and take theirs out of use (MADV_SOFT_OFFLINE); else as `poison`."""
        return self._each(mm, start, mapped, self._soft_offline)

    def lost(self, mm: int, start: int, count: int) -> I64:
        """Return the pages of a range whose memory has failed. int64[n]."""
        if not self._any_lost:
            return empty()
        return self._exchange.answer(c.FindLost(mm, start, count), c.PagesLost).vpns

    def _each(self, mm: int, start: int, mapped: Bool, fail: Callable[[int, int, c.PageSeen], str]) -> str:
        index = 0
        while index < len(mapped):
            if not mapped[index]:
                return "EFAULT"
            self._exchange.run(c.Read(mm, start + index, 1))
            page = self._look(mm, start + index)
            if page.pte == PTE_HWPOISON:
                return "EFAULT"
            if error := fail(mm, start + index, page):
                return error
            index += HUGE_SIZE if is_huge_word(page.pte) else 1
        return ""

    def _poison(self, mm: int, vpn: int, page: c.PageSeen) -> str:
        if page.pte == PTE_ZERO:
            return self._poison_zero(page)
        if self._frame(page.pte).failed:
            return "EHWPOISON"
        self._exchange.run(c.FailFrame(page.pte))
        frame = self._split(mm, vpn, page)
        if is_huge_word(frame):
            return "EHWPOISON"
        self._any_lost = True
        self._exchange.run(c.LoseFrame(frame))
        return "EBUSY" if self._frame(frame).mapcount else ""

    def _poison_zero(self, page: c.PageSeen) -> str:
        if page.huge_zero:
            return "EBUSY" if self._profile.refuses_huge_zero_page else "EHWPOISON"
        error = "EHWPOISON" if self._zero_page_failed else "EBUSY"
        self._zero_page_failed = True
        return error

    def _soft_offline(self, mm: int, vpn: int, page: c.PageSeen) -> str:
        if page.pte == PTE_ZERO:
            return self._offline_zero(page)
        if self._frame(page.pte).failed:
            return ""
        frame = self._split(mm, vpn, page)
        if frame == PTE_ZERO:
            # The split has taken the page away.
            return ""
        if is_huge_word(frame):
            return "EBUSY"
        self._exchange.run(c.RenewFrame(mm, vpn, self._next_seq()))
        if self._look(mm, vpn).pte == frame:
            return "EBUSY"
        self._exchange.run(c.RetireFrame(frame))
        return ""

    def _offline_zero(self, page: c.PageSeen) -> str:
        if page.huge_zero:
            return "EIO"
        if self._zero_page_failed:
            return ""
        return "ENOTRECOVERABLE" if self._profile.refuses_zero_page else "EIO"

    def _split(self, mm: int, vpn: int, page: c.PageSeen) -> int:
        """Return the entry of a page after the attempt to split its huge page, if it has one."""
        if not is_huge_word(page.pte):
            return page.pte
        self._exchange.run(c.TrySplit(mm, vpn))
        return self._look(mm, vpn).pte

    def _look(self, mm: int, vpn: int) -> c.PageSeen:
        return self._exchange.answer(c.LookAtPage(mm, vpn), c.PageSeen)

    def _frame(self, frame: int) -> c.FrameSeen:
        return self._exchange.answer(c.LookAtFrame(frame), c.FrameSeen)
