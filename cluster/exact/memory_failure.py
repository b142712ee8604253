"""Memory failure and soft offline: frames that processes lose, or that their pages leave.

Sources of the rules: `madvise_inject_error` in `mm/madvise.c`; `memory_failure`, `soft_offline_page` and
`hwpoison_user_mappings` in `mm/memory-failure.c`.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.exact.huge_paging import HugePaging
from cluster.exact.objects import ExactRegion, Frame, HwPoisonPte
from cluster.exact.paging import is_lost, rmap_walk
from cluster.script.engine import HUGE_PAGES
from cluster.spec.profile import Profile


class MemoryFailure:
    """Carries out MADV_HWPOISON and MADV_SOFT_OFFLINE. Each returns the name of the error, if any."""

    def __init__(self, profile: Profile, paging: HugePaging) -> None:
        self._profile = profile
        self._paging = paging
        #: the failure of the shared zero page is noted, though no process loses it
        self._zero_page_failed = False

    def poison(self, region: ExactRegion, start: int, count: int) -> str:
        """Let the frames of pages fail, one after the other, up to the first error."""
        return self._each(region, start, count, self._poison)

    def soft_offline(self, region: ExactRegion, start: int, count: int) -> str:
        """Move pages to other frames, one after the other, up to the first error."""
        return self._each(region, start, count, self._soft_offline)

    def _each(
        self, region: ExactRegion, start: int, count: int, act: Callable[[ExactRegion, int], str]
    ) -> str:
        index = start
        while index < start + count:
            if not region.mapped[index] or is_lost(region.pte[index]):
                return "EFAULT"
            self._paging.read(region, index)
            frame = region.pte[index]
            step = HUGE_PAGES if isinstance(frame, Frame) and frame.huge is not None else 1
            if error := act(region, index):
                return error
            index += step
        return ""

    def _poison(self, region: ExactRegion, index: int) -> str:
        frame = region.pte[index]
        if not isinstance(frame, Frame):
            return self._poison_zero(region, index)
        was_poisoned, frame.poisoned = frame.poisoned, True
        if was_poisoned or (frame.huge is not None and not self._paging.split(frame.huge)):
            return "EHWPOISON"
        for region, index in rmap_walk(frame):
            self._paging.unmap(region, index)
            region.pte[index] = HwPoisonPte.PTE
        if frame.swap is not None and not frame.ksm:
            # the page is clean, so it leaves the swap cache, and other mappings read it from swap
            frame.swap.frame = None
            frame.swap = None
        return "EBUSY" if frame.ptes else ""

    def _poison_zero(self, region: ExactRegion, index: int) -> str:
        if region.mapped_by_pmd(index):
            return "EBUSY" if self._profile.refuses_huge_zero_page else "EHWPOISON"
        error = "EHWPOISON" if self._zero_page_failed else "EBUSY"
        self._zero_page_failed = True
        return error

    def _soft_offline(self, region: ExactRegion, index: int) -> str:
        frame = region.pte[index]
        if not isinstance(frame, Frame):
            return self._offline_zero(region, index)
        if frame.poisoned:
            return ""
        if frame.huge is not None and not self._paging.split(frame.huge):
            return "EBUSY"
        # the split may have mapped the zero page here
        moved = not frame.ptes or self._paging.migrate(frame, frame.node)
        return "" if moved else "EBUSY"

    def _offline_zero(self, region: ExactRegion, index: int) -> str:
        if region.mapped_by_pmd(index):
            return "EIO"
        if self._zero_page_failed:
            return ""
        return "ENOTRECOVERABLE" if self._profile.refuses_zero_page else "EIO"
