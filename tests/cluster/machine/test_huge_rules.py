"""Small cases with huge pages on both engines, worked out by hand from the kernel's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from cluster.machine.fabric import InlineFabric
from cluster.machine.replay.script_engine import ScriptEngine, spec_for
from cluster.script.engine import Engine
from cluster.script.runner import ScriptTopology
from cluster.spec.profile import PROFILES
from tests.cluster.machine.engines import exact, play, vector

Json = dict[str, Any]
#: Plays a script and returns its document.
Play = Callable[..., Json]


@pytest.fixture(params=[exact, vector, partial(vector, tree_shape=False)], ids=["exact", "shape", "vector"])
def played(request: pytest.FixtureRequest) -> Play:
    make: Callable[[str, ScriptTopology], Engine] = request.param

    def run(text: str, topology: ScriptTopology, kernel: str = "6.18") -> Json:
        return play(text, make(kernel, topology), topology)

    return run


def counts(document: Json) -> tuple[int, ...]:
    """Return counters at the end: shared, sharing, unshared, volatile, cow_ksm."""
    last = document["records"][-1]
    names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "cow_ksm")
    return tuple((last["sysfs"] | last["vmstat"])[name] for name in names)


def test_pages_moved_of_a_partly_unmapped_huge_page(played: Play) -> None:
    """To move its first page splits it: that page has moved, but the 11 other pages of zeros are gone."""
    document = played(
        "proc A\nhugemap A x 512 node 0\nfill A x 12 500 seq 1\ndontneed A x 511 1\nmove A x 0 512 1",
        ScriptTopology(2),
    )
    assert [event["ret"] for event in document["events"] if event["what"] == "move"] == [1 + 499]


def test_page_out_splits_a_huge_page_once(played: Play) -> None:
    """One call pages out what is on both sides of a hole."""
    document = played(
        "proc A\nhugemap A x 512\nfill A x 0 512 seq 1\ndontneed A x 1 1\npageout A x 0 3\nrecord end",
        ScriptTopology(1, swap=True),
    )
    assert document["records"][-1]["vmstat"]["thp_split_page"] == 1


def test_fork_of_a_huge_page_that_was_advised_twice(played: Play) -> None:
    """It stays one VMA, with one PMD, though an exited process leaves room for the page advised again."""
    document = played(
        "proc A\nmap A x 2\nproc B\nhugemap B x 512\nmergeable B x\nmergeable B x 0 1\n"
        "exit A\nfork B C\nrecord end",
        ScriptTopology(1),
    )
    record = document["records"][-1]
    assert {region["p"]: region["thp"] for region in record["regions"]} == {"B": "2*512", "C": "2*512"}
    assert record["vmstat"]["thp_split_pmd"] == 0


def test_a_process_begins_where_another_kept_a_page_table(played: Play) -> None:
    """A write after a fork gave A a page table; B has none at the same place, and gets a huge page."""
    document = played(
        "proc A\nhugemap A x 512\nfork A C\nfill A x 0 1 const 1\nexit A\n"
        "proc B\nhugemap B x 512\nrecord end",
        ScriptTopology(1),
        "6.12",
    )
    assert document["records"][-1]["vmstat"]["thp_fault_alloc"] == 2


def test_a_page_waits_whose_frame_became_a_ksm_frame_without_a_node(played: Play) -> None:
    """On 6.18.15 the first try to split a huge page of two processes fails.

    A y 0 meets A x 0, and is copied again: B y 0 is left with a KSM frame that has no stable node. A y 1 and
    A x 0 merge, then B x 0 and A y 2, and both stable nodes are full. So B y 0 waits, and B y 2 meets it: a
    KSM page cannot be replaced, and B y 2 is copied again. B y 1 has the frame of A y 1 since the fork.
    """
    document = played(
        "set max_page_sharing 2\nproc A\nhugemap A x 512\nfill A x 0 1 const 1\nfill A x 1 511 seq 100\n"
        "map A y 3\nfill A y 0 3 const 1\nmergeable A x\nmergeable A y\nfork A B\nscan 2",
        ScriptTopology(1),
        "6.18.15",
    )
    # Volatile: 511 pages of B x, whose frames wait for A, and the two that were copied.
    assert counts(document) == (2, 3, 511 + 1, 511 + 2, 2)


def test_a_waiting_page_is_taken_away_that_holds_zeros_by_then(played: Play) -> None:
    """Its huge page is split for two other pages, and a page of its old content meets the hole."""
    document = played(
        "proc A\nhugemap A x 512\nfill A x 0 1 const 1\nfill A x 1 2 const 2\n"
        "map A y 1\nfill A y 0 1 const 1\nmergeable A x\nmergeable A y\nscan 1\n"
        "batch 1\nfill A x 0 1 zero\nscan 1",
        ScriptTopology(1),
    )
    # A x 0 counts as unshared until its next visit. A x 2 was split without a merge, A y 0 found nothing.
    assert counts(document) == (0, 0, 2, 2, 0)


def test_a_huge_page_comes_back_under_an_item_of_the_unstable_tree(played: Play) -> None:
    """The second page of zeros meets the first one, which is in the new huge page now, and splits that."""
    document = played(
        "proc A\nhugemap A x 512\nfill A x 0 512 zero\nmergeable A x\nscan 1\nbatch 1\n"
        "dontneed A x 0 512\nfill A x 0 512 zero\nbatch 1\nrecord end",
        ScriptTopology(1),
    )
    assert document["records"][-1]["vmstat"]["thp_split_page"] == 1


def test_a_huge_page_queued_by_a_collapse_is_not_queued_again(played: Play) -> None:
    """The collapse in A takes the last mapping of page 0, then B unmaps page 1; B still maps the others."""
    document = played(
        "proc A\nhugemap A x 512\nfill A x 0 512 seq 1\nfork A B\nfill B x 0 1 const 3\n"
        "fill A x 511 1 const 3\ncollapse A x 0 512\ndontneed B x 1 1\nrecord end",
        ScriptTopology(1),
    )
    vmstat = document["records"][-1]["vmstat"]
    assert (vmstat["thp_collapse_alloc"], vmstat["thp_deferred_split_page"]) == (1, 1)


def test_a_huge_page_in_frames_of_a_queued_one_is_queued_itself() -> None:
    """The machine has frames for two huge pages; the third process gets those of an exited one."""
    profile = PROFILES["6.18"]
    spec = spec_for(profile, 1)
    spec = replace(spec, machine=replace(spec.machine, frames_per_node=1024))
    engine = ScriptEngine(profile, 1, swap=False, fabric=InlineFabric(spec, {}))
    lives = (f"proc {p}\nhugemap {p} x 512\ndontneed {p} x 0 1\nexit {p}\n" for p in "ABC")
    vmstat = play("".join(lives) + "record end", engine, ScriptTopology(1))["records"][-1]["vmstat"]
    assert (vmstat["thp_fault_alloc"], vmstat["thp_deferred_split_page"]) == (3, 3)


def test_the_last_page_written_of_a_huge_page_is_not_copied(played: Play) -> None:
    """Before 6.16, pages mapped one by one are copied while the huge page has other mappings."""
    text = (
        "proc A\nhugemap A x 512\nfill A x 0 512 seq 1\nfork A B\nexit A\n"
        "mergeable B x\nunmergeable B x 0 1\nfill B x 0 512 seq 1\nrecord end"
    )
    for kernel, thp, deferred in (("6.12", "0*511 1", 1), ("6.18", "1*512", 0)):
        (record,) = played(text, ScriptTopology(1), kernel)["records"]
        assert record["regions"][0]["thp"] == thp
        assert record["vmstat"]["thp_deferred_split_page"] == deferred
