"""Classes of users' packages: what they are told, and what is said if they or their answers are wrong."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.checkpoint.encode import EncodeError
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool
from cluster.machine.fabric import InlineFabric
from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import Simulation
from cluster.plugins.loading import PluginError, make
from cluster.plugins.placement_policy import CheckedPolicy, PageFaults, PlacementPolicy, PolicyNode
from cluster.plugins.workload_model import CheckedModel, ModelRegion, WorkloadModel
from cluster.spec.keyed import content_ids
from cluster.spec.plugin import PluginSpec
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    PolicyMode,
    PolicySpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
)
from cluster.spec.topology import ring
from tests.cluster.plugins.models import HERE, Answers, Ring

REGION = ModelRegion("heap", "rank", 8, 0, 0, 0, 2, 1)
NODE = PolicyNode(1, 4, 100, ring(4, 10), 1)


def model(name: str, **settings: object) -> PluginSpec:
    return PluginSpec(f"{HERE}:{name}", tuple(settings.items()))


def region(name: str, pages: int = 20, **settings: object) -> RegionSpec:
    return RegionSpec(name.lower(), pages, ContentModel.PLUGIN, plugin=model(name, **settings))


def policy(name: str, **settings: object) -> PolicySpec:
    return PolicySpec(PolicyMode.PLUGIN, plugin=model(name, **settings))


def spec(*regions: RegionSpec, frames: int = 500, **process: Any) -> SimulationSpec:
    kind = ProcessSpec("rank", process.pop("count", 5), regions, **process)
    return SimulationSpec(MachineSpec(4, frames, ring(4, 10)), KsmSpec(), (kind,), passes=4)


def simulated(wanted: SimulationSpec) -> tuple[InlineFabric, list[PassResult]]:
    fabric = InlineFabric(wanted, {})
    simulation = Simulation(fabric, wanted, InlineCompactorPool(fabric.host.memories))
    return fabric, [simulation.run_pass() for _ in range(wanted.passes or 1)]


# How classes are found.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere.at:All",
            "'nowhere.at:All': No module named 'nowhere'; install the package of nowhere, or ",
        ),
        (f"{HERE}:Rin", f"module '{HERE}' has no attribute 'Rin'; did you mean 'Ring'?"),
        (f"{HERE}:function", f"'{HERE}:function' is not a class"),
        (f"{HERE}:Unrelated", "is no WorkloadModel; derive it from cluster.plugins.workload_model.Work"),
        (f"{HERE}:InTurn", "is no WorkloadModel; derive it from"),
        (f"{HERE}:Callable", "has a method __call__"),
    ],
)
def test_classes_that_do_not_fit(name: str, message: str) -> None:
    with pytest.raises(PluginError, match=re.escape(message)) as error:
        make("workload model", PluginSpec(name), WorkloadModel, REGION)
    assert str(error.value).startswith("workload model ")
    assert "\n" not in str(error.value)


def test_settings_are_keyword_arguments() -> None:
    found = make("workload model", model("Ring", step=3), WorkloadModel, REGION)
    assert isinstance(found, Ring)
    assert found.step == 3
    with pytest.raises(PluginError, match="has no setting 'stepp'; did you mean 'step'"):
        make("workload model", model("Ring", stepp=3), WorkloadModel, REGION)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nothing_of_this_name",
            "No module named 'nothing_of_this_name'; install the package of nothing",
        ),
        ("x = 1\nx / 0", r"ZeroDivisionError: division by zero \(broken_\d+.py, line 2\)"),
        ("def f(:", "SyntaxError: "),
    ],
)
def test_modules_that_cannot_be_imported(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found in the working directory."""
    name = f"broken_{abs(hash(text)) % 1000}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with pytest.raises(PluginError, match=message) as error:
        make("workload model", PluginSpec(f"{name}:Model"), WorkloadModel, REGION)
    assert "\n" not in str(error.value)


# Answers.

