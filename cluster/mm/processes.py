"""System calls of one node's processes: mmap, madvise, munmap, fork, exit (mm/mmap.c, mm/madvise.c,
kernel/fork.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import I64, Slots, node_of_frame, node_of_mm, on_node
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import IN_UNSTABLE_TREE, ITEM, KSM, KSM_ZERO, PRESENT, PTE_SWAP, STABLE
from cluster.mm.vma import Mm, Vma
from cluster.spec.errors import SimulationError
from cluster.wire import commands as c
from cluster.wire.messages import Kind
from cluster.wire.window import Window


class Processes:
    """Carries out system calls, and what writes to /sys/kernel/mm/ksm change in page tables.

    `move_pages` moves the frames of slots to a node.
    """

    def __init__(self, node: NodeState, faults: Faults, move_pages: Callable[[Slots, int], None]) -> None:
        self._n = node
        self._faults = faults
        self._move_pages = move_pages

    def run(self, command: c.ProcessCommand) -> dict[str, Any]:
        """Carry out a command if its process is on this node, and return the answer."""
        if isinstance(command, c.Move):
            self._n.migration = command.number
        mm = command.parent if isinstance(command, c.Fork) else command.mm
        if node_of_mm(mm) != self._n.id:
            return {}
        match command:
            case c.Reap(mm):
                return self._reap(mm)
            case c.Exit(mm):
                return {"items": self._exit(self._mm(mm))}
            case c.Write() | c.Read() | c.Drop() | c.PageOut() | c.Move():
                self._touch(command)
            case _:
                self._change(command)
        return {}

    def _touch(self, command: c.Write | c.Read | c.Drop | c.PageOut | c.Move) -> None:
        """What processes do to pages."""
        match command:
            case c.Write(mm, vpns, ids):
                self._faults.write(self._slots(mm, vpns), ids)
            case c.Read(mm, start, pages):
                self._faults.read(self._slots(mm, np.arange(start, start + pages)))
            case c.PageOut(mm, start, pages):
                self._faults.page_out(self._mapped(mm, start, pages))
            case c.Move(mm, start, pages, to):
                self._move_pages(self._mapped(mm, start, pages), to)
            case c.Drop():
                self._drop(command)

    def _change(self, command: c.NewProcess | c.Map | c.Madvise | c.MergeAny | c.Fork) -> None:
        """Change address spaces."""
        match command:
            case c.NewProcess(mm):
                self._n.spaces.mms[mm] = Mm(mm)
            case c.Map(mm, start, pages, policy):
                space = self._mm(mm)
                self._n.spaces.mmap(space, start, pages, policy, mergeable=space.merge_any)
            case c.Madvise():
                self._madvise(command)
            case c.MergeAny(mm):
                self._mm(mm).merge_any = True
                self._mm(mm).anon_vmas.merge_any()
                for vma in self._mm(mm).vmas:
                    self._set_mergeable(vma, not vma.unmapped)
            case c.Fork(parent, child):
                self._fork(self._mm(parent), child)

    def count_on(self, question: c.CountOn) -> int:
        """Return how many of these pages have their frame on node `question.to`."""
        table = self._n.table
        slots = self._mapped(question.mm, question.start, question.pages)
        slots = slots[(table.state[slots] & PRESENT) != 0]
        return int(np.count_nonzero(on_node(table.pte[slots], question.to)))

    def unmerge_all(self) -> None:
        """Break every merge of mergeable memory, and free all rmap_items (run=2)."""
        n = self._n
        for mm in list(n.spaces.mms.values()):
            for vma in mm.vmas:
                if vma.mergeable:
                    self._faults.break_ksm(_slots_of(vma))
        n.table.free_all_items()
        n.window = Window(0)
        for mm in list(n.spaces.mms.values()):
            self._reap(mm.id)

    def _mm(self, mm: int) -> Mm:
        return self._n.spaces.mms[mm]

    def _slots(self, mm: int, vpns: I64) -> Slots:
        slots = self._n.spaces.slots(self._mm(mm), vpns)
        if (slots < 0).any():
            raise SimulationError(f"page {int(vpns[slots < 0][0]):#x} of process {mm} is not mapped")
        return slots

    def _mapped(self, mm: int, start: int, pages: int) -> Slots:
        """Return the slots of the pages of a range that are mapped, in order."""
        vmas = self._n.spaces.split(self._mm(mm), start, start + pages)
        return np.concatenate([np.empty(0, np.int64), *map(_slots_of, vmas)])

    def _madvise(self, command: c.Madvise) -> None:
        n, mm, end = self._n, self._mm(command.mm), command.start + command.pages
        for vma in n.spaces.split(mm, command.start, end):
            self._set_mergeable(vma, command.mergeable)
        into_bare = n.profile.into_bare
        mm.anon_vmas.madvise(command.start, end, mergeable=command.mergeable, into_bare=into_bare)

    def _set_mergeable(self, vma: Vma, mergeable: bool) -> None:
        if vma.mergeable == mergeable:
            return
        n, slots = self._n, _slots_of(vma)
        if not mergeable:
            self._faults.break_ksm(slots)
            self._faults.tell_gone(slots)
        vma.mergeable = mergeable
        n.spaces.changed()
        if mergeable:
            self._faults.tell_back(slots)
        n.table.mark_due(slots[(n.table.state[slots] & (PRESENT | ITEM)) != 0])

    def change_trees(self) -> None:
        """Take pages out of their unstable trees, as merge_across_nodes changes.

        Pages that ksmd has inserted in the pass under way stay, if searches can still find them.
        """
        n = self._n
        slots = rows_with(n.table.state[: n.table.size], IN_UNSTABLE_TREE)
        if n.tree_shape or n.nodes == 1:
            slots = slots[~n.passed(n.keys_of(slots))]
        self._faults.leave_unstable_tree(slots)

    def look_again(self) -> None:
        """Have ksmd look at every page that is not merged, as rules have changed."""
        table = self._n.table
        table.mark_due(np.flatnonzero((table.state[: table.size] & (ITEM | KSM)) == ITEM))

    def _drop(self, command: c.Drop) -> None:
        mm, end = self._mm(command.mm), command.start + command.pages
        for vma in self._n.spaces.split(mm, command.start, end):
            self._faults.drop(_slots_of(vma))
            if command.unmap:
                self._unmap(vma)
        if command.unmap:
            mm.anon_vmas.munmap(command.start, end)

    def _unmap(self, vma: Vma) -> None:
        """Remove the VMA; its slots stay until ksmd has freed their items."""
        vma.mergeable = False
        vma.unmapped = True
        self._n.spaces.changed()

    def _fork(self, parent: Mm, child_id: int) -> None:
        """Have a child map the parent's frames where there is an anon_vma (dup_mmap())."""
        n = self._n
        child = Mm(child_id, merge_any=parent.merge_any, anon_vmas=parent.anon_vmas.fork(parent.id))
        if n.profile.fork_copies_counts:
            child.inherited = self.items(parent)
        n.spaces.mms[child_id] = child
        for vma in [v for v in parent.vmas if not v.unmapped]:
            copy = n.spaces.map(
                child, vma.start, vma.pages, vma.policy, mergeable=vma.mergeable, name=vma.name
            )
            if not parent.anon_vmas.needs_copy(vma.start):
                continue
            self._share(_slots_of(vma), _slots_of(copy))
            if vma.mergeable:
                slots = _slots_of(copy)
                n.table.mark_due(slots[(n.table.state[slots] & PRESENT) != 0])
        n.spaces.changed()

    def _share(self, old: Slots, new: Slots) -> None:
        n, pte = self._n, self._n.table.pte[old]
        n.swap.hold(pte[pte <= PTE_SWAP])
        n.table.copy_entries(old, new)
        frames = pte[pte >= 0]
        n.out.send(Kind.GET, node_of_frame(frames), frames, np.ones(len(frames), np.int64))

    def _exit(self, mm: Mm) -> bool:
        """Unmap everything; return whether ksmd has rmap_items of the process."""
        mm.exited = True
        for vma in mm.vmas:
            self._faults.drop(_slots_of(vma))
            self._unmap(vma)
        return self.items(mm)[1] > mm.inherited[1]

    def items(self, mm: Mm) -> tuple[int, int]:
        """Return ksm_merging_pages and ksm_rmap_items (/proc/PID/ksm_stat)."""
        merging, items = mm.inherited
        for vma in mm.vmas:
            state = self._n.table.state[vma.slot0 : vma.slot0 + vma.pages]
            merging += int(np.count_nonzero(state & STABLE))
            items += int(np.count_nonzero(state & ITEM))
        return merging, items

    def zero_pages(self, mm: Mm) -> int:
        """Return ksm_zero_pages (/proc/PID/ksm_stat)."""
        state = self._n.table.state
        return sum(int(np.count_nonzero(state[v.slot0 : v.slot0 + v.pages] & KSM_ZERO)) for v in mm.vmas)

    def _reap(self, mm_id: int) -> dict[str, Any]:
        """Free unmapped VMAs, and an exited process, whose items ksmd has freed.

        Return whether nothing of the process is mergeable, and whether some VMAs must wait for ksmd.
        """
        n = self._n
        mm = n.spaces.mms[mm_id]
        for vma in [v for v in mm.vmas if v.unmapped]:
            if not (n.table.state[vma.slot0 : vma.slot0 + vma.pages] & ITEM).any():
                n.table.release(vma.slot0, vma.pages)
                mm.vmas.remove(vma)
        if mm.exited and not mm.vmas:
            del n.spaces.mms[mm_id]
        n.spaces.changed()
        return {"gone": not mm.mergeable, "again": any(vma.unmapped for vma in mm.vmas)}


def _slots_of(vma: Vma) -> Slots:
    return np.arange(vma.slot0, vma.slot0 + vma.pages)
