"""Random scenarios on every kernel: nothing is merged wrongly, and every count agrees with what it counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.exact import ExactEngine
from cluster.exact.objects import (
    Chain,
    ExactRegion,
    Frame,
    HugePage,
    MmSlot,
    Place,
    RmapItem,
    StableNode,
    SwapEntry,
    ZeroPte,
)
from cluster.script.engine import HUGE_PAGES
from cluster.spec.profile import PROFILES

PAGES = 6
KNOBS = {
    "max_page_sharing": ["2", "3", "256"],
    "merge_across_nodes": ["0", "1"],
    "use_zero_pages": ["0", "1"],
    "smart_scan": ["0", "1"],
    "stable_node_chains_prune_millisecs": ["0", "2000"],
}


@dataclass
class Model:
    """A machine, and what its pages should hold; None stands for a page that is not mapped."""

    machine: ExactEngine
    held: dict[tuple[str, str], list[int | None]] = field(default_factory=dict)
    forks: int = 0
    #: Zero pages of KSM that forks have copied and the machine's counter leaves out.
    zeros_missed: int = 0

    def names(self) -> list[str]:
        return sorted({p for p, _ in self.held})

    def fork(self, p: str) -> None:
        self.forks += 1
        q = f"F{self.forks}"
        self.machine.fork(p, q)
        if self.machine._profile.fork_misses_zero_pages:
            self.zeros_missed += sum(
                pte is ZeroPte.KSM for region in regions(self) if region.mm.name == q for pte in region.pte
            )
        for (owner, r), held in list(self.held.items()):
            if owner == p:
                self.held[q, r] = list(held)

    def exit(self, p: str) -> None:
        self.machine.exit(p)
        self.held = {key: held for key, held in self.held.items() if key[0] != p}


def new_model(kernel: str, nodes: int, draw, *, pages: int = PAGES, huge: bool = False) -> Model:
    model = Model(ExactEngine(PROFILES[kernel], nodes, swap=True))
    for knob, values in KNOBS.items():
        model.machine.set_knob(knob, draw(st.sampled_from(values)))
    for p in ("A", "B"):
        model.machine.proc(p)
        for k, r in enumerate(("x", "y")):
            model.machine.map(p, r, pages, k % nodes)
            if huge:
                model.machine.huge(p, r, 0, pages)
            model.machine.mergeable(p, r, 0, pages)
            fives = np.full(pages, 5, dtype=np.uint64)
            model.machine.fill(p, r, np.arange(pages), fives)
            model.held[p, r] = [5] * pages
    return model


ACTIONS = ["fill"] * 4 + ["batch"] * 4 + ["scan"] * 3
ACTIONS += ["move"] * 4 + ["dontneed", "read", "unmap", "pageout", "fork", "exit"]
ACTIONS += ["mergeable", "unmergeable", "unmerge_all", "knob"]
HUGE_ACTIONS = [*ACTIONS, "huge", "collapse", "collapse", "pin"]


def step(model: Model, draw, actions: list[str] = ACTIONS) -> None:
    action = draw(st.sampled_from(actions))
    if action == "batch":
        model.machine.batch(draw(st.integers(0, 12)))
    elif action == "scan":
        model.machine.scan()
    elif action == "unmerge_all":
        model.machine.unmerge_all()
    elif action == "knob":
        knob = draw(st.sampled_from(sorted(KNOBS)))
        model.machine.set_knob(knob, draw(st.sampled_from(KNOBS[knob])))
    elif action in ("fork", "exit"):
        if model.names():
            getattr(model, action)(draw(st.sampled_from(model.names())))
    elif model.names():
        touch(model, action, draw)


def touch(model: Model, action: str, draw) -> None:
    p, r = draw(st.sampled_from(sorted(model.held)))
    held = model.held[p, r]
    pages = len(held)
    start = draw(st.integers(0, pages - 1) | st.sampled_from(range(0, pages, HUGE_PAGES)))
    count = draw(st.integers(1, pages - start) | st.just(min(HUGE_PAGES, pages - start)))
    mapped = [i for i in range(start, start + count) if held[i] is not None]
    if action == "fill":
        pattern = draw(st.lists(st.sampled_from([0, 5, 6]), min_size=1, max_size=PAGES))
        contents = [pattern[i % len(pattern)] for i in range(len(mapped))]
        model.machine.fill(p, r, np.array(mapped, dtype=np.int64), np.array(contents, dtype=np.uint64))
        for i, content in zip(mapped, contents, strict=True):
            held[i] = content
    elif action in ("read", "pin"):
        for i in mapped:
            getattr(model.machine, action)(p, r, i, 1)
    elif action == "move":
        model.machine.move(p, r, start, count, draw(st.integers(0, 2)))
    else:
        getattr(model.machine, action)(p, r, start, count)
        if action in ("dontneed", "unmap"):
            for i in mapped:
                held[i] = 0 if action == "dontneed" else None


def regions(model: Model) -> Iterator[ExactRegion]:
    for mm in model.machine._mms.values():
        yield from mm.regions


def check_contents(model: Model) -> None:
    for region in regions(model):
        for i, pte in enumerate(region.pte):
            want = model.held[region.mm.name, region.name][i]
            if isinstance(pte, Frame | SwapEntry):
                assert pte.content == want
            elif pte is None:
                assert want in (0, None)
            else:
                assert want == 0


def check_mappings(model: Model) -> None:
    mapped: dict[Frame, set[tuple[ExactRegion, int]]] = {}
    zeros = 0
    for region in regions(model):
        for i, pte in enumerate(region.pte):
            if isinstance(pte, Frame):
                mapped.setdefault(pte, set()).add((region, i))
            zeros += pte is ZeroPte.KSM
    for frame, ptes in mapped.items():
        assert frame.ptes == ptes
    assert model.machine._counters.ksm_zero_pages == zeros - model.zeros_missed


def check_huge_pages(model: Model) -> None:
    pmds: set[tuple[ExactRegion, int]] = set()
    seen: set[HugePage] = set()
    for region in regions(model):
        for block, huge in region.pmd.items():
            pages = slice(block * HUGE_PAGES, (block + 1) * HUGE_PAGES)
            assert region.pte[pages] == huge.frames
            assert (region, block) in huge.pmds
            pmds.add((region, block))
        for block in region.huge_zero:
            assert set(region.pte[block * HUGE_PAGES : (block + 1) * HUGE_PAGES]) == {ZeroPte.READ}
        for i, pte in enumerate(region.pte):
            if isinstance(pte, Frame) and pte.huge is not None:
                assert pte.huge.frames[i % HUGE_PAGES] is pte
                assert not pte.ksm
                seen.add(pte.huge)
    assert pmds == {mapping for huge in seen for mapping in huge.pmds}
    for huge in seen:
        for frame, exclusive in zip(huge.frames, huge.exclusive, strict=True):
            assert frame.huge is huge
            assert frame.node == huge.frames[0].node
            assert not exclusive or len(frame.ptes) < 2


def check_counts(model: Model) -> None:
    ksmd, count = model.machine._ksmd, model.machine._counters
    items = [item for slot in ksmd._slots for item in items_of(slot)]
    assert count.rmap_items == len(items)
    assert count.pages_unshared == sum(item.seqnr is not None for item in items)
    heads = {item.head for item in items if item.head is not None}
    for node in heads:
        assert set(node.items) == {item for item in items if item.head is node}
    assert count.pages_shared == len(heads)
    assert count.pages_shared + count.pages_sharing == sum(item.head is not None for item in items)
    check_trees(model)


def check_trees(model: Model) -> None:
    stable, count = model.machine._ksmd.stable, model.machine._counters
    chains, dups = 0, 0
    for tree in stable._trees:
        keys = []
        for entry in in_order(tree.root):
            nodes = entry.dups if isinstance(entry, Chain) else [entry]
            place = Place.DUP if isinstance(entry, Chain) else Place.TREE
            assert all(node.place is place for node in nodes)
            keys += sorted({node.frame.key for node in nodes})
            chains += isinstance(entry, Chain)
            dups += len(entry.dups) if isinstance(entry, Chain) else 0
        assert keys == sorted(set(keys))
    assert (count.stable_node_chains, count.stable_node_dups) == (chains, dups)
    assert all(node.place is Place.MIGRATE for node in stable._migrate_nodes)


def items_of(slot: MmSlot) -> Iterator[RmapItem]:
    item = slot.next
    while item is not None:
        yield item
        assert item.next is None or item.address < item.next.address
        item = item.next


def in_order(node: StableNode | Chain | None) -> Iterator[StableNode | Chain]:
    if node is not None:
        yield from in_order(node.child[0])
        yield node
        yield from in_order(node.child[1])


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(PROFILES)), st.integers(1, 3))
def test_random_scenarios(data: st.DataObject, kernel: str, nodes: int) -> None:
    model = new_model(kernel, nodes, data.draw)
    for _ in range(data.draw(st.integers(10, 40))):
        step(model, data.draw)
        check_contents(model)
        check_mappings(model)
        check_counts(model)


@settings(max_examples=20)
@given(st.data(), st.sampled_from(sorted(PROFILES)), st.integers(1, 3))
def test_random_scenarios_with_huge_pages(data: st.DataObject, kernel: str, nodes: int) -> None:
    model = new_model(kernel, nodes, data.draw, pages=HUGE_PAGES * 2, huge=True)
    for _ in range(data.draw(st.integers(5, 15))):
        step(model, data.draw, HUGE_ACTIONS)
        check_contents(model)
        check_mappings(model)
        check_huge_pages(model)
        check_counts(model)