ZEROS = np.zeros(8, np.uint64)
PAGES = np.array([1, 5])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "contents() returned NoneType, not an array uint64[8]"),
        ([0] * 8, "contents() returned list, not an array uint64[8]"),
        (np.zeros(8), "contents() returned float64[8], not uint64[8]"),
        (np.zeros(7, np.uint64), "contents() returned uint64[7], not uint64[8]"),
        (np.zeros((2, 4), np.uint64), "contents() returned uint64[2, 4], not uint64[8]"),
    ],
)
def test_wrong_contents(answer: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "first", answer)
    with pytest.raises(PluginError) as error:
        CheckedModel(model("Answers"), REGION).contents()
    assert str(error.value) == f"workload model '{HERE}:Answers': {message}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (PAGES, "writes() returned ndarray, not PageWrites(pages, ids)"),
        ((PAGES,), "writes() returned tuple, not PageWrites(pages, ids)"),
        (([1, 5], None), "writes(), pages returned list, not an array int64[n]"),
        ((PAGES.astype(np.int32), None), "writes(), pages returned int32[2], not int64[n]"),
        ((np.array([1, 8]), None), "writes(), pages has 8; the numbers are 0 to 7"),
        ((np.array([-1, 5]), None), "writes(), pages has -1; the numbers are 0 to 7"),
        ((np.array([5, 5]), None), "writes(): pages do not ascend, or one is there twice"),
        ((PAGES[::-1], None), "writes(): pages do not ascend, or one is there twice"),
        ((PAGES, PAGES), "writes(), ids returned int64[2], not uint64[2]"),
        ((PAGES, ZEROS), "writes(), ids returned uint64[8], not uint64[2]"),
    ],
)
def test_wrong_writes(answer: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "later", answer)
    with pytest.raises(PluginError) as error:
        CheckedModel(model("Answers"), REGION).writes(0.0, 1.0)
    assert str(error.value).startswith(f"workload model '{HERE}:Answers': {message}")


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), "much"])
def test_wrong_rates(rate: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "merging_rate", rate)
    with pytest.raises(PluginError, match=r"merging_rate is .*, not a number from 0"):
        CheckedModel(model("Answers"), REGION)


@given(st.lists(st.integers(-3, 12), max_size=10))
def test_only_ascending_pages_of_the_region_are_accepted(pages: list[int]) -> None:
    answer = np.array(pages, np.int64)
    found = CheckedModel(model("Answers"), REGION)
    found.model.later = (answer, None)  # type: ignore[attr-defined]
    if pages == sorted(set(pages)) and set(pages) <= set(range(8)):
        assert found.writes(0.0, 1.0).pages.tolist() == pages
    else:
        with pytest.raises(PluginError):
            found.writes(0.0, 1.0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: [0] * n, "returned list, not an array int64[3]"),
        (lambda n: np.zeros(n), "returned float64[3], not int64[3]"),
        (lambda n: np.zeros(n - 1, np.int64), "returned int64[2], not int64[3]"),
        (lambda n: np.full(n, 4), "has 4; the numbers are 0 to 3"),
        (lambda n: np.full(n, -1), "has -1; the numbers are 0 to 3"),
    ],
)
def test_wrong_nodes(answer: Any, message: str) -> None:
    found = CheckedPolicy(policy("Fixed"), NODE)
    found.policy.nodes_for = lambda faults: answer(len(faults.pages))  # type: ignore[method-assign]
    with pytest.raises(PluginError) as error:
        found.nodes_for(PageFaults("heap", 0, np.arange(3), 10))
    assert str(error.value) == f"placement policy '{HERE}:Fixed': nodes_for() {message}"


def test_a_policy_is_no_workload_model() -> None:
    with pytest.raises(PluginError, match="is no PlacementPolicy; derive it from"):
        make("placement policy", model("Ring"), PlacementPolicy, NODE)


def test_errors_say_where_they_come_from() -> None:
    with pytest.raises(PluginError) as error:
        list(run_passes(spec(region("Failing")), INLINE))
    assert "\n" not in str(error.value)
    assert re.fullmatch(
        r"workload model '.*:Failing': KeyError: .* \(models.py, line \d+\)", str(error.value)
    )
    assert isinstance(error.value.__cause__, KeyError)
    assert "in writes" in error.value.__notes__[0]


# What the machine makes of the answers.


def test_contents_decide_what_merges() -> None:
    """All five processes hold the same twenty contents."""
    quiet = replace(spec(region("Quiet")), passes=3)
    _, results = simulated(quiet)
    assert results[-1].nodes["pages_shared"].sum() == 20
    assert results[-1].nodes["pages_sharing"].sum() == 5 * 20 - 20


def test_models_are_told_of_their_regions_and_of_all_time() -> None:
    fabric, results = simulated(spec(region("Ring"), workers=1))
    models = [m.model for node in fabric.host.nodes.values() for m in node.workload._models.values()]
    rings = [m for m in models if isinstance(m, Ring)]
    assert sorted((m.region.process, m.region.worker) for m in rings) == [
        (process, worker) for process in range(5) for worker in range(2)
    ]
    assert {m.region.node for m in rings} == {0, 1, 2, 3}
    for ring_model in rings:
        starts, stops = zip(*ring_model.log, strict=True)
        assert starts[0] == 0.0
        assert starts[1:] == stops[:-1]
        assert stops[-1] <= results[-1].simulated_seconds


