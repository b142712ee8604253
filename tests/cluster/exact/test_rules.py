"""Small cases worked out by hand from the kernel's rules, beyond those recorded."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from cluster.exact import ExactEngine
from cluster.script.engine import BadAddressError
from cluster.script.parser import ScriptError
from cluster.script.record import unrle
from cluster.spec.profile import PROFILES, RULES, Profile, note_of_release, profile_of_release

from .oracle import counts, play


def part(record: dict, p: str, r: str) -> list[int]:
    return unrle(_region(record, p, r)["part"])


def kind(record: dict, p: str, r: str) -> list[int]:
    return unrle(_region(record, p, r)["kind"])


def _region(record: dict, p: str, r: str) -> dict:
    return next(region for region in record["regions"] if (region["p"], region["r"]) == (p, r))


# Which kernel


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("4.8.0", "4.8"),
        ("5.10.1", "4.8"),
        ("6.1.0-50-cloud-amd64", "6.1"),
        ("6.12", "6.12"),
        ("6.13.2", "6.12"),
        ("6.16.12", "6.16"),
        ("6.17.1", "6.17"),
        ("6.18", "6.18"),
        ("6.18.0", "6.18.15"),
        ("6.18.15+deb13-cloud-amd64", "6.18.15"),
        ("6.18.44-fc-v657", "6.18"),
        ("7.0", "6.18"),
        ("7.2", "7.2"),
        ("7.3.4+deb13-cloud-amd64", "7.3"),
        ("7.10.1", "7.3"),
    ],
)
def test_profile_of_release(release: str, name: str) -> None:
    assert profile_of_release(release).name == name


@pytest.mark.parametrize(
    ("release", "note"),
    [
        *((known, None) for known in ("4.8", "6.1.192", "6.18.99", "7.3.4")),
        ("6.14.2", "kernel 6.14.2 is not known; it is taken as 6.12, the last known one before it"),
        ("8.0", "kernel 8.0 is not known; it is taken as 7.3, the newest known one"),
    ],
)
def test_a_kernel_that_is_not_known_is_said(release: str, note: str | None) -> None:
    assert note_of_release(release) == note


def test_every_rule_is_in_the_profiles() -> None:
    """Each begins with a known kernel, ends with a later one, and is a switch that some profiles have."""
    switches = {field.name for field in fields(Profile) if field.type == "bool"}
    assert {rule.name for rule in RULES} == switches
    order = list(PROFILES)
    for rule in RULES:
        held = [name for name, profile in PROFILES.items() if getattr(profile, rule.name)]
        assert rule.begins in held
        if rule.ends is not None:
            assert order.index(rule.begins) < order.index(rule.ends)
            assert rule.ends not in held


@pytest.mark.parametrize("release", ["", "banana", "3.10.0"])
def test_unknown_release(release: str) -> None:
    with pytest.raises(ValueError, match=r"release|older"):
        profile_of_release(release)


@pytest.mark.parametrize(
    ("kernel", "sharing_after_one_pass"), [("4.8", 2), ("6.1", 2), ("6.12", 1), ("6.18", 1)]
)
def test_joining_a_stable_page(kernel: str, sharing_after_one_pass: int) -> None:
    """Old kernels search the stable tree before the checksum, so a new page joins at its first visit."""
    seen = play(
        "proc A\nmap A x 3\nfill A x 0 2 const 5\nmergeable A x\nscan 2\nfill A x 2 1 const 5\nscan\nscan",
        kernel,
    )
    assert seen["scan@7"]["sysfs"]["pages_sharing"] == sharing_after_one_pass
    assert seen["scan@8"]["sysfs"]["pages_sharing"] == 2


def test_4_8_has_no_limit_and_no_new_files() -> None:
    text = "set max_page_sharing 2\nproc A\nmap A x 300\nfill A x 0 300 const 5\nmergeable A x\nscan 2"
    seen = play(text, "4.8")
    assert seen["events"] == [{"line": 1, "what": "unsupported", "ret": -1, "err": "ENOENT"}]
    last = seen["scan@6.2"]
    assert last["sysfs"] == {
        "full_scans": 2,
        "pages_shared": 1,
        "pages_sharing": 299,
        "pages_unshared": 0,
        "pages_volatile": 0,
    }
    assert last["procs"] == {"A": {}}
    assert last["vmstat"] == {}
    assert seen["knobs"] == {"merge_across_nodes": 1}


def test_6_1_keeps_zero_pages_on_unmerge_and_6_18_does_not() -> None:
    text = (
        "set use_zero_pages 1\nproc A\nmap A x 4\nfill A x 0 4 zero\nmergeable A x\nscan 2\n"
        "unmergeable A x\nrecord after"
    )
    assert kind(play(text, "6.1")["after"], "A", "x") == [2] * 4
    assert kind(play(text, "6.18")["after"], "A", "x") == [0] * 4


def test_6_1_children_start_with_the_counts_of_their_parents() -> None:
    text = "proc A\nmap A x 4\nfill A x 0 4 const 5\nmergeable A x\nscan 2\nfork A B\nrecord forked"
    assert play(text, "6.1")["forked"]["procs"]["B"] == {"ksm_merging_pages": 4, "ksm_rmap_items": 4}
    assert play(text, "6.12")["forked"]["procs"]["B"]["ksm_merging_pages"] == 0


def test_merge_any_needs_the_prctl() -> None:
    for kernel, error in (("6.1", "EINVAL"), ("6.18", "")):
        [event] = play("proc A\nmerge_any A", kernel)["events"]
        assert event["err"] == error


# smart_scan


def test_smart_scan_visits_a_unique_page_ever_more_rarely() -> None:
    seen = play("set smart_scan 1\nproc A\nmap A x 1\nfill A x 0 1 const 5\nmergeable A x\nscan 50")
    scanned = [seen[f"scan@6.{k}"]["sysfs"]["pages_scanned"] for k in range(1, 51)]
    visits = [
        k for k, (before, now) in enumerate(zip([0, *scanned], scanned, strict=False), 1) if now > before
    ]
    assert visits == [1, 2, 3, 4, 6, 9, 14, 23, 32, 41, 50]


# max_page_sharing and migration


def test_groups_of_max_page_sharing() -> None:
    seen = play("set max_page_sharing 3\nproc A\nmap A x 8\nfill A x 0 8 const 5\nmergeable A x\nscan 2")
    last = seen["scan@6.2"]
    assert counts(last) == (3, 5, 0, 0)
    assert part(last, "A", "x") == [0, 0, 0, 1, 1, 1, 2, 2]
    assert (last["sysfs"]["stable_node_chains"], last["sysfs"]["stable_node_dups"]) == (1, 3)
    assert last["new_ksm"] == {"label": "0+3", "frame_of_slot": "1 4 7"}


def test_a_sharer_that_fell_off_comes_back_at_its_next_visit() -> None:
    """A full stable page migrates: the sharer that ksmd notices it by drops into the unstable tree."""
    text = """\
