"""One node's part in memory failure and soft offline (mm/memory-failure.c)."""

from __future__ import annotations

from functools import singledispatchmethod

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import Slots, is_ksm_word, node_of_frame, node_of_mm, pfn_of
from cluster.ksm.split_huge import HugeSplitter
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import PRESENT, PTE_HWPOISON
from cluster.mm.rmap import found
from cluster.wire import commands as c
from cluster.wire.messages import Kind


class NodeMemoryFailure:
    """Carries out the commands of `cluster.machine.replay.fail_memory`."""

    def __init__(self, node: NodeState, faults: Faults, splitter: HugeSplitter) -> None:
        self._n = node
        self._faults = faults
        self._splitter = splitter

    @singledispatchmethod
    def run(self, command: c.FailureCommand) -> c.Answer | None:
        """Carry out one command; return the answer if this node has it."""
        raise NotImplementedError(type(command).__name__)

    @run.register
    def _(self, command: c.LookAtPage) -> c.Answer | None:
        n = self._n
        if node_of_mm(command.mm) != n.id:
            return None
        slots = self._slots(command.mm, command.vpn)
        huge_zero = n.huge_pages.used and bool(np.isin(n.bases_of(slots), n.huge_pages.zero)[0])
        return c.PageSeen(int(n.table.pte[slots][0]), huge_zero)

    @run.register
    def _(self, command: c.LookAtFrame) -> c.Answer | None:
        n, frames = self._n, np.array([command.frame])
        if node_of_frame(command.frame) != n.id:
            return None
        mapcount = int(n.frames.mapcount[pfn_of(frames)][0])
        return c.FrameSeen(bool(n.failed.among(frames)[0]), mapcount)

    @run.register
    def _(self, command: c.FailFrame) -> None:
        n, frames = self._n, np.array([command.frame])
        n.failed.note(frames)
        if node_of_frame(command.frame) == n.id:
            n.frames.pin(pfn_of(frames))

    @run.register
    def _(self, command: c.TrySplit) -> None:
        if node_of_mm(command.mm) == self._n.id:
            self._splitter.try_split(int(self._slots(command.mm, command.vpn)[0]))

    @run.register
    def _(self, command: c.LoseFrame) -> None:
        n, table = self._n, self._n.table
        n.failed.note(np.array([command.frame]))
        slots = rows_with(table.state[: table.size], PRESENT)
        slots = slots[table.pte[slots] == command.frame]
        entry = int(n.swap.entries_of(np.array([command.frame]))[0])
        if is_ksm_word(command.frame):
            slots = slots[found(n, slots)]
            if entry:
                # A dirty page stays in the swap cache, where every access to it fails.
                slots = np.concatenate([slots, np.flatnonzero(table.pte[: table.size] == entry)])
        elif entry:
            n.swap.cache(np.array([entry]), np.array([-1]))
            n.out.send(Kind.UNPIN, np.array([node_of_frame(command.frame)]), np.array([command.frame]))
        self._faults.lose(slots)

    @run.register
    def _(self, command: c.RenewFrame) -> None:
        n = self._n
        n.migration_seq = command.seq
        if node_of_mm(command.mm) != n.id:
            return
        slots = self._slots(command.mm, command.vpn)
        frames = n.table.pte[slots[~n.stays(slots)]]
        n.out.send(Kind.MIGRATE, node_of_frame(frames), frames, node_of_frame(frames))

    @run.register
    def _(self, command: c.RetireFrame) -> None:
        if node_of_frame(command.frame) == self._n.id:
            self._n.frames.retire(int(pfn_of(np.array([command.frame]))[0]))

    @run.register
    def _(self, command: c.FindLost) -> c.Answer | None:
        n = self._n
        if node_of_mm(command.mm) != n.id:
            return None
        vpns = np.arange(command.start, command.start + command.nr_pages)
        slots = n.spaces.slots(n.spaces.mms[command.mm], vpns)
        mapped = slots >= 0
        return c.PagesLost(vpns[mapped][n.table.pte[slots[mapped]] == PTE_HWPOISON])

    def _slots(self, mm: int, vpn: int) -> Slots:
        """Return the slot of a mapped page. int64[1]."""
        return self._n.spaces.slots(self._n.spaces.mms[mm], np.array([vpn]))
