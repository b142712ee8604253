"""Scenarios of `ksmcluster compact`: what they may say, and what is said of mistakes."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest

from cluster.migration.machine import compact_inline
from cluster.migration.spec import CompactionSpec, DriverSpec
from ksmcluster.config import Overrides, bundled_compactions, load, load_compaction, resolved_toml
from ksmcluster.config.compaction import to_compaction_spec
from ksmcluster.errors import UserError

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
    """The seed's story: no huge page before, none without movable pages, all that are asked for with them."""
    scenario = load_compaction(name)
    assert scenario.simulation.title
    assert scenario.machine.nodes == 64
    assert load_compaction(tomllib.loads(resolved_toml(scenario))) == scenario
    for report in compact_inline(to_compaction_spec(load_compaction(name, Overrides(nodes=3)))):
        assert (report.obtained_before, report.obtained_without) == (0, 0)
        assert report.obtained_after == scenario.migration.attempts


def test_defaults_are_those_of_the_machine() -> None:
    made = to_compaction_spec(load_compaction(SMALL))
    assert made == CompactionSpec(2, 2048, (DriverSpec("a", "balloon", 0.5),))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("machine.memory_per_node=5MiB", "must be a multiple of 2MiB, from 4MiB, not 5MiB"),
        ("machine.memory_per_node=64", 'a size is text with a unit: "64 pages" or "64MiB"'),
        ("machine.lru=1.5", "must be at most 1.0, not 1.5"),
        ("migration.kernel=5.0", '"5.0" is not one of "4.8", "6.1"'),
        ("migration.mode=sink", '"sink" is not one of "async", "sync-light", "sync"'),
        ("migration.order=11", "must be at most 10, not 11"),
        ("migration.compactors=0", "must be at least 1, not 0"),
        ("driver[0].share=0", "must be above 0.0, not 0"),
        ("driver[0].name=lru", '"lru" is what LRU pages are called'),
        ("cost.scan=3", "unknown key; did you mean"),
    ],
)
def test_mistakes_are_told_in_one_line(setting: str, text: str) -> None:
    said = message(setting)
    assert text in said
    assert said.startswith(f"--set {setting.partition('=')[0]}: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("driver[0].kind=ballon", "scenario: driver[0]: no driver 'ballon'; give one of balloon, faulty, "),
        ("driver[0].settings.busy=1", "scenario: driver[0]: driver 'balloon' with settings {'busy': 1}: "),
        ("driver[0].kind=nowhere.to:Find", "scenario: driver[0]: driver 'nowhere.to:Find': No module"),
        ("machine.unmovable=0.6", "scenario: driver: shares, machine.lru and machine.unmovable are 1.1 of"),
        ("driver=[]", "--set driver: is empty"),
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
    assert message(source=twice) == 'scenario: driver[1].name: "a" is the name of an earlier one'


def test_scenarios_of_the_other_command() -> None:
    with pytest.raises(UserError, match=r"\[\[driver\]\] makes it a scenario of `ksmcluster compact`"):
        load("compaction-zram")
    with pytest.raises(UserError, match=r"\[\[process\]\] makes it a scenario of `ksmcluster simulate`"):
        load_compaction("tiny")