set merge_across_nodes 0
set max_page_sharing 2
proc A
map A a 2 node 0
map A b 2 node 1
fill A a 0 2 const 5
fill A b 0 2 seq 7
mergeable A a
mergeable A b
scan 2
fill A b 0 2 const 5
batch 0
move A a 0 1 1
record moved
scan
scan
scan
"""
    seen = play(text, nodes=2)
    assert counts(seen["scan@10.2"]) == (1, 1, 2, 0)
    assert part(seen["moved"], "A", "a") == [0, 0]
    # first pass: b changed, so it is volatile; a's first item fell off its full page into the unstable tree
    assert counts(seen["scan@15"]) == (1, 0, 1, 2)
    # second pass: the item has come back before b looks, the page is full, and b's two pages merge
    assert counts(seen["scan@16"]) == (2, 2, 0, 0)
    assert seen["scan@17"]["vmstat"]["cow_ksm"] == 0


def test_a_page_joins_the_room_a_fallen_sharer_left_and_the_next_one_is_copied() -> None:
    """A KSM page cannot be replaced, as write_protect_page cannot find its address: so a page that meets
    one in the unstable tree turns into a KSM page and back, which costs a copy."""
    text = """\
set merge_across_nodes 0
set max_page_sharing 2
proc A
map A a 2 node 0
map A b 2 node 1
fill A a 0 2 const 5
fill A b 0 2 const 5
mergeable A a
scan 2
mergeable A b
scan
move A a 0 1 1
record moved
scan
scan
"""
    seen = play(text, nodes=2)
    assert counts(seen["moved"]) == (1, 1, 0, 2)
    # a0 falls into the unstable tree, b0 takes its room: three mappers; b1 meets a0 and is copied
    after = seen["scan@14"]
    assert part(after, "A", "a") + part(after, "A", "b") == [0, 0, 0, 1]
    assert counts(after) == (1, 1, 1, 1)
    assert after["vmstat"]["cow_ksm"] == 1
    # a0 is found to share the page after all; b1 waits alone
    assert counts(seen["scan@15"]) == (1, 2, 1, 0)
    assert seen["scan@15"]["vmstat"]["cow_ksm"] == 1


def test_a_page_with_mappings_unknown_to_reverse_mapping_does_not_move() -> None:
    text = """\
