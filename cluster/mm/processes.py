"""System calls of one node's processes: mmap, madvise, munmap, fork, exit (mm/mmap.c, mm/madvise.c,
kernel/fork.c)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.columns import is_in, rows_with
from cluster.arrays.words import HUGE_SIZE, I64, VPN_MASK, Slots, node_of_frame, on_node
from cluster.mm.faults import Faults
from cluster.mm.huge.mappings import HugeMappings
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import IN_UNSTABLE_TREE, ITEM, KSM, KSM_ZERO, PRESENT, PTE_SWAP, STABLE
from cluster.mm.vma import Mm, Vma
from cluster.spec.errors import SimulationError
from cluster.wire import commands as c
from cluster.wire.messages import Kind
from cluster.wire.window import Window


class Processes:
    """Carries out system calls, and what writes to /sys/kernel/mm/ksm change in page tables."""

    def __init__(self, node: NodeState, faults: Faults, huge: HugeMappings) -> None:
        self._n = node
        self._faults = faults
        self._huge = huge

    # What processes do to pages.

    def write(self, command: c.Write) -> None:
        slots = self._slots(command.mm, command.vpns)
        if command.ids is None:
            self._faults.write_same(slots)
        else:
            self._faults.write(slots, command.ids)

    def read(self, command: c.Read) -> None:
        vpns = np.arange(command.start, command.start + command.nr_pages)
        self._faults.read(self._slots(command.mm, vpns))

    def pin(self, command: c.Pin) -> None:
        self._faults.pin(self.mapped(command.mm, command.start, command.nr_pages))

    def page_out(self, command: c.PageOut) -> None:
        self._faults.page_out(self.mapped(command.mm, command.start, command.nr_pages))

    # What processes do to their address spaces.

    def new_process(self, command: c.NewProcess) -> None:
        self._n.spaces.add(Mm(command.mm))

    def mmap(self, command: c.Map) -> None:
        mm = self._mm(command.mm)
        area = command.start, command.nr_pages, command.policy
        self._n.spaces.mmap(mm, *area, mergeable=mm.merge_any)

    def set_merge_any(self, command: c.MergeAny) -> None:
        mm = self._mm(command.mm)
        mm.merge_any = command.on
        mm.anon_vmas.merge_any(on=command.on)
        for vma in mm.vmas:
            self._set_mergeable(vma, command.on and not vma.unmapped)

    def count_on(self, question: c.CountOn) -> int:
        """Return how many of these pages have their frame on node `question.to`."""
        table = self._n.table
        slots = self.mapped(question.mm, question.start, question.nr_pages)
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
            self._free_unmapped(mm)

    def _mm(self, mm: int) -> Mm:
        return self._n.spaces.mms[mm]

    def _slots(self, mm: int, vpns: I64) -> Slots:
        slots = self._n.spaces.slots(self._mm(mm), vpns)
        if (slots < 0).any():
            raise SimulationError(f"page {int(vpns[slots < 0][0]):#x} of process {mm} is not mapped")
        return slots

    def mapped(self, mm: int, start: int, pages: int) -> Slots:
        """Return the slots of the mapped pages of a range, in order."""
        vmas = self._n.spaces.split(self._mm(mm), start, start + pages)
        return np.concatenate([np.empty(0, np.int64), *map(_slots_of, vmas)])

    def madvise(self, command: c.Madvise) -> None:
        n, mm, end = self._n, self._mm(command.mm), command.start + command.nr_pages
        for vma in n.spaces.split(mm, command.start, end):
            self._set_mergeable(vma, command.mergeable)
        into_bare = n.profile.into_bare
        before = self._edges(mm)
        mm.anon_vmas.madvise(command.start, end, mergeable=command.mergeable, into_bare=into_bare)
        self._split_pmds(mm, before)

    def _edges(self, mm: Mm) -> set[int]:
        """Return where VMAs begin inside aligned 512 pages; nothing if there never was a huge page."""
        if not self._n.huge_pages.used:
            return set()
        return {start for start, _ in mm.anon_vmas.parts(0, VPN_MASK) if start % HUGE_SIZE}

    def _split_pmds(self, mm: Mm, before: set[int]) -> None:
        """Split the PMDs inside which VMAs begin now, but did not before (vma_adjust_trans_huge())."""
        new = sorted(self._edges(mm) - before)
        slots = self._n.spaces.slots(mm, np.array(new, np.int64))
        self._huge.split_pmds(slots[slots >= 0])

    def advise_huge(self, command: c.AdviseHuge) -> None:
        """Let faults map huge pages in a range from now on (MADV_HUGEPAGE)."""
        n, mm, end = self._n, self._mm(command.mm), command.start + command.nr_pages
        for vma in n.spaces.split(mm, command.start, end):
            vma.huge = True
        n.spaces.changed()
        before = self._edges(mm)
        mm.anon_vmas.madvise_huge(command.start, end, into_bare=n.profile.into_bare)
        self._split_pmds(mm, before)

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

    def leave_trees(self) -> Slots:
        """Take pages out of their unstable trees, before merge_across_nodes changes.

        Returns pages that stay: ksmd has inserted them in the pass under way, and searches can still find
        them. These are those in the tree of all nodes, which becomes that of node 0, or the other way.
        """
        n = self._n
        slots = rows_with(n.table.state[: n.table.size], IN_UNSTABLE_TREE)
        stays = n.passed(n.keys_of(slots))
        if not (n.tree_shape or n.homes_follow):
            stays &= n.table.home[slots] == 0
        self._faults.leave_unstable_tree(slots[~stays])
        return slots[stays]

    def change_trees(self, slots: Slots) -> None:
        """Let node 0 be the home of pages that have stayed, after merge_across_nodes has changed."""
        if not self._n.tree_shape:
            self._n.table.set_homes(slots, np.zeros_like(slots))

    def look_again(self) -> None:
        """Make a visit due to every item that is not merged, because rules have changed."""
        table = self._n.table
        table.mark_due(np.flatnonzero((table.state[: table.size] & (ITEM | KSM)) == ITEM))

    def zap(self, command: c.Zap) -> None:
        mm, end = self._mm(command.mm), command.start + command.nr_pages
        vmas = self._n.spaces.split(mm, command.start, end)
        self._drop(mm, vmas)
        if command.unmap:
            for vma in vmas:
                self._unmap(vma)
            mm.anon_vmas.munmap(command.start, end)

    def _drop(self, mm: Mm, vmas: list[Vma]) -> None:
        """Drop all pages of these parts of VMAs, VMA by VMA."""
        vmas = [vma for vma in vmas if not vma.unmapped]
        for low, high in mm.anon_vmas.parts(0, VPN_MASK):
            parts = [_slots_of(vma) for vma in vmas if low <= vma.start < high]
            if parts:
                self._faults.drop(np.concatenate(parts))

    def _unmap(self, vma: Vma) -> None:
        """Remove the VMA; its slots stay until ksmd has freed their items."""
        vma.mergeable = False
        vma.unmapped = True
        self._n.spaces.changed()

    def fork(self, command: c.Fork) -> None:
        """Create a child that maps the parent's frames where there is an anon_vma (dup_mmap())."""
        n, parent = self._n, self._mm(command.mm)
        child = Mm(command.child, merge_any=parent.merge_any)
        if n.profile.fork_copies_counts:
            child.inherited = self.items(parent)
        n.spaces.add(child)
        n.spaces.copy(parent, child)
        self.inherit(parent, child)

    def inherit(self, parent: Mm, child: Mm, own: frozenset[int] = frozenset()) -> None:
        """Have a child, whose VMAs are the parent's, map its frames; see `fork`.

        `own` are the first slots of VMAs that are not empty, and stay as they are.
        """
        child.anon_vmas = parent.anon_vmas.fork(parent.id)
        vmas = [vma for vma in parent.vmas if not vma.unmapped]
        for vma, copy in zip(vmas, child.vmas, strict=True):
            if parent.anon_vmas.needs_copy(vma.start) and copy.slot0 not in own:
                self.share(_slots_of(vma), _slots_of(copy))
                self._n.huge_pages.copy(vma.slot0, vma.pages, copy.slot0)

    def share(self, old: Slots, new: Slots) -> None:
        """Have empty pages map the frames, or hold the swap entries, of others (copy_present_pte())."""
        n = self._n
        if len(n.pinned):
            old, new = self._faults.copy_pinned(old, new)
        pte = n.table.pte[old]
        n.swap.hold(pte[pte <= PTE_SWAP])
        n.table.copy_entries(old, new)
        if n.profile.fork_misses_zero_pages:
            n.counters["ksm_zero_pages_missed"] += int(np.count_nonzero(n.table.state[new] & KSM_ZERO))
        frames = pte[pte >= 0]
        n.out.send(Kind.GET, node_of_frame(frames), frames, np.ones(len(frames), np.int64))
        vmas = n.spaces.index
        due = new[(n.table.state[new] & PRESENT) != 0]
        n.table.mark_due(due[vmas.mergeable[vmas.vma_of(due)]])

    def share_huge(self, old: Slots, new: Slots) -> None:
        """Map huge pages at bases `new` by PMDs, too, whose pages share the frames of those at `old`."""
        huge = self._n.huge_pages
        if huge.used:
            huge.map(new[is_in(old, huge.pmds)])

    def exit(self, command: c.Exit) -> c.Exited:
        """Unmap everything; answer whether ksmd has rmap_items of the process."""
        mm = self._mm(command.mm)
        mm.exited = True
        self._drop(mm, mm.vmas)
        for vma in mm.vmas:
            self._unmap(vma)
        return c.Exited(self.items(mm)[1] > mm.inherited[1])

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

    def reap(self, command: c.Reap) -> c.Reaped:
        """Free unmapped VMAs, and an exited process, whose items ksmd has freed.

        Answer whether nothing of the process is mergeable, and whether some VMAs must wait for ksmd.
        """
        mm = self._mm(command.mm)
        self._free_unmapped(mm)
        if not mm.mergeable and self._n.profile.idle_loses_merge_any:
            mm.merge_any = False
        return c.Reaped(not mm.mergeable, any(vma.unmapped for vma in mm.vmas))

    def _free_unmapped(self, mm: Mm) -> None:
        n = self._n
        for vma in [v for v in mm.vmas if v.unmapped]:
            if not (n.table.state[vma.slot0 : vma.slot0 + vma.pages] & ITEM).any():
                n.table.release(vma.slot0, vma.pages)
                n.huge_pages.release(vma.slot0, vma.pages)
                mm.vmas.remove(vma)
        if mm.exited and not mm.vmas:
            n.spaces.remove(mm)
        n.spaces.changed()


def _slots_of(vma: Vma) -> Slots:
    return np.arange(vma.slot0, vma.slot0 + vma.pages)
