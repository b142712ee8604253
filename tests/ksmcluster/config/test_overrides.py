"""Changes to a scenario as keyword arguments: any key by name or table, checked before anything runs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ksmcluster
from ksmcluster.config import Overrides, load
from ksmcluster.config.overrides import parse_value, toml_value
from ksmcluster.system.errors import UserError


@pytest.mark.parametrize(
    "settings",
    [
        {"ksm.pages_to_scan": 400, "ksm.kernel": "6.12", "process[0].per_node": 3},
        {"ksm": {"pages_to_scan": np.int64(400), "kernel": "6.12"}, "process[0]": {"per_node": 3}},
        ["ksm.pages_to_scan=400", "ksm.kernel=6.12", "process[0].per_node=3"],
    ],
)
def test_settings_are_a_dict_tables_or_texts(settings: Any) -> None:
    overrides = Overrides(settings=settings)
    scenario = load("tiny", overrides)
    assert (scenario.ksm.pages_to_scan, scenario.ksm.kernel) == (400, "6.12")
    assert scenario.process[0].per_node == 3
    for copy in (pickle.loads(pickle.dumps(overrides)), replace(overrides, seed=None)):
        assert copy == overrides


@pytest.mark.parametrize(
    "value",
    [True, 0, -1.5, "128MiB", 'a "quoted" \u00e9 \U0001f600', [1, [2, "b"]], {"a b": [{"c": 0.5}]}, [], {}],
)
def test_values_become_toml(value: object) -> None:
    assert parse_value(toml_value("key", value)) == value


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ksm.pages_to_scn": 1}, '--set ksm.pages_to_scn: unknown key; did you mean "pages_to_scan"?'),
        (
            {"ksm.kernel": 6.10},
            'ksm.kernel: the number 6.1 may mean another kernel; give a text, as in "6.10"',
        ),
        ({"ksm.run": object}, "ksm.run: a value is a number, a text, "),
        ({"ksm..run": 1}, "--set ksm..run=1: "),
        ("ksm.run=0", 'settings: give a dict or a list of texts, as in settings=("ksm.run=0",)'),
    ],
)
def test_mistakes_in_settings(settings: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load("tiny", Overrides(settings=settings))
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_unknown_arguments_are_told_the_nearest() -> None:
    wrong: dict[str, Any] = {"nods": 3}
    with pytest.raises(UserError, match=r'^Overrides: no argument nods; did you mean "nodes"\?$'):
        Overrides(**wrong)
    for call in (ksmcluster.simulate, ksmcluster.compact, ksmcluster.sweep):
        with pytest.raises(UserError, match=rf'^{call.__name__}: no argument nods; did you mean "nodes"\?$'):
            call("tiny", **wrong)
    key: dict[str, Any] = {"ksm.run": 0}
    with pytest.raises(UserError, match=r"keys of scenarios go into settings="):
        ksmcluster.simulate("tiny", **key)
    own: dict[str, Any] = {"jbs": 2}
    with pytest.raises(UserError, match=r'^sweep: no argument jbs; did you mean "jobs"\?$'):
        ksmcluster.sweep("tiny", **own)


def test_keyword_arguments_change_the_scenario() -> None:
    result = ksmcluster.simulate("tiny", engine="inline", nodes=3, passes=2, settings={"ksm.run": 0})
    scenario = result.config
    assert (scenario.machine.nodes, scenario.simulation.passes, scenario.ksm.run) == (3, 2, 0)
    compacted = ksmcluster.compact(
        "compaction-zram", engine="inline", nodes=1, settings={"machine.memory_per_node": "16MiB"}
    )
    assert compacted.summary["nodes"] == 1
    swept = ksmcluster.sweep("tiny", {"ksm.run": [0]}, passes=2)
    assert swept.config(1)["simulation"]["passes"] == 2


def test_a_loaded_scenario_is_not_changed() -> None:
    with pytest.raises(UserError, match=r"^simulate: the scenario is already loaded; "):
        ksmcluster.simulate(load("tiny"), nodes=3, engine="inline")
    with pytest.raises(UserError, match=r"^sweep: give changes as overrides or as keyword arguments"):
        ksmcluster.sweep("tiny", overrides=Overrides(nodes=2), passes=3)