set merge_across_nodes 0
set max_page_sharing 2
proc A
map A a 2 node 0
fill A a 0 2 const 5
mergeable A a
scan 2
move A a 0 1 1
batch 1
move A a 0 1 0
scan
move A a 0 1 0
"""
    moves = [event["ret"] for event in play(text, nodes=2)["events"] if event["what"] == "move"]
    assert moves == [1, 0, 0]


MIGRATED_SINGLE = """\
set merge_across_nodes 0
proc A
map A a 2 node 0
map A b 2 node 1
fill A a 0 2 const 5
fill A b 0 2 const 5
mergeable A a
mergeable A b
scan 2
fill A a 1 1 const 6
move A a 0 1 1
"""


def test_a_migrated_page_with_one_mapper_is_not_merged_but_loses_its_item() -> None:
    """It should join the page of its new node, but a KSM page cannot be replaced: it stays, unaccounted."""
    for kernel in ("4.8", "6.1", "6.18"):
        seen = play(MIGRATED_SINGLE + "scan\nscan\nscan", kernel, nodes=2)
        assert counts(seen["scan@9.2"]) == (2, 2, 0, 0)
        for label in ("scan@12", "scan@13", "scan@14"):
            assert part(seen[label], "A", "a") + part(seen[label], "A", "b") == [0, 1, 2, 2]
            assert kind(seen[label], "A", "a")[0] == 1
        assert counts(seen["scan@14"]) == (1, 1, 1, 1)


@pytest.mark.parametrize("kernel", ["4.8", "6.1", "6.12", "6.18"])
def test_two_stable_pages_change_places(kernel: str) -> None:
    """Each is found on the other's node: the one visited first takes the other's place in the tree."""
    text = (
        MIGRATED_SINGLE
        + """\
move A b 0 1 0
scan
map A c 1 node 0
map A d 1 node 1
fill A c 0 1 const 5
fill A d 0 1 const 5
mergeable A c
mergeable A d
scan 2
"""
    )
    seen = play(text, kernel, nodes=2)
    assert counts(seen["scan@13"]) == (2, 1, 0, 1)
    last = seen["scan@20.2"]
    assert [part(last, "A", r)[0] for r in "abcd"] == [0, 2, 2, 0]
    assert counts(last) == (2, 3, 1, 0)


def test_a_stable_page_takes_the_place_of_a_dup_that_migrated_away() -> None:
    text = """\
