"""Scenarios of `ksmcluster compact`: what they may say, and what is said of mistakes."""

from __future__ import annotations

import copy
import tomllib
from typing import Any, get_args

import numpy as np
import pytest

from cluster.compaction.kernel_rules import COMPACTION_RULES
from cluster.compaction.scenario.memory_host import compact_inline
from cluster.compaction.scenario.relocation_result import relocation_results
from cluster.spec.compaction import CompactionSpec, DriverSpec
from ksmcluster.config import (
    Overrides,
    bundled_compactions,
    load,
    load_compaction,
    load_either,
    resolved_toml,
    to_spec,
)
from ksmcluster.config.compaction import CompactionKernel, to_compaction_spec
from ksmcluster.system.errors import UserError

SMALL: dict[str, Any] = {
    "machine": {"nodes": 2, "memory_per_node": "8MiB"},
    "driver": [{"name": "a", "kind": "balloon", "share": 0.5}],
}


def message(*sets: str, source: dict[str, Any] | None = None) -> str:
    with pytest.raises(UserError) as error:
        load_compaction(source or copy.deepcopy(SMALL), Overrides(settings=sets))
    return str(error.value)


@pytest.mark.parametrize("name", bundled_compactions())
def test_scenarios_that_come_along(name: str) -> None:
    scenario = load_compaction(name)
    assert scenario.simulation.title
    assert load_compaction(tomllib.loads(resolved_toml(scenario))) == scenario


def test_kernels() -> None:
    """A full release is taken as a known kernel; a note says if its series is not known."""
    before, newest = "the last known one before it", "the newest known one"
    assert get_args(CompactionKernel) == tuple(COMPACTION_RULES)
    for release, kernel, notes in (
        ("6.12.99", "6.12", ()),
        ("6.18.44", "6.18", ()),
        (
            "6.16.12",
            "6.12",
            (f"kernel 6.16.12 is not known; it is taken as 6.12, {before}",),
        ),
        ("7.3", "7.2", (f"kernel 7.3 is not known; it is taken as 7.2, {newest}",)),
    ):
        scenario = load_compaction({**copy.deepcopy(SMALL), "migration": {"kernel": release}})
        assert scenario.migration.kernel == kernel
        assert scenario.notes == tuple(f"scenario: migration.{note}" for note in notes)
    assert 'migration.kernel: "3.2" is not one of' in message("migration.kernel=3.2")


def test_drivers_of_kernels_with_page_types() -> None:
    """A driver of one's own takes the place of zsmalloc, if that is not there."""

    def drivers(*kinds: str) -> dict[str, Any]:
        return {**SMALL, "driver": [{"name": k, "kind": k, "share": 0.2} for k in kinds]}

    for kinds in (("gpu", "balloon", "pinned"), ("zram", "balloon"), ("faulty",)):
        load_compaction({**drivers(*kinds), "migration": {"kernel": "6.18"}})
    for kinds in (("zram", "gpu"), ("gpu", "faulty"), ("gpu", "zram")):
        load_compaction({**drivers(*kinds), "migration": {"kernel": "6.12"}})
        said = message("migration.kernel=7.2", source=drivers(*kinds))
        assert "since 6.17 movable pages have a page type" in said
        assert "\n" not in said


@pytest.mark.parametrize(("size", "pages"), [("4KiB", 1), ("64 pages", 64), ("1GiB", 1 << 18)])
def test_grain(size: str, pages: int) -> None:
    """A size like any other, in scenarios of both commands; by default the simulation chooses."""
    setting = Overrides(settings=(f"migration.grain={size}",))
    scenario = load_compaction(copy.deepcopy(SMALL), setting)
    assert to_compaction_spec(scenario).grain == pages
    assert load_compaction(tomllib.loads(resolved_toml(scenario))) == scenario
    migration = to_spec(load("ksm-compaction", setting)).migration
    assert migration is not None
    assert migration.grain == pages
    assert to_compaction_spec(load_compaction(copy.deepcopy(SMALL))).grain is None
    assert 'migration.grain: "0 pages" is out of range' in message("migration.grain=0 pages")


@pytest.mark.parametrize("name", ["compaction-zram", "compaction-gpu"])
def test_huge_pages(name: str) -> None:
    """The seed's story: no huge page before, none without movable pages, all that are asked for with them."""
    scenario = load_compaction(name)
    assert scenario.machine.nodes == 64
    for report in compact_inline(to_compaction_spec(load_compaction(name, Overrides(nodes=3)))):
        assert (report.obtained_before, report.obtained_without) == (0, 0)
        assert report.obtained_after == scenario.migration.attempts


def test_drained_nodes() -> None:
    """They go offline, which they could not if drivers' pages did not move; then all others have as much."""
    spec = to_compaction_spec(load_compaction("compaction-drain"))
    reports = compact_inline(spec)
    drained, evened = relocation_results(spec, reports)
    assert {node: d.offline for node, d in drained.drained.items()} == {5: 32, 6: 32}
    assert all(d.fixed > spec.pages_per_node / 2 for d in drained.drained.values())
    # all that there is room for stays in the socket
    assert drained.pages[5, [4, 7]].all()
    assert evened.pages.any()
    sizes = 1 << np.arange(11)
    free = [report.after @ sizes for report in reports if report.node not in drained.drained]
    assert max(free) - min(free) <= 1


