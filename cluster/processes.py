"""Processes of one node: mmap, madvise, munmap, fork, exit (mm/mmap.c, mm/madvise.c, kernel/fork.c)."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster import commands as c
from cluster.errors import SimulationError
from cluster.faults import Faults
from cluster.mailbox import Kind
from cluster.page_table import ACTIVE, ITEM, KSM, PRESENT, SHARED, ZEROED
from cluster.state import NodeState
from cluster.vma import Mm, Vma
from cluster.words import I64, node_of_frame, node_of_mm


class Processes:
    def __init__(self, node: NodeState, faults: Faults) -> None:
        self._n = node
        self._faults = faults

    def run(self, command: c.ProcessCommand) -> dict[str, Any]:
        """Carries out a command if its process is one of this node's."""
        mm = command.parent if isinstance(command, c.Fork) else command.mm
        if node_of_mm(mm) != self._n.id:
            return {}
        if isinstance(command, c.Reap):
            return {"gone": self._reap(command.mm)}
        self._change(command)
        return {}

    def _change(self, command: c.ProcessCommand) -> None:
        match command:
            case c.NewProcess(mm):
                self._n.spaces.mms[mm] = Mm(mm)
            case c.Map(mm, start, pages, policy):
                self._n.spaces.map(self._mm(mm), start, pages, policy)
            case c.Write():
                self._faults.write(self._slots(command.mm, command.vpns), command.ids)
            case c.Read(mm, start, pages):
                self._faults.read(self._slots(mm, np.arange(start, start + pages)))
            case c.Madvise():
                self._madvise(command)
            case c.Drop():
                self._drop(command)
            case c.Fork(parent, child):
                self._fork(self._mm(parent), child)
            case c.Exit(mm):
                self._exit(self._mm(mm))

    def _mm(self, mm: int) -> Mm:
        return self._n.spaces.mms[mm]

    def _slots(self, mm: int, vpns: I64) -> I64:
        slots = self._n.spaces.slots(self._mm(mm), vpns)
        if (slots < 0).any():
            raise SimulationError(f"page {int(vpns[slots < 0][0]):#x} of process {mm} is not mapped")
        return slots

    def _madvise(self, command: c.Madvise) -> None:
        n = self._n
        vmas = n.spaces.split(self._mm(command.mm), command.start, command.start + command.pages)
        for vma in vmas:
            if vma.mergeable == command.mergeable:
                continue
            slots = _slots_of(vma)
            if not command.mergeable:
                self._faults.copy_out(slots)
            vma.mergeable = command.mergeable
            n.spaces.changed()
            state = n.table.state[slots]
            self._faults.withdraw(slots)
            n.table.state[slots[(state & (PRESENT | ITEM)) != 0]] |= ACTIVE
        n.version += 1

    def look_again(self) -> None:
        """Rules have changed: ksmd's next visit to every page that is not merged has something to do."""
        n = self._n
        state = n.table.state[: n.table.size]
        slots = np.flatnonzero((state & ITEM != 0) & (state & KSM == 0))
        self._faults.withdraw(slots)
        n.table.state[slots] |= ACTIVE
        n.version += 1

    def _drop(self, command: c.Drop) -> None:
        vmas = self._n.spaces.split(self._mm(command.mm), command.start, command.start + command.pages)
        for vma in vmas:
            self._faults.drop(_slots_of(vma))
            if command.unmap:
                self._unmap(vma)

    def _unmap(self, vma: Vma) -> None:
        """The VMA goes; where ksmd still has items it stays as a hole that cannot be touched."""
        vma.mergeable = False
        vma.unmapped = True
        self._n.spaces.changed()

    def _fork(self, parent: Mm, child_id: int) -> None:
        """The child maps the parent's frames; both write to copies from now on."""
        n, table = self._n, self._n.table
        child = Mm(child_id, merge_any=parent.merge_any)
        n.spaces.mms[child_id] = child
        for vma in [v for v in parent.vmas if not v.unmapped]:
            copy = n.spaces.map(child, vma.start, vma.pages, vma.policy, vma.name)
            copy.mergeable = vma.mergeable
            self._share(_slots_of(vma), _slots_of(copy))
            present = _slots_of(copy)
            if vma.mergeable:
                table.state[present[(table.state[present] & PRESENT) != 0]] |= ACTIVE
        n.spaces.changed()
        n.version += 1

    def _share(self, old: I64, new: I64) -> None:
        n, table = self._n, self._n.table
        state = table.state[old]
        private = (state & (PRESENT | KSM)) == PRESENT
        table.state[old[private]] |= SHARED
        table.pte[new] = table.pte[old]
        table.tree_key[new] = table.tree_key[old]
        table.state[new] = table.state[old] & (PRESENT | KSM | SHARED | ZEROED)
        frames = table.pte[new[(state & PRESENT) != 0]]
        n.out.send(Kind.GET, node_of_frame(frames), frames)

    def _exit(self, mm: Mm) -> None:
        mm.exited = True
        for vma in mm.vmas:
            self._faults.drop(_slots_of(vma))
            self._unmap(vma)

    def _reap(self, mm_id: int) -> bool:
        """Frees what ksmd has passed over for good; returns whether nothing of the process is mergeable."""
        n = self._n
        mm = n.spaces.mms[mm_id]
        for vma in [v for v in mm.vmas if v.unmapped]:
            n.table.release(vma.slot0, vma.pages)
            mm.vmas.remove(vma)
        if mm.exited:
            del n.spaces.mms[mm_id]
        n.spaces.changed()
        return not mm.mergeable


def _slots_of(vma: Vma) -> I64:
    return np.arange(vma.slot0, vma.slot0 + vma.pages)