set merge_across_nodes 0
set max_page_sharing 3
proc A
map A a 2 node 0
map A b 5 node 1
fill A a 0 2 const 5
fill A b 0 5 const 5
mergeable A a
mergeable A b
scan 2
fill A a 1 1 const 6
move A a 0 1 1
move A b 3 1 0
scan
scan
"""
    seen = play(text, nodes=2)
    before, after = seen["scan@10.2"]["sysfs"], seen["scan@14"]["sysfs"]
    assert (before["stable_node_chains"], before["stable_node_dups"]) == (1, 2)
    assert counts(seen["scan@10.2"]) == (3, 4, 0, 0)
    # node 1 keeps a chain of two, one of them the newcomer; the dup that left is alone on node 0
    assert (after["stable_node_chains"], after["stable_node_dups"]) == (1, 2)
    assert counts(seen["scan@15"]) == (3, 3, 1, 0)


# Order of processes, exit


def test_a_process_without_items_leaves_at_once() -> None:
    seen = play("proc A\nmap A x 2\nfill A x 0 2 seq 1\nmergeable A x\nexit A\nscan")
    assert seen["events"] == [{"line": 6, "what": "noscan", "ret": 0, "err": ""}]
    assert seen["scan@6"]["sysfs"]["full_scans"] == 0


def test_unmerge_all_cleans_up_after_the_dead() -> None:
    seen = play("proc A\nmap A x 2\nfill A x 0 2 const 1\nmergeable A x\nscan 2\nexit A\nunmerge_all\nscan")
    assert seen["events"] == [{"line": 8, "what": "noscan", "ret": 0, "err": ""}]
    assert counts(seen["scan@8"]) == (0, 0, 0, 0)


# Swap


def test_a_swapped_page_of_two_processes_comes_back_as_one() -> None:
    text = """\
proc A
map A x 2
fill A x 0 2 seq 1
pageout A x
fork A B
record out
read A x
record one
fill A x 0 1 const 9
read B x
record both
"""
    seen = play(text, swap=True)
    assert kind(seen["out"], "A", "x") == kind(seen["out"], "B", "x") == [-2, -2]
    assert part(seen["one"], "A", "x") == [0, 1]
    assert (part(seen["both"], "A", "x"), part(seen["both"], "B", "x")) == ([0, 1], [2, 1])


def test_page_out_of_a_page_that_is_in_the_swap_cache() -> None:
    text = """\
proc A
map A x 1
fill A x 0 1 seq 1
pageout A x
fork A B
read A x
pageout A x
record out
exit B
read A x
mergeable A x
record in
"""
    seen = play(text, nodes=2, swap=True)
    assert kind(seen["out"], "A", "x") == kind(seen["out"], "B", "x") == [-2]
    assert kind(seen["in"], "A", "x") == [0]


def test_migration_and_merging_of_pages_in_the_swap_cache() -> None:
    text = """\
proc A
map A x 2 node 0
fill A x 0 2 const 5
pageout A x
fork A B
read A x
move A x 0 2 1
mergeable A x
scan 2
read B x
record both
"""
    seen = play(text, nodes=2, swap=True)
    assert counts(seen["scan@9.2"]) == (1, 1, 0, 0)
    # B finds A's KSM page in the swap cache, and the page that it replaced, left there for B
    assert part(seen["both"], "B", "x") == [1, 0]
    assert kind(seen["both"], "B", "x") == [0, 1]


def test_without_swap_nothing_is_paged_out() -> None:
    seen = play("proc A\nmap A x 2\nfill A x 0 2 seq 1\npageout A x\nrecord out")
    assert kind(seen["out"], "A", "x") == [0, 0]


# Errors


def test_knobs_refuse_what_the_kernel_refuses() -> None:
    script = """\
