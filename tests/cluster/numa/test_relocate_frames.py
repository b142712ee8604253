"""Frames of processes move between nodes: off some, evenly, or nearer; nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.arrays.words import is_ksm_word, node_of_frame
from cluster.compaction.internode.drain import Stayed
from cluster.compaction.scenario.relocation_result import node_seconds
from cluster.numa.relocate_frames import granted
from cluster.spec.compaction import CompactionSpec, DriverSpec, MigrationCostSpec, RelocationSpec
from cluster.spec.scenario import KsmSpec, PolicyMode, PolicySpec
from cluster.spec.topology import ring
from tests.cluster.machine.random_workload import FIRST, KNOBS, NODES, REGION, STEPS, Workload

#: Nodes of 1024 frames; no compactors, no drivers.
MEMORY = CompactionSpec(NODES, 1024, (), trigger="none")
NEARER = RelocationSpec("nearer")
#: 10 to itself, 16 to any other.
RING = ring(NODES)


def small(**knobs: int) -> Workload:
    """A machine with 48 pages of a process on node 0."""
    return Workload(KsmSpec(**knobs), migration=MEMORY)  # type: ignore[arg-type]


def process(made: Workload, node: int, pages: int, on: int, first: int = 1000, *, same: bool = False) -> int:
    """A process of `node` whose pages are on another one; if `same`, with the contents of other such ones."""
    mm = made.machine.new_process(node)
    made.machine.map(mm, FIRST, pages, PolicySpec(PolicyMode.BIND, (on,)))
    vpns = np.arange(FIRST, FIRST + pages)
    ids = vpns + (0 if same else first * (mm + 1))
    made.machine.write(mm, vpns, ids.astype(np.uint64))
    made.machine.madvise(mm, FIRST, pages, mergeable=same)
    made.pages[mm] = dict(zip(vpns.tolist(), ids.tolist(), strict=True))
    return mm


def relocated(made: Workload, spec: RelocationSpec) -> list[list[int]]:
    """Moves frames, and sees that nothing changes but where they are."""
    before = partition(made)
    moved = made.machine.relocate(spec, RING).pages
    assert partition(made) == before
    made.check()
    found: list[list[int]] = moved.tolist()
    return found


def partition(made: Workload) -> Any:
    """Which pages share a frame, which are KSM pages; and what ksmd knows of them, if one tree has all."""
    dumps = made.machine.dump()
    keys, ptes, state = (
        np.concatenate([getattr(dump, name) for dump in dumps]) for name in ("keys", "pte", "state")
    )
    order = np.argsort(keys)
    ptes = ptes[order]
    _, first, which = np.unique(ptes, return_index=True, return_inverse=True)
    ksm = is_ksm_word(np.maximum(ptes, 0))
    columns = [keys[order], first[which], ksm, np.minimum(ptes, 0)]
    if not made.knobs.merge_across_nodes:
        return [column.tolist() for column in columns]
    return [column.tolist() for column in (*columns, state[order])], [dump.processes for dump in dumps]


def node_of(made: Workload, mm: int, page: int = 0) -> int:
    state = made.fabric.host.nodes[mm >> 15].state
    slot = state.spaces.slots(state.spaces.mms[mm], np.array([FIRST + page]))
    return int(node_of_frame(state.table.pte[slot])[0])


def distance(made: Workload) -> int:
    return int(made.machine.collect()["ksm_mappings_distance"].sum())


def test_private_pages_go_to_their_process() -> None:
    made = small()
    away, home = process(made, 2, 5, on=0), process(made, 0, 5, on=0)
    assert relocated(made, NEARER) == [[0, 0, 5], [0, 0, 0], [0, 0, 0]]
    assert (node_of(made, away), node_of(made, home)) == (2, 0)
    assert relocated(made, NEARER) == [[0] * 3] * 3


def test_a_ksm_page_goes_where_most_map_it() -> None:
    """Mapped twice by node 1 and once by node 2: 3 * 16 where it is, 10 + 10 + 16 on node 1: 12 less."""
    made = small()
    mms = [process(made, node, 1, on=0, same=True) for node in (1, 1, 2)]
    for _ in range(3):
        made.machine.scan()
    before = distance(made)
    assert {node_of(made, mm) for mm in mms} == {0}
    assert relocated(made, RelocationSpec("nearer", min_gain=13)) == [[0] * 3] * 3
    assert relocated(made, RelocationSpec("nearer", nodes=(1, 2))) == [[0] * 3] * 3
    assert relocated(made, RelocationSpec("nearer", min_gain=12)) == [[0, 1, 0], [0] * 3, [0] * 3]
    assert {node_of(made, mm) for mm in mms} == {1}
    assert distance(made) == before - 12
    remote = made.machine.collect()["ksm_mappings_remote"]
    assert remote[1:].tolist() == [0, 1]
    made.machine.scan()
    made.check()


def test_all_mappings_of_a_ksm_frame_are_walked_when_it_moves() -> None:
    """A KSM frame with three mappings, and four private frames, go from node 0 to node 1."""
    made = small()
    for node in (1, 1, 2):
        process(made, node, 1, on=0, same=True)
    process(made, 1, 4, on=0)
    for _ in range(3):
        made.machine.scan()
    moved = made.machine.relocate(NEARER, RING)
    assert moved.pages.tolist() == [[0, 5, 0], [0] * 3, [0] * 3]
    assert moved.mappings.tolist() == [[0, 3, 0], [0] * 3, [0] * 3]
    assert moved.walks == (1, 3, 3)
    cost = MigrationCostSpec(attempt=0, copy=0, mapping=500)
    seconds = node_seconds(cost, RING, moved.pages, moved.pages, moved.mappings)
    assert seconds.tolist() == pytest.approx([1.5e-6, 1.5e-6, 0])
    assert made.machine.relocate(NEARER, RING).walks == (0, 0, 0)


def test_with_a_tree_for_each_node_ksm_pages_stay() -> None:
    made = small(merge_across_nodes=0)
    mms = [process(made, 1, 1, on=0, same=True) for _ in range(2)]
    private = process(made, 1, 4, on=0)
    for _ in range(3):
        made.machine.scan()
    assert relocated(made, NEARER)[0] == [0, 4, 0]
    assert {node_of(made, mm) for mm in mms} == {0}
    assert node_of(made, private) == 1
    made.machine.scan()
    made.check()


@pytest.mark.parametrize("merge_across_nodes", [0, 1])
def test_a_drain_moves_ksm_pages_whatever_the_trees(merge_across_nodes: int) -> None:
    """Two pages on node 1, two with the same content on node 2. Offlining asks no knob.

    With a tree for each node, ksmd's next visit moves the stable node to the tree of node 2. There it is a
    second frame with the same content, because several pages map it (chain_append in stable_tree_search()).
    """
    made = small(merge_across_nodes=merge_across_nodes)
    mms = [process(made, 2, 1, on=on, same=True) for on in (1, 1, 2, 2)]
    for _ in range(3):
        made.machine.scan()
    shared = made.machine.collect()["pages_shared"].sum()
    drain = RelocationSpec("drain", (1,))
    on_1 = int(made.machine.collect()["frames_used"][1])
    assert on_1 == 1
    assert relocated(made, drain)[1] == [0, 0, on_1]
    assert made.machine.drained(drain)[1].stayed == ()
    assert made.machine.collect()["frames_used"][1] == 0
    assert {node_of(made, mm) for mm in mms} == {2}
    for _ in range(2):
        made.machine.scan()
        made.check()
    after = made.machine.collect()
    assert after["pages_shared"].sum() == shared
    assert after["stable_node_dups"].sum() == (0 if merge_across_nodes else 2)
    assert not any(node.state.migrated_stable_nodes for node in made.fabric.host.nodes.values())


def test_what_a_drain_leaves_and_why() -> None:
    """A limit, no room, and a mapping that reverse mapping does not find."""
    made = small()
    process(made, 1, 20, on=1)
    limited = RelocationSpec("drain", (1,), most_pages=15)
    relocated(made, limited)
    assert made.machine.drained(limited)[1].stayed == (Stayed("anon", 5, "most_pages have moved"),)

    made = small()
    process(made, 2, 1020, on=2)
    process(made, 1, 1000, on=1)
    # 1024 - 48 free frames on node 0, 4 on node 2
    drain = RelocationSpec("drain", (1,))
    relocated(made, drain)
    assert made.machine.drained(drain)[1].stayed == (Stayed("anon", 1000 - 980, "no room elsewhere"),)


def test_a_drain_leaves_a_page_with_a_mapping_that_is_not_found() -> None:
    """A child has inherited it; ksmd has seen that the parent gave it up, but has not visited the child."""
    made = small(smart_scan=0)
    parent, other = (process(made, 1, 1, on=1, same=True) for _ in range(2))
    for _ in range(3):
        made.machine.scan()
    child = made.machine.fork(parent)
    made.machine.write(parent, np.array([FIRST]), np.array([7], np.uint64))
    made.pages[child] = dict(made.pages[parent])
    made.pages[parent] = {FIRST: 7}
    made.machine.scan(2 * REGION + 1)
    drain = RelocationSpec("drain", (1,))
    relocated(made, drain)
    assert {node_of(made, mm) for mm in (other, child)} == {1}
    assert made.machine.drained(drain)[1].stayed == (Stayed("ksm", 1, "a mapping is not found"),)
    made.machine.scan()
    relocated(made, drain)
    assert made.machine.drained(drain)[1].stayed == ()


def test_drivers_and_the_kernel_keep_their_pages() -> None:
    """50 pages of a driver whose pages move within the node, 20 of one without, 10 of the kernel."""
    drivers = (DriverSpec("gpu", "gpu", 0.05, 0.0), DriverSpec("nic", "pinned", 0.02, 0.0))
    made = Workload(KsmSpec(), migration=replace(MEMORY, drivers=drivers, unmovable=0.01))
    process(made, 1, 5, on=1)
    drain = RelocationSpec("drain", (1,))
    assert relocated(made, drain)[1] == [0, 0, 5]
    assert set(made.machine.drained(drain)[1].stayed) == {
        Stayed("gpu", 51, "drivers' pages keep their node"),
        Stayed("nic", 20, "cannot move"),
        Stayed("unmovable", 10, "cannot move"),
    }


def test_no_more_than_there_is_room_for() -> None:
    """Node 2 has 1024 frames, 1020 of them in use. What is mapped most there comes first."""
    made = small()
    process(made, 2, 1020, on=2)
    shared = [process(made, 2, 2, on=0, same=True) for _ in range(2)]
    for _ in range(3):
        made.machine.scan()
    process(made, 2, 9, on=0)
    assert relocated(made, NEARER)[0] == [0, 0, 4]
    assert {node_of(made, mm, page) for mm in shared for page in range(2)} == {2}
    assert relocated(made, RelocationSpec("nearer", most_pages=3)) == [[0] * 3] * 3


def test_most_pages() -> None:
    made = small()
    process(made, 2, 9, on=0)
    assert relocated(made, RelocationSpec("nearer", most_pages=7))[0] == [0, 0, 7]


def test_draining_and_evening_out() -> None:
    """All on node 0: 48 pages that come from the workload, and 60 more."""
    made = small()
    process(made, 0, 60, on=0)
    assert relocated(made, RelocationSpec("even-out")) == [[0, 36, 36], [0] * 3, [0] * 3]
    moved = relocated(made, RelocationSpec("drain", (1, 2)))
    assert moved == [[0] * 3, [36, 0, 0], [36, 0, 0]]
    assert made.machine.collect()["frames_used"].tolist() == [108, 0, 0]


def test_pinned_frames_stay() -> None:
    made = small()
    mm = process(made, 0, 60, on=1)
    made.machine.pin(mm, FIRST + 20, 10)
    moved = relocated(made, RelocationSpec("drain", (1,)))
    assert (moved[1], made.machine.collect()["frames_used"][1]) == ([0, 0, 50], 10)
    assert made.machine.move(mm, FIRST, 60, 0) == 50
    assert relocated(made, NEARER)[1] == [0] * 3


def test_granted() -> None:
    wishes = np.array([[0, 5, 2], [3, 0, 4], [1, 6, 0]])
    free = np.array([9, 8, 5])
    assert granted(wishes, free, None).tolist() == [[0, 5, 2], [3, 0, 3], [1, 3, 0]]
    assert granted(wishes, free, 9).tolist() == [[0, 5, 2], [2, 0, 0], [0, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(
    steps=STEPS,
    knobs=KNOBS,
    kinds=st.lists(
        st.tuples(st.sampled_from(["nearer", "drain", "even-out"]), st.integers(0, 2)), min_size=1, max_size=5
    ),
    content=st.sampled_from(["symbolic", "bytes"]),
)
def test_only_places_change(
    steps: list[Any], knobs: KsmSpec, kinds: list[tuple[str, int]], content: str
) -> None:
    made = Workload(knobs, content, MEMORY)
    often = max(len(steps) // len(kinds), 1)
    for number, step in enumerate(steps):
        made.run(step)
        if number % often == 0 and number // often < len(kinds):
            kind, node = kinds[number // often]
            nodes = () if kind == "even-out" else (node,)
            relocated(made, RelocationSpec(kind, nodes))
    before, far = distance(made), all_distances(made)
    relocated(made, NEARER)
    assert all_distances(made) <= far
    if knobs.merge_across_nodes:
        assert distance(made) <= before
    for _ in range(2):
        made.machine.scan()
        made.check()
    if content == "bytes":
        made.check_bytes()


def all_distances(made: Workload) -> int:
    """Of all mappings to their frames."""
    total = 0
    for node, dump in enumerate(made.machine.dump()):
        mapped = dump.pte[dump.pte >= 0]
        total += int(RING[node, node_of_frame(mapped)].sum())
    return total


def test_ksmd_goes_on_as_if_nothing_had_moved() -> None:
    counts = []
    for moving in (False, True):
        made = small()
        for node in (0, 1, 2):
            process(made, node, REGION, on=1, same=True)
        for _ in range(4):
            made.machine.scan()
            if moving:
                relocated(made, NEARER)
        columns = made.machine.collect()
        counts.append([int(columns[name].sum()) for name in ("pages_shared", "pages_sharing", "rmap_items")])
    assert counts[0] == counts[1]
    assert counts[0][1] >= 2 * REGION
