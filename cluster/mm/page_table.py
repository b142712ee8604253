"""Page table entries and rmap_items of the processes of one node, one slot a virtual page.

`PageTable` owns both. Its methods are the only transitions: others may read its columns, but not write them.
`cluster.mm.page_state` says what the bits mean, and which may go together. The transitions, with the state
before, what they change, and the kernel function that does it:

Slots
    allocate             free slot             PTE_NONE                         none
    release              nothing mapped,       PTE_NONE, state 0                none
                         no item
Page faults and system calls
    map_zero_page        nothing mapped        PTE_ZERO                         do_anonymous_page()
    map_frames           not PRESENT           +PRESENT                         do_anonymous_page(), ...
    map_huge             nothing mapped        +PRESENT +HUGE                   do_anonymous_page(), THP
    map_cached           swap entry            +PRESENT +SHARED                 do_swap_page(), swap cache
    map_ksm_frames       swap entry            +PRESENT +KSM, as rekey          do_swap_page(), swap cache
    unmap                any                   PTE_NONE, -PRESENT -KSM -ORPHAN  zap_pte_range(), do_wp_page()
                                               -SHARED -HUGE -KSM_ZERO
                                               -SPLIT_ZERO
                                               -INITIAL_FRAME, unless kept
                         KSM and STABLE        ... +BROKEN_OUT +VISIT_DUE
    set_swap_entries     nothing mapped        swap entry, or PTE_HWPOISON      try_to_unmap()
    set_shared           PRESENT, not KSM      +SHARED                          do_swap_page(), not exclusive
    set_exclusive        PRESENT, not KSM      -SHARED -INITIAL_FRAME           wp_can_reuse_anon_folio()
    copy_entries         parent: not KSM       +SHARED                          copy_present_pte()
                         child: empty          the parent's entry, bits of the
                                               mapping and digest; no item
    keep_initial_frames  SHARED, not KSM       +INITIAL_FRAME                   none: at the start
    rename_frames        PRESENT               another frame word               remove_migration_pte()
    split_huge           HUGE                  -HUGE, frame word                __split_huge_page()
    map_split_zero       nothing mapped        PTE_ZERO, +SPLIT_ZERO            __split_unmapped_folio()
    mark_due             any                   +VISIT_DUE                       none: the checksum will differ
    free_all_items       any                   -all bits of items +VISIT_DUE    unmerge_ksm_pages(), run=2
ksmd's visit
    add_items            PRESENT               +ITEM                            get_next_rmap_item()
    take_broken_out      BROKEN_OUT            -STABLE -BROKEN_OUT              remove_rmap_item_from_tree()
    remove_from_trees    ITEM, not BROKEN_OUT  -UNSTABLE -IN_UNSTABLE_TREE      remove_rmap_item_from_tree()
                                               -STABLE +VISIT_DUE
    free_items           in no tree            -all bits of items -VISIT_DUE    remove_trailing_rmap_items()
    visit_ksm            KSM                   +ITEM -VISIT_DUE                 cmp_and_merge_page()
    visit_private        PRESENT, in no tree   +ITEM +HAS_CHECKSUM              cmp_and_merge_page(),
                                               -OTHER_CHECKSUM, digest          calc_checksum()
                         candidate             ... and as set_unstable
What the trees decide
    set_unstable         ITEM and PRESENT      +UNSTABLE +IN_UNSTABLE_TREE      unstable_tree_search_insert()
                                               -STABLE, VISIT_DUE as KSM
    set_stable           ITEM and KSM          +STABLE -UNSTABLE -VISIT_DUE     stable_tree_append()
                                               -IN_UNSTABLE_TREE
    make_ksm             PRESENT               +KSM (+ORPHAN) +VISIT_DUE        folio_set_stable_node()
                                               -SHARED -HUGE, frame word, rekey
    merge                PRESENT               +ITEM +STABLE +KSM, frame word;  replace_page(),
                                               else only the checksum and       stable_tree_append()
                                               INITIAL_FRAME stay
    map_ksm_zero         PRESENT               PTE_ZERO, +ITEM +KSM_ZERO        replace_page()
                                               +VISIT_DUE; else as merge
    leave_unstable_tree  IN_UNSTABLE_TREE      -IN_UNSTABLE_TREE                none: seen at the next visit
    set_homes            any                   home                             unstable_tree_search_insert()
    drop_stable_nodes    BROKEN_OUT            -STABLE -BROKEN_OUT              remove_stable_node_chain()
Checksums (rmap_item->oldchecksum)
    rekey                any                   digest, +OTHER_CHECKSUM if the checksum is not the digest's
    confirm_checksums    ITEM                  +HAS_CHECKSUM -OTHER_CHECKSUM
    restore_checksums    HAS_CHECKSUM          +OTHER_CHECKSUM, checksum
    forget_checksums     ITEM                  -HAS_CHECKSUM -OTHER_CHECKSUM
    forget               ITEM                  as forget_checksums; the age     remove_rmap_item_from_tree(),
                                                                                since 7.3

With `leaving_forgets`, items that leave stable nodes (take_broken_out, drop_stable_nodes, and of STABLE ones
remove_from_trees, set_unstable) forget.

Here a digest is the page's `tree_key`. Only `visit_private` and `set_unstable` set IN_UNSTABLE_TREE. A page
fault (`cluster.mm.faults.Faults`: `write`, `read`, `break_ksm`) changes the entry, the bits of the mapping,
VISIT_DUE and BROKEN_OUT. When it maps a KSM frame of the swap cache (`swap_in`), it also changes the digest
and OTHER_CHECKSUM, by `rekey`. It neither allocates items nor moves them between trees.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cluster.arrays.columns import rows_with
from cluster.arrays.words import (
    HUGE_FRAME,
    I64,
    U16,
    U32,
    Array,
    Digests,
    FrameWords,
    Slots,
    checksum,
    empty,
)
from cluster.mm.page_state import (
    BROKEN_OUT,
    HAS_CHECKSUM,
    HUGE,
    IN_UNSTABLE_TREE,
    INITIAL_FRAME,
    ITEM,
    KSM,
    KSM_ZERO,
    OF_ITEM,
    OF_MAPPING,
    OF_TREES,
    ORPHAN,
    OTHER_CHECKSUM,
    PRESENT,
    PTE_NONE,
    PTE_ZERO,
    SHARED,
    SPLIT_ZERO,
    STABLE,
    UNSTABLE,
    VISIT_DUE,
    check_states,
    names_of,
)
from cluster.mm.skip_ages import SkipAges
from cluster.mm.sparse.initial_frames import InitialFrames
from cluster.mm.sparse.stable_node_exceptions import BrokenOutItems, renamed

#: Of the checksum.
_OF_CHECKSUM = HAS_CHECKSUM | OTHER_CHECKSUM
#: What stays when ksmd maps something else.
_OF_PAGE = _OF_CHECKSUM | INITIAL_FRAME


class PageTable:
    """Slots as a structure of arrays. A VMA owns a run of slots; freed runs are used again, first fit.

    The columns are read-only views, one element a slot:

    - `pte` int64: a frame word, or one of the negative values of `page_state`;
    - `state` uint16: the bits of `page_state`;
    - `tree_key` uint64: the digest under which a tree knows the page, or that its KSM frame has; else that of
      ksmd's last visit;
    - `home` uint16: the node of a page's entry in the unstable tree; empty unless `keep_homes`.

    Slots in arguments are distinct.
    """

    #: Whether transitions check the states before them, and `Node.step` calls `validate`; tests turn it on.
    validating: ClassVar[bool] = False

    def __init__(self) -> None:
        self.size = 0
        #: Grows with every change of an entry or a state.
        self.version = 0
        #: smart_scan's knowledge of the pages.
        self.ages = SkipAges()
        #: Whether items that leave stable nodes lose their checksums and ages (`Profile.leaving_forgets`).
        self.leaving_forgets = False
        #: Frames shared at the start; None if none were.
        self.initial_frames: InitialFrames | None = None
        self._broken_out = BrokenOutItems()
        #: Slots, ascending, and the checksums of those that have OTHER_CHECKSUM; other slots mean nothing.
        self._other_checksums: tuple[Slots, U32] = empty(), empty(np.uint32)
        self._holes: list[tuple[int, int]] = []
        self._keeps_homes = False
        self._set_columns(empty(), empty(np.uint16), empty(np.uint64), empty(np.uint16))

    def _set_columns(self, pte: FrameWords, state: U16, tree_key: Digests, home: U16) -> None:
        self._pte, self._state, self._tree_key, self._home = pte, state, tree_key, home
        self.pte, self.state, self.tree_key, self.home = (_read_only(c) for c in (pte, state, tree_key, home))

    # Slots.

    def keep_ages(self) -> None:
        """Keep smart_scan's ages from now on."""
        self.ages.keep(len(self._pte))

    def keep_homes(self) -> None:
        """Keep the column `home` from now on."""
        if not self._keeps_homes:
            self._keeps_homes = True
            self._grow(len(self._pte))

    def allocate(self, pages: int) -> int:
        """Allocate a run of empty slots; return the first of them."""
        for i, (start, length) in enumerate(self._holes):
            if length >= pages:
                self._holes[i] = (start + pages, length - pages)
                return start
        start = self.size
        self.size += pages
        if self.size > len(self._pte):
            self._grow(max(self.size, len(self._pte) * 3 // 2))
        self._pte[start : self.size] = PTE_NONE
        return start

    def reserve(self, pages: int) -> None:
        """Grow the columns to `pages` slots in all, at once."""
        if pages > len(self._pte):
            self._grow(pages)

    def release(self, start: int, pages: int) -> None:
        """Free a run of slots, which map nothing and have no items."""
        run = slice(start, start + pages)
        if self.validating:
            self._check(np.arange(start, start + pages), 0, OF_MAPPING | OF_ITEM)
        self._pte[run] = PTE_NONE
        self._state[run] = 0
        self.ages.forget(run)
        self._holes.append((start, pages))

    def _grow(self, capacity: int) -> None:
        homes = capacity if self._keeps_homes else 0
        self._set_columns(
            _grown(self._pte, capacity),
            _grown(self._state, capacity),
            _grown(self._tree_key, capacity),
            _grown(self._home, homes),
        )
        self.ages.grow(capacity)

    # Page faults and system calls.

    def map_zero_page(self, slots: Slots) -> None:
        """Map the shared zero page where nothing is mapped."""
        if self._changing(slots, none_of=OF_MAPPING):
            self._pte[slots] = PTE_ZERO

    def map_frames(self, slots: Slots, frames: FrameWords) -> None:
        """Map private frames."""
        if self._changing(slots, none_of=OF_MAPPING):
            self._pte[slots] = frames
            self._state[slots] |= PRESENT

    def map_huge(self, slots: Slots, frames: FrameWords) -> None:
        """Map frames of huge pages."""
        if self._changing(slots, none_of=OF_MAPPING):
            self._pte[slots] = frames
            self._state[slots] |= PRESENT | HUGE

    def map_cached(self, slots: Slots, frames: FrameWords) -> None:
        """Map private frames of the swap cache, which other pages may map too."""
        if self._changing(slots, none_of=OF_MAPPING):
            self._pte[slots] = frames
            self._state[slots] |= PRESENT | SHARED

    def map_ksm_frames(self, slots: Slots, frames: FrameWords, digests: Digests) -> None:
        """Map KSM frames of the swap cache; their contents have these digests."""
        if self._changing(slots, none_of=OF_MAPPING):
            self._pte[slots] = frames
            self._state[slots] |= PRESENT | KSM
            self.rekey(slots, digests)

    def unmap(self, slots: Slots, *, keep: int = 0) -> FrameWords:
        """Unmap pages and return their entries; merged items stay with their stable nodes.

        `keep` is INITIAL_FRAME if the pages would stay where they are without KSM.
        """
        state, pte = self._state[slots], self._pte[slots]
        if self._changing(slots):
            merged = np.flatnonzero((state & (KSM | STABLE | BROKEN_OUT)) == (KSM | STABLE))
            self._broken_out.add(slots[merged], pte[merged], self._tree_key[slots[merged]])
            state[merged] |= BROKEN_OUT | VISIT_DUE
            self._state[slots] = state & ~np.uint16(OF_MAPPING | (INITIAL_FRAME & ~keep))
            self._pte[slots] = PTE_NONE
        return pte

    def set_swap_entries(self, slots: Slots, entries: I64) -> None:
        """Enter the swap entries, or PTE_HWPOISON, of pages that have been unmapped."""
        if self._changing(slots, none_of=OF_MAPPING):
            self._pte[slots] = entries

    def set_shared(self, slots: Slots) -> None:
        """Mark pages whose frames may have other mappings."""
        if self._changing(slots, all_of=PRESENT, none_of=KSM):
            self._state[slots] |= SHARED

    def set_exclusive(self, slots: Slots) -> None:
        """Mark pages whose frames have no other mapping, and are written in place."""
        if self._changing(slots, all_of=PRESENT, none_of=KSM):
            self._state[slots] &= ~np.uint16(SHARED | INITIAL_FRAME)

    def keep_initial_frames(self, outside: Slots) -> None:
        """Remember which pages share frames now, before ksmd begins.

        The frames of the pages `outside` are mapped outside.
        """
        slots = rows_with(self._state[: self.size], SHARED)
        self.initial_frames = InitialFrames(slots, self._pte[slots], outside)
        if self._changing(slots, all_of=PRESENT, none_of=KSM):
            self._state[slots] |= INITIAL_FRAME

    def add_initial_frames(self, old: Slots, new: Slots, outside: Slots) -> None:
        """Remember that processes that begin share frames: pages `new` map what pages `old` map.

        The frames of the pages `outside` are mapped outside.
        """
        assert self.initial_frames is not None
        self.initial_frames.add(old, new, outside, self._state)
        slots = np.unique(np.concatenate([old, new, outside]))
        if self._changing(slots):
            self._state[slots] |= INITIAL_FRAME

    def copy_entries(self, old: Slots, new: Slots) -> None:
        """Map in a child's empty slots what its parent's slots map (fork)."""
        if self._changing(old) and self._changing(new, none_of=OF_MAPPING | OF_ITEM):
            state = self._state[old]
            self._state[old[(state & (PRESENT | KSM)) == PRESENT]] |= SHARED
            self._pte[new] = self._pte[old]
            self._tree_key[new] = self._tree_key[old]
            self._state[new] = self._state[old] & OF_MAPPING

    def rename_frames(self, old: FrameWords, new: FrameWords) -> tuple[Slots, FrameWords]:
        """Replace old names of migrated frames by new ones.

        Return the slots that map them and their previous entries.
        """
        self._broken_out.rename(old, new)
        slots = rows_with(self._state[: self.size], PRESENT)
        slots = slots[np.isin(self._pte[slots], old)]
        before = self._pte[slots]
        if self._changing(slots, all_of=PRESENT):
            self._pte[slots] = renamed(before, old, new)
        return slots, before

    def split_huge(self, slots: Slots) -> None:
        """Make parts of huge pages small pages with the same frames."""
        if self._changing(slots, all_of=HUGE):
            self._pte[slots] &= ~HUGE_FRAME
            self._state[slots] &= ~np.uint16(HUGE)

    def map_split_zero(self, slots: Slots) -> None:
        """Map the shared zero page where the frame of a huge page held zeros."""
        if self._changing(slots, none_of=OF_MAPPING):
            self._pte[slots] = PTE_ZERO
            self._state[slots] |= np.uint16(SPLIT_ZERO)

    def mark_due(self, slots: Slots) -> None:
        """Mark pages that ksmd's next visit must look at."""
        if self._changing(slots):
            self._state[slots] |= VISIT_DUE

    def free_all_items(self) -> None:
        """Free all rmap_items and checksums."""
        self._broken_out.forget()
        items = rows_with(self._state[: self.size], ITEM)
        if self._changing(items):
            self._state[items] = (self._state[items] & ~np.uint16(OF_ITEM)) | VISIT_DUE
            self.ages.forget(items)

    # ksmd's visit.

    def add_items(self, slots: Slots) -> None:
        """Allocate rmap_items where there are none."""
        if self._changing(slots, all_of=PRESENT):
            self._state[slots] |= ITEM

    def remove_from_trees(self, slots: Slots) -> U16:
        """Remove items from the trees, and return their states after that.

        Items that were broken out must have been taken by `take_broken_out`.
        """
        state = self._state[slots]
        if self._changing(slots, all_of=ITEM, none_of=BROKEN_OUT):
            if self.leaving_forgets:
                self.forget(slots[(state & STABLE) != 0])
                state = self._state[slots]
            state &= ~np.uint16(OF_TREES)
            state |= VISIT_DUE
            self._state[slots] = state
        return state

    def take_broken_out(self, slots: Slots) -> tuple[FrameWords, Digests]:
        """Remove broken-out items from their stable nodes; return the frames and digests of these nodes."""
        self._leave_stable_nodes(slots)
        return self._broken_out.take(slots)

    def free_items(self, slots: Slots) -> None:
        """Free the rmap_items of pages that are gone, or not mergeable any more; some slots have none."""
        if self._changing(slots, none_of=OF_TREES):
            self._state[slots] &= OF_MAPPING | INITIAL_FRAME
            self.ages.forget(slots)

    def visit_ksm(self, slots: Slots) -> None:
        """Record ksmd's visit to pages that map KSM frames: add items, clear VISIT_DUE."""
        if self._changing(slots, all_of=KSM, none_of=UNSTABLE | BROKEN_OUT):
            self._state[slots] = (self._state[slots] | ITEM) & ~np.uint16(VISIT_DUE)

    def visit_private(
        self, slots: Slots, at: Slots | slice, state: U16, digests: Digests, unstable: Slots | slice
    ) -> None:
        """Record ksmd's visit to pages with private frames: their checksums are those of `digests`.

        `at` is the same as `slots`, or quicker. `state` holds the states, which the visit has read already;
        it is overwritten. `unstable` are the rows of pages that are marked as unstable.
        """
        if self._changing(slots, all_of=PRESENT, none_of=OF_TREES):
            assert not self.validating or (state == self._state[slots]).all(), "the states read are old"
            self._tree_key[at] = digests
            state |= ITEM | HAS_CHECKSUM
            state &= ~np.uint16(OTHER_CHECKSUM)
            state[unstable] = _unstable(state[unstable])
            self._state[at] = state

    # The trees' decision.

    def set_unstable(self, slots: Slots) -> None:
        """Mark items as inserted into the unstable tree."""
        if self._changing(slots, all_of=ITEM | PRESENT, none_of=BROKEN_OUT):
            if self.leaving_forgets:
                self.forget(slots[(self._state[slots] & STABLE) != 0])
            self._state[slots] = _unstable(self._state[slots])

    def set_homes(self, slots: Slots, homes: I64) -> None:
        """Keep the nodes whose unstable trees have these pages, or may get them."""
        if self._keeps_homes:
            self._home[slots] = homes

    def set_stable(self, slots: Slots) -> None:
        """Assign items to the stable nodes of the frames that their pages map."""
        if self._changing(slots, all_of=ITEM | KSM, none_of=BROKEN_OUT):
            gone = np.uint16(UNSTABLE | IN_UNSTABLE_TREE | VISIT_DUE)
            self._state[slots] = (self._state[slots] | STABLE) & ~gone

    def make_ksm(self, slots: Slots, frames: FrameWords, digests: Digests, *, orphan: bool) -> None:
        """Map frames under their new words as KSM frames; orphans have no stable node."""
        if self._changing(slots, all_of=PRESENT, none_of=IN_UNSTABLE_TREE):
            self._pte[slots] = frames
            self.rekey(slots, digests)
            self._initial_become_ksm(slots)
            flags = KSM | VISIT_DUE | (ORPHAN if orphan else 0)
            self._state[slots] = (self._state[slots] & ~np.uint16(SHARED | HUGE)) | np.uint16(flags)

    def _initial_become_ksm(self, slots: Slots) -> None:
        if self.initial_frames is not None:
            there = (self._state[slots] & (INITIAL_FRAME | SHARED)) == (INITIAL_FRAME | SHARED)
            self.initial_frames.become_ksm(slots[there])

    def merge(self, slots: Slots, frames: FrameWords) -> None:
        """Map KSM frames, and assign the items to their stable nodes."""
        if self._changing(slots, all_of=PRESENT, none_of=BROKEN_OUT):
            self._pte[slots] = frames
            self._state[slots] = (self._state[slots] & _OF_PAGE) | ITEM | STABLE | KSM | PRESENT

    def map_ksm_zero(self, slots: Slots) -> None:
        """Map the shared zero page in place of frames; the items live until the next pass."""
        if self._changing(slots, all_of=PRESENT, none_of=BROKEN_OUT):
            self._pte[slots] = PTE_ZERO
            self._state[slots] = (self._state[slots] & _OF_PAGE) | ITEM | KSM_ZERO | VISIT_DUE

    def leave_unstable_tree(self, slots: Slots) -> None:
        """Record that the unstable tree has no entries of these pages any more."""
        if self._changing(slots, all_of=IN_UNSTABLE_TREE):
            self._state[slots] &= ~np.uint16(IN_UNSTABLE_TREE)

    def drop_stable_nodes(self, frames: FrameWords) -> None:
        """Remove broken-out items from the stable nodes of these frames, which are gone."""
        self._leave_stable_nodes(self._broken_out.take_frames(frames))

    def _leave_stable_nodes(self, slots: Slots) -> None:
        if self._changing(slots, all_of=BROKEN_OUT):
            self._state[slots] &= ~np.uint16(STABLE | BROKEN_OUT)
            if self.leaving_forgets:
                self.forget(slots)

    # Checksums.

    def checksums(self, slots: Slots) -> U32:
        """Return the checksums of items at ksmd's last visits; without HAS_CHECKSUM they mean nothing."""
        sums = checksum(self._tree_key[slots])
        other = rows_with(self._state[slots], OTHER_CHECKSUM)
        if len(other):
            of_slots, known = self._other_checksums
            sums[other] = known[np.searchsorted(of_slots, slots[other])]
        return sums

    def rekey(self, slots: Slots, digests: Digests) -> None:
        """Change the digests of pages, but not their checksums."""
        other = np.flatnonzero(self._tree_key[slots] != digests)
        slots, digests = slots[other], digests[other]
        if self._changing(slots):
            sums = self.checksums(slots)
            self._tree_key[slots] = digests
            differs = ((self._state[slots] & HAS_CHECKSUM) != 0) & (sums != checksum(digests))
            self.restore_checksums(slots[differs], sums[differs])

    def confirm_checksums(self, slots: Slots) -> None:
        """Set the checksums of items to those of their pages' digests."""
        if self._changing(slots, all_of=ITEM):
            self._state[slots] = (self._state[slots] | HAS_CHECKSUM) & ~np.uint16(OTHER_CHECKSUM)

    def restore_checksums(self, slots: Slots, sums: U32) -> None:
        """Set the checksums of items, which need not be those of their pages' digests."""
        if self._changing(slots, all_of=HAS_CHECKSUM):
            self._state[slots] &= ~np.uint16(OTHER_CHECKSUM)
            old, of_old = self._other_checksums
            kept = rows_with(self._state[old], OTHER_CHECKSUM)
            all_slots, all_sums = np.concatenate([old[kept], slots]), np.concatenate([of_old[kept], sums])
            order = np.argsort(all_slots)
            self._other_checksums = all_slots[order], all_sums[order]
            self._state[slots] |= OTHER_CHECKSUM

    def forget_checksums(self, slots: Slots) -> None:
        """Remove the checksums of items."""
        if self._changing(slots, all_of=ITEM):
            self._state[slots] &= ~np.uint16(_OF_CHECKSUM)

    def forget(self, slots: Slots) -> None:
        """Remove the checksums of items, and make their pages as young as new ones."""
        self.forget_checksums(slots)
        self.ages.forget(slots)

    # Questions.

    def stable_frames(self, slots: Slots) -> FrameWords:
        """Return the frame of the stable node that each item belongs to; -1 for none."""
        state = self._state[slots]
        frames = np.where((state & STABLE) != 0, self._pte[slots], -1)
        broken_out = np.flatnonzero((state & BROKEN_OUT) != 0)
        frames[broken_out] = self._broken_out.frames_of(slots[broken_out])
        return frames

    # Invariants.

    def validate(self) -> None:
        """Raise AssertionError if bits, entries or columns contradict each other."""
        capacity, state = len(self._pte), self._state[: self.size]
        assert self.size <= capacity == len(self._state) == len(self._tree_key), "columns differ in length"
        assert len(self._home) == (capacity if self._keeps_homes else 0), "column `home` has another length"
        assert len(self.ages) in (0, capacity), "ages have another length"
        assert not self._state[self.size :].any(), "slots behind the last are in use"
        check_states(state, self._pte[: self.size])
        broken_out = rows_with(state, BROKEN_OUT)
        assert np.array_equal(self._broken_out.slots(), broken_out), "broken-out items differ from the bits"
        known, of_known = self._other_checksums
        assert len(known) == len(of_known) and (known[1:] > known[:-1]).all(), "checksums are not in order"
        assert np.isin(rows_with(state, OTHER_CHECKSUM), known).all(), "an item has no checksum"
        initial = self.initial_frames.slots if self.initial_frames else empty()
        assert np.isin(rows_with(state, INITIAL_FRAME), initial).all(), "a page is of no initial frame"
        for start, pages in self._holes:
            hole = slice(start, start + pages)
            assert not state[hole].any() and (self._pte[hole] == PTE_NONE).all(), "a free slot is in use"

    def _changing(self, slots: Slots, *, all_of: int = 0, none_of: int = 0) -> bool:
        """Count a change, and return whether there is any.

        When validating, raises AssertionError unless the states before have all and none of some bits.
        """
        if len(slots) == 0:
            return False
        self.version += 1
        if self.validating:
            self._check(slots, all_of, none_of)
        return True

    def _check(self, slots: Slots, all_of: int, none_of: int) -> None:
        assert len(np.unique(slots)) == len(slots), "slots are not distinct"
        assert 0 <= slots.min(initial=0) <= slots.max(initial=0) < max(self.size, 1), (
            "slots are not allocated"
        )
        state = self._state[slots]
        wrong = np.flatnonzero((state & (all_of | none_of)) != all_of)[:5]
        assert len(wrong) == 0, (
            f"illegal transition, which needs {names_of(all_of)} and not {names_of(none_of)}: "
            + ", ".join(f"slot {slots[i]}: {names_of(int(state[i]))}" for i in wrong)
        )


def _unstable(state: U16) -> U16:
    """Return the states of pages that enter the unstable tree. uint16[n] -> uint16[n].

    A visit is due only to pages that map KSM frames: it returns them to their stable nodes.
    """
    state = (state | np.uint16(UNSTABLE | IN_UNSTABLE_TREE)) & ~np.uint16(STABLE | VISIT_DUE)
    state[rows_with(state, KSM)] |= VISIT_DUE
    return state


def _read_only(column: Array) -> Array:
    view = column.view()
    view.flags.writeable = False
    return view


def _grown(column: Array, capacity: int) -> Array:
    new = np.zeros(capacity, column.dtype)
    new[: len(column)] = column[:capacity]
    return new