set max_page_sharing 1
set max_page_sharing 300
set merge_across_nodes 2
set use_zero_pages maybe
set use_zero_pages on
set smart_scan N
set advisor_mode scan-time
set advisor_mode fast
set advisor_target_scan_time 0
set advisor_max_cpu 4294967366
set pages_to_scan 5
set advisor_mode none
set pages_to_scan -1
set pages_to_scan 5
set advisor_mode scan-time
set pages_shared 3
set no_such_file 3
"""
    seen = play(script)
    errors = [event["err"] for event in seen["events"]]
    assert errors == [
        "EINVAL",
        "",
        "EINVAL",
        "EINVAL",
        "",
        "",
        "",
        "EINVAL",
        "EINVAL",
        "",
        "EINVAL",
        "",
        "EINVAL",
        "",
        "",
        "EACCES",
        "ENOENT",
    ]
    assert seen["events"][-1]["what"] == "unsupported"
    assert seen["knobs"]["max_page_sharing"] == 300
    assert seen["knobs"]["use_zero_pages"] == 1
    assert seen["knobs"]["advisor_mode"] == "none [scan-time]"
    assert seen["knobs"]["advisor_max_cpu"] == 70


def test_a_sharer_outside_the_items_keeps_the_knobs_busy() -> None:
    """pages_shared may be 0 while a fallen sharer still maps the KSM page."""
    text = """\
set merge_across_nodes 0
set max_page_sharing 2
proc A
map A a 2 node 0
fill A a 0 2 const 5
mergeable A a
scan 2
move A a 0 1 1
batch 1
fill A a 1 1 const 6
batch 1
record fallen
set max_page_sharing 3
"""
    seen = play(text, nodes=2)
    assert seen["fallen"]["sysfs"]["pages_shared"] == 0
    assert kind(seen["fallen"], "A", "a") == [1, 0]
    assert seen["events"][-1]["err"] == "EBUSY"


def test_advice_on_holes_fails_but_is_taken() -> None:
    text = "proc A\nmap A x 4\nfill A x 0 4 seq 1\nunmap A x 1 1\nmergeable A x\nscan\nunmap A x 0 0"
    seen = play(text)
    assert [event["err"] for event in seen["events"]] == ["ENOMEM", "EINVAL"]
    assert seen["scan@6"]["sysfs"]["pages_volatile"] == 3


def test_nodes_that_are_not_there() -> None:
    seen = play("proc A\nmap A x 2 node 5\nfill A x 0 2 seq 1\nmove A x 0 2 7\nrecord here", nodes=2)
    assert [(event["what"], event["ret"], event["err"]) for event in seen["events"]] == [
        ("map", -1, "EINVAL"),
        ("move", 0, ""),
    ]
    assert _region(seen["here"], "A", "x")["node"] == "0*2"


@pytest.mark.parametrize("access", ["read A x", "fill A x 0 4 zero"])
def test_access_to_a_hole_is_an_error_of_the_script(access: str) -> None:
    with pytest.raises(ScriptError, match=r"^4:1: page 2 of A x is not mapped") as error:
        play(f"proc A\nmap A x 4\nunmap A x 2 1\n{access}")
    assert isinstance(error.value.__cause__, BadAddressError)


def test_requirements_that_are_not_met_skip_the_rest() -> None:
    for requirement in ("nodes 2", "swap", "knob flux_capacitor"):
        seen = play(f"record before\nrequire {requirement}\nrecord after")
        assert "before" in seen
        assert "after" not in seen


# Time


def test_pruning_follows_simulated_time() -> None:
    """A chain is pruned when its time has come, not before."""
    machine = ExactEngine(PROFILES["6.1"])
    assert machine.set_knob("max_page_sharing", "2") == ""
    assert machine.set_knob("stable_node_chains_prune_millisecs", "100") == ""
    machine.proc("A")
    machine.map("A", "x", 6, None)
    fives = np.full(6, 5, dtype=np.uint64)
    machine.fill("A", "x", np.arange(6), fives)
    machine.mergeable("A", "x", 0, 6)
    for _ in range(2):
        machine.scan()
    assert machine.view().sysfs["stable_node_dups"] == 3
    machine.fill("A", "x", np.arange(5), np.arange(10, 15, dtype=np.uint64))
    machine.scan()
    machine.scan()
    assert machine.view().sysfs["stable_node_chains"] == 1
    machine.now_ms = 100
    machine.scan()
    assert machine.view().sysfs["stable_node_chains"] == 0