def test_windows_follow_the_rate() -> None:
    """ksmd wakes up ten times in a pass over a hundred pages; there is at most one window each time."""
    slow, fast = (
        replace(spec(replace(region("Ring"), merging_rate=rate)), ksm=KsmSpec(pages_to_scan=10))
        for rate in (0.0, 20.0)
    )
    assert {result.windows for result in simulated(slow)[1]} == {1}
    assert {result.windows for result in simulated(fast)[1]} == {10}


def test_writes_of_what_pages_hold_break_sharing_alone() -> None:
    """Worker w writes every third page from w on. It shares frames with its parent until then."""
    used = {}
    for model in ("Quiet", "Same"):
        own = replace(spec(region(model), workers=2), ksm=KsmSpec(run=0), passes=1)
        fabric, _ = simulated(own)
        used[model] = sum(node.state.frames.used for node in fabric.host.nodes.values())
    assert used["Quiet"] == 5 * 20
    assert 5 * 20 < used["Same"] <= 5 * (20 + 7 + 7 + 6)


@pytest.mark.parametrize("to", [0, 3])
def test_a_policy_chooses_the_node(to: int) -> None:
    regions = RegionSpec("own", 20, ContentModel.UNIQUE), RegionSpec("lib", 9, ContentModel.UNIQUE)
    placed = spec(*regions, policy=policy("Fixed", to=to))
    fabric, _ = simulated(replace(placed, ksm=KsmSpec(run=0), passes=1))
    used = [node.state.frames.used for node in fabric.host.nodes.values()]
    assert used == [5 * 29 if node == to else 0 for node in range(4)]


def test_pages_go_to_the_nearest_node_if_the_chosen_one_is_full() -> None:
    """Node 0 has 16 frames, and is asked for 60."""
    kinds = spec(RegionSpec("own", 15, ContentModel.UNIQUE), count=4, frames=16, policy=policy("Fixed", to=0))
    fabric, _ = simulated(replace(kinds, ksm=KsmSpec(run=0), passes=1))
    used = [node.state.frames.used for node in fabric.host.nodes.values()]
    assert sum(used) == 60
    assert used[0] == 16
    assert max(used[1:]) == 15


def test_memory_runs_out_only_if_all_nodes_are_full() -> None:
    full = spec(RegionSpec("own", 16, ContentModel.UNIQUE), count=4, frames=16, policy=policy("InTurn"))
    fabric, _ = simulated(replace(full, ksm=KsmSpec(run=0), passes=1))
    assert [node.state.frames.used for node in fabric.host.nodes.values()] == [16] * 4
    with pytest.raises(Exception, match="finds no free frame on any node"):
        simulated(
            spec(RegionSpec("own", 17, ContentModel.UNIQUE), count=4, frames=16, policy=policy("InTurn"))
        )


def test_policies_are_told_of_regions_processes_and_free_frames() -> None:
    kinds = spec(RegionSpec("own", 10, ContentModel.UNIQUE), count=8, policy=policy("Fixed", to=1))
    of_region = replace(kinds.processes[0].regions[0], policy=policy("InTurn"))
    kinds = replace(kinds, processes=(replace(kinds.processes[0], regions=(of_region,)),), passes=1)
    fabric, _ = simulated(replace(kinds, ksm=KsmSpec(run=0)))
    policies = fabric.host.nodes[2]._allocator._policies
    told = policies[policy("InTurn")].policy.told  # type: ignore[attr-defined]
    assert [(name, process) for name, process, _ in told] == [("own", 0), ("own", 1)]
    assert told[0][2] <= 500
    assert told[1][2] < told[0][2]


def test_a_state_that_cannot_be_kept() -> None:
    fabric, _ = simulated(replace(spec(region("Unwritable")), passes=1))
    with pytest.raises(
        EncodeError,
        match="Unwritable, attribute generator: no checkpoint can hold the state of a builtins:generator",
    ):
        fabric.host.state(0)


def test_ids_are_own_or_shared() -> None:
    numbers = np.arange(100, dtype=np.uint64)
    other = REGION._replace(process=1)
    assert np.array_equal(REGION.shared_ids(numbers), other.shared_ids(numbers))
    own = [r.own_ids(numbers) for r in (REGION, other, REGION._replace(worker=1), REGION._replace(name="x"))]
    assert len(np.unique(np.concatenate([*own, REGION.shared_ids(numbers)]))) == 500
    assert not np.array_equal(REGION.shared_ids(numbers), content_ids("plugin", 2, numbers=numbers))
