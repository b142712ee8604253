"""Processes of one node: mmap, madvise, munmap, fork, exit (mm/mmap.c, mm/madvise.c, kernel/fork.c)."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import I64, node_of_frame, node_of_mm, on_node
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_table import (
    ACTIVE,
    ASIDE,
    BROKEN,
    CHECKED,
    ITEM,
    KSM,
    ORPHAN,
    PRESENT,
    PTE_SWAP,
    SHARED,
    STABLE,
    UNSTABLE,
    WAITING,
    ZEROED,
)
from cluster.mm.vma import Mm, Vma
from cluster.numa.migrate_frames import Migration
from cluster.spec.errors import SimulationError
from cluster.wire import commands as c
from cluster.wire.messages import Kind
from cluster.wire.window import Window


class Processes:
    def __init__(self, node: NodeState, faults: Faults, migration: Migration) -> None:
        self._n = node
        self._faults = faults
        self._migration = migration

    def run(self, command: c.ProcessCommand) -> dict[str, Any]:
        """Carries out a command if its process is one of this node's."""
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
                self._migration.move(self._mapped(mm, start, pages), to)
            case c.Drop():
                self._drop(command)

    def _change(self, command: c.NewProcess | c.Map | c.Madvise | c.MergeAny | c.Fork) -> None:
        """What processes do to their address spaces."""
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
        """How many of these pages have their frame on a node."""
        table = self._n.table
        slots = self._mapped(question.mm, question.start, question.pages)
        slots = slots[(table.state[slots] & PRESENT) != 0]
        return int(np.count_nonzero(on_node(table.pte[slots], question.to)))

    def unmerge_all(self) -> None:
        """Breaks every merge of mergeable memory, and frees all rmap_items."""
        n, table = self._n, self._n.table
        n.version += 1
        for mm in list(n.spaces.mms.values()):
            for vma in mm.vmas:
                if vma.mergeable:
                    self._faults.break_ksm(_slots_of(vma))
        items = rows_with(table.state[: table.size], ITEM)
        state = table.state[items] & ~np.uint16(ITEM | UNSTABLE | STABLE | CHECKED | ASIDE | BROKEN | WAITING)
        table.state[items] = state | ACTIVE
        table.rejuvenate(items)
        n.broken.forget()
        n.window = Window(0)
        for mm in list(n.spaces.mms.values()):
            self._reap(mm.id)

    def _mm(self, mm: int) -> Mm:
        return self._n.spaces.mms[mm]

    def _slots(self, mm: int, vpns: I64) -> I64:
        slots = self._n.spaces.slots(self._mm(mm), vpns)
        if (slots < 0).any():
            raise SimulationError(f"page {int(vpns[slots < 0][0]):#x} of process {mm} is not mapped")
        return slots

    def _mapped(self, mm: int, start: int, pages: int) -> I64:
        """Slots of the pages of a range that are mapped, in order."""
        vmas = self._n.spaces.split(self._mm(mm), start, start + pages)
        return np.concatenate([np.empty(0, np.int64), *map(_slots_of, vmas)])

    def _madvise(self, command: c.Madvise) -> None:
        n, mm, end = self._n, self._mm(command.mm), command.start + command.pages
        for vma in n.spaces.split(mm, command.start, end):
            self._set_mergeable(vma, command.mergeable)
        into_bare = n.profile.into_bare
        mm.anon_vmas.madvise(command.start, end, mergeable=command.mergeable, into_bare=into_bare)
        n.version += 1

    def _set_mergeable(self, vma: Vma, mergeable: bool) -> None:
        if vma.mergeable == mergeable:
            return
        n, slots = self._n, _slots_of(vma)
        if not mergeable:
            self._faults.break_ksm(slots)
            self._faults.lose(slots)
        vma.mergeable = mergeable
        n.spaces.changed()
        if mergeable:
            self._faults.reappear(slots)
        state = n.table.state[slots]
        n.table.state[slots[(state & (PRESENT | ITEM)) != 0]] |= ACTIVE

    def change_trees(self) -> None:
        """Pages are to be looked up in other trees; those that ksmd has put into their tree in this pass
        stay there, if searches can still find them."""
        n = self._n
        slots = rows_with(n.table.state[: n.table.size], WAITING)
        if n.tree_shape or n.nodes == 1:
            slots = slots[~n.passed(n.keys_of(slots))]
        self._faults.withdraw(slots)

    def look_again(self) -> None:
        """Rules have changed: ksmd's next visit to every page that is not merged has something to do."""
        n = self._n
        state = n.table.state[: n.table.size]
        n.table.state[np.flatnonzero((state & ITEM != 0) & (state & KSM == 0))] |= ACTIVE

    def _drop(self, command: c.Drop) -> None:
        mm, end = self._mm(command.mm), command.start + command.pages
        for vma in self._n.spaces.split(mm, command.start, end):
            self._faults.drop(_slots_of(vma))
            if command.unmap:
                self._unmap(vma)
        if command.unmap:
            mm.anon_vmas.munmap(command.start, end)

    def _unmap(self, vma: Vma) -> None:
        """The VMA goes; where ksmd still has items it stays as a hole that cannot be touched."""
        vma.mergeable = False
        vma.unmapped = True
        self._n.spaces.changed()

    def _fork(self, parent: Mm, child_id: int) -> None:
        """The child maps the parent's frames where there is an anon_vma; both write to copies from now on."""
        n, table = self._n, self._n.table
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
            present = _slots_of(copy)
            if vma.mergeable:
                table.state[present[(table.state[present] & PRESENT) != 0]] |= ACTIVE
        n.spaces.changed()
        n.version += 1

    def _share(self, old: I64, new: I64) -> None:
        n, table = self._n, self._n.table
        state = table.state[old]
        private = (state & (PRESENT | KSM)) == PRESENT
        pte = table.pte[old]
        n.swap.hold(pte[pte <= PTE_SWAP])
        table.state[old[private]] |= SHARED
        table.pte[new] = table.pte[old]
        table.tree_key[new] = table.tree_key[old]
        table.state[new] = table.state[old] & (PRESENT | KSM | ORPHAN | SHARED | ZEROED)
        frames = table.pte[new[(state & PRESENT) != 0]]
        n.out.send(Kind.GET, node_of_frame(frames), frames, np.ones(len(frames), np.int64))

    def _exit(self, mm: Mm) -> bool:
        """Returns whether ksmd has rmap_items of the process."""
        mm.exited = True
        for vma in mm.vmas:
            self._faults.drop(_slots_of(vma))
            self._unmap(vma)
        return self.items(mm)[1] > mm.inherited[1]

    def items(self, mm: Mm) -> tuple[int, int]:
        """ksm_merging_pages and ksm_rmap_items."""
        merging, items = mm.inherited
        for vma in mm.vmas:
            state = self._n.table.state[vma.slot0 : vma.slot0 + vma.pages]
            merging += int(np.count_nonzero(state & STABLE))
            items += int(np.count_nonzero(state & ITEM))
        return merging, items

    def zero_pages(self, mm: Mm) -> int:
        """ksm_zero_pages."""
        state = self._n.table.state
        return sum(int(np.count_nonzero(state[v.slot0 : v.slot0 + v.pages] & ZEROED)) for v in mm.vmas)

    def _reap(self, mm_id: int) -> dict[str, Any]:
        """Frees what ksmd has passed over for good.

        Tells whether nothing of the process is mergeable, and whether some of it could not be freed yet.
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


def _slots_of(vma: Vma) -> I64:
    return np.arange(vma.slot0, vma.slot0 + vma.pages)