def test_defaults_are_those_of_the_machine() -> None:
    made = to_compaction_spec(load_compaction(SMALL))
    assert made == CompactionSpec(2, 2048, (DriverSpec("a", "balloon", 0.5),))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("machine.memory_per_node=5MiB", "must be a multiple of 2MiB, from 4MiB, not 5MiB"),
        ("machine.memory_per_node=64", 'a size is text with a unit: "64 pages" or "64MiB"'),
        ("machine.lru=1.5", "must be at most 1.0, not 1.5"),
        ("migration.kernel=3.2", '"3.2" is not one of "4.8", "6.1"'),
        ("migration.mode=sink", '"sink" is not one of "async", "sync-light", "sync"'),
        ("migration.order=11", "must be at most 10, not 11"),
        ("migration.compactors=0", "must be at least 1, not 0"),
        ("driver[0].share=0", "must be above 0.0, not 0"),
        ("driver[0].name=lru", '"lru" is reserved for LRU pages'),
        ("driver[0].name=guests", '"guests" is reserved for pages of other nodes\' drivers'),
        ("cost.scan=3", "unknown key; did you mean"),
    ],
)
def test_mistakes_are_told_in_one_line(setting: str, text: str) -> None:
    said = message(setting)
    assert text in said
    assert said.startswith(f"--set {setting.partition('=')[0]}: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("relocate", "text"),
    [
        ({"kind": "drain"}, 'is empty; kind = "drain" needs it'),
        ({"kind": "drain", "nodes": [2]}, "there is no node 2; the last is 1"),
        ({"kind": "drain", "nodes": [1, 0]}, "drains all nodes; leave one that takes their pages"),
        ({"kind": "even-out", "nodes": [-1]}, "there is no node -1; the last is 1"),
    ],
)
def test_mistakes_of_relocations(relocate: dict[str, Any], text: str) -> None:
    said = message(source=SMALL | {"migration": {"relocate": [relocate]}})
    assert said == f"scenario: migration.relocate[0].nodes: {text}"


def test_draining_from_the_command_line() -> None:
    made = load_compaction(copy.deepcopy(SMALL), Overrides(drain=(1,)))
    assert [r.nodes for r in to_compaction_spec(made).relocations] == [(1,)]
    with pytest.raises(UserError, match=r"^--drain: there is no node 7; the last is 1$"):
        load_compaction(copy.deepcopy(SMALL), Overrides(drain=(7,)))


def test_distances_need_as_many_nodes() -> None:
    said = message("machine.topology.kind=mesh", "machine.topology.rows=3")
    assert said == (
        "scenario: machine.topology: has 3 nodes, but machine.nodes is 2; "
        "for example, give rows = 1 and columns = 2"
    )


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("driver[0].kind=ballon", "scenario: driver[0]: no driver 'ballon'; give one of balloon, faulty, "),
        ("driver[0].settings.busy=1", "scenario: driver[0]: driver 'balloon' has no setting 'busy'; "),
        (
            "machine.unmovable=0.6",
            "scenario: driver: shares, machine.lru and machine.unmovable add up to 1.1",
        ),
        (
            "driver=[]",
            "scenario: machine.lru: is 0, and there is no [[driver]], so no page can move; give one",
        ),
    ],
)
def test_mistakes_that_need_more_than_a_key(setting: str, text: str) -> None:
    said = message(setting)
    assert said.startswith(text)
    assert "\n" not in said


def test_an_object_that_fits_no_page() -> None:
    said = message("driver[0].kind=zram", "driver[0].settings.object_size=5000")
    assert said == "scenario: driver[0].settings: an object of 5000 bytes; it must have 1 to 4096"


def test_names_are_used_once() -> None:
    driver = SMALL["driver"][0]
    twice = SMALL | {"driver": [driver, {**driver, "share": 0.1}]}
    assert message(source=twice) == 'scenario: driver[1].name: "a" is already in use'


def test_scenarios_without_drivers() -> None:
    """LRU pages are enough; they also say whose scenario it is."""
    plain = {"machine": SMALL["machine"] | {"lru": 0.5}}
    made = load_compaction(copy.deepcopy(plain))
    assert to_compaction_spec(made).drivers == ()
    assert load_either(copy.deepcopy(plain)) == made
    assert load_either(tomllib.loads(resolved_toml(made))) == made
    with pytest.raises(UserError, match=r"has machine.lru, so it is a scenario of `ksmcluster compact`"):
        load(copy.deepcopy(plain))


def test_scenarios_of_the_other_command() -> None:
    with pytest.raises(UserError, match=r"\[\[driver\]\], so it is a scenario of `ksmcluster compact`"):
        load("compaction-zram")
    with pytest.raises(UserError, match=r"\[\[process\]\], so it is a scenario of `ksmcluster simulate`"):
        load_compaction("tiny")
