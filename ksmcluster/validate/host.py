"""The host as an engine: real processes, real memory, and the kernel's ksmd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from cluster.script.engine import ANON, MachineView, RegionView
from cluster.spec.content import PAGE_SIZE, page_bytes
from cluster.spec.profile import Profile
from ksmcluster.system.errors import UserError
from ksmcluster.validate import procfs
from ksmcluster.validate.children import Children
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import WHOLE_PASS, Ksmd

FIRST_ADDRESS = 0x10_0000_0000
_BETWEEN_REGIONS = 0x4000_0000
_PAGES_AT_ONCE = 16  #: number of contents that fit into the buffer of a socket
#: counters that are not reset when ksmd starts again
_NEVER_RESET = ("pages_scanned", "pages_skipped")
_MERGEABLE, _UNMERGEABLE, _DONTNEED = 12, 13, 4  # advice to madvise


class HostMachine:
    """Implements `cluster.script.engine.Engine`. Scripts that need unsupported methods are refused before.

    In regions, KSM pages and the zero page are not distinguished from other pages: only frames count.
    """

    def __init__(self, profile: Profile, knobs: Knobs, ksmd: Ksmd, children: Children) -> None:
        """Unmerge all pages."""
        self._profile = profile
        self._knobs = knobs
        self._ksmd = ksmd
        self._children = children
        #: first address and size of each region, by process
        self._regions: dict[str, dict[str, tuple[int, int]]] = {}
        ksmd.start()
        counters = [name for name in _NEVER_RESET if knobs.exists(name)]
        self._counters_before = {name: knobs.number(name) for name in counters}
        self._vmstat_before = procfs.vmstat(profile.vmstat)

    def set_knob(self, knob: str, value: str) -> str:
        return self._knobs.set(knob, value)

    def knobs(self) -> Mapping[str, int | str]:
        return {name: self._knobs.get(name) for name in self._profile.knobs if self._knobs.exists(name)}

    def proc(self, p: str) -> None:
        self._children.start(p)
        self._regions[p] = {}

    def map(self, p: str, r: str, pages: int, node: int | None) -> str:
        address = FIRST_ADDRESS + len(self._regions[p]) * _BETWEEN_REGIONS
        self._regions[p][r] = address, pages
        return self._children.tell(p, "map", address, pages)

    def fill(self, p: str, r: str, pages: NDArray[np.int64], contents: NDArray[np.uint64]) -> str:
        address, _ = self._regions[p][r]
        for start in range(0, len(pages), _PAGES_AT_ONCE):
            part = slice(start, start + _PAGES_AT_ONCE)
            self._children.tell(
                p, "write", address, pages[part].tolist(), page_bytes(contents[part]).tobytes()
            )
        return ""

    def read(self, p: str, r: str, start: int, count: int) -> str:
        return self._on_range("read", p, r, start, count)

    def pin(self, p: str, r: str, start: int, count: int) -> str:
        if error := self._on_range("pin", p, r, start, count):
            raise UserError(
                f"pages cannot be pinned on this host (io_uring: {error}): leave out pin, or use replay"
            )
        return ""

    def mergeable(self, p: str, r: str, start: int, count: int) -> str:
        return self._on_range("advise", p, r, start, count, _MERGEABLE)

    def unmergeable(self, p: str, r: str, start: int, count: int) -> str:
        return self._on_range("advise", p, r, start, count, _UNMERGEABLE)

    def unmap(self, p: str, r: str, start: int, count: int) -> str:
        return self._on_range("unmap", p, r, start, count)

    def dontneed(self, p: str, r: str, start: int, count: int) -> str:
        return self._on_range("advise", p, r, start, count, _DONTNEED)

    def pageout(self, p: str, r: str, start: int, count: int) -> str:
        _cannot("page out")

    def huge(self, p: str, r: str, start: int, count: int) -> str:
        _cannot("advise huge pages")

    def collapse(self, p: str, r: str, start: int, count: int) -> str:
        _cannot("collapse pages")

    def poison(self, p: str, r: str, start: int, count: int) -> str:
        _cannot("let memory fail")

    def soft_offline(self, p: str, r: str, start: int, count: int) -> str:
        _cannot("take memory out of use")

    def move(self, p: str, r: str, start: int, count: int, node: int) -> int:
        _cannot("move pages")

    def fork(self, p: str, q: str) -> None:
        self._children.fork(p, q)
        self._regions[q] = dict(self._regions[p])

    def exit(self, p: str) -> None:
        self._children.end(p)
        del self._regions[p]

    def exec(self, p: str) -> None:
        _cannot("execute programs")

    def merge_any(self, p: str, *, on: bool) -> str:
        _cannot("merge any memory")

    def unmerge_all(self) -> None:
        self._ksmd.start()

    def scan(self) -> bool:
        before = self._knobs.number("full_scans")
        self._ksmd.step(WHOLE_PASS)
        return self._knobs.number("full_scans") > before

    def batch(self, pages: int) -> None:
        self._ksmd.step(pages)

    def view(self) -> MachineView:
        """Return the state of the machine. Raises UserError if another program now uses KSM."""
        pids = self._children.pids()
        if others := procfs.users_of_ksm(but=pids.values()):
            raise UserError(f"{others[0]} started to use KSM, so the comparison is invalid: try again")
        return MachineView(
            sysfs=self._counters(),
            vmstat=self._vmstat(),
            procs={p: procfs.ksm_stat(pid) for p, pid in pids.items()},
            regions=[
                _view(p, r, procfs.frames(pids[p], address, pages))
                for p, regions in self._regions.items()
                for r, (address, pages) in regions.items()
            ],
        )

    def _on_range(self, command: str, p: str, r: str, start: int, count: int, *more: int) -> str:
        address, _ = self._regions[p][r]
        return self._children.tell(p, command, address + start * PAGE_SIZE, count, *more)

    def _counters(self) -> dict[str, int]:
        names = [name for name in self._profile.counters if self._knobs.exists(name)]
        return {name: self._knobs.number(name) - self._counters_before.get(name, 0) for name in names}

    def _vmstat(self) -> dict[str, int]:
        now = procfs.vmstat(self._profile.vmstat)
        return {name: value - self._vmstat_before[name] for name, value in now.items()}


def _view(p: str, r: str, frames: NDArray[np.int64]) -> RegionView:
    kind = np.where(frames < 0, frames, ANON)
    return RegionView(p, r, frames, kind, np.where(frames < 0, -1, 0))


def _cannot(what: str) -> NoReturn:
    raise NotImplementedError(f"the host cannot {what} for us")
