"""Classes of users' packages give the same results with whatever actors, also after a checkpoint."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from actors.checkpoint.keeper import CheckpointKeeper, Interval
from actors.run_options import INLINE, RunOptions
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import Event, PassDone, PassResult
from cluster.plugins.loading import PluginError
from cluster.plugins.workload_model import WorkloadModel
from cluster.spec.plugin import PluginSpec
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    PolicyMode,
    PolicySpec,
    ProcessSpec,
    RegionSpec,
    Rewrite,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import ring
from tests.actors.test_engine import same
from tests.cluster.plugins.models import HERE


def _region(name: str, pages: int, **keys: object) -> RegionSpec:
    plugin = PluginSpec(f"{HERE}:{name}")
    return replace(RegionSpec(name, pages, ContentModel.PLUGIN, plugin=plugin), **keys)  # type: ignore[arg-type]


_IN_TURN = PolicySpec(PolicyMode.PLUGIN, plugin=PluginSpec(f"{HERE}:InTurn"))
REGIONS = (
    _region("Ring", 40, merging_rate=5.0, policy=_IN_TURN),
    _region("Same", 30),
    _region(
        "Quiet", 600, huge_pages=1.0, policy=_IN_TURN, writes=(WriteSpec(2.0, content=Rewrite.ORIGINAL),)
    ),
    RegionSpec("own", 50, ContentModel.UNIQUE, writes=(WriteSpec(1.0),)),
)
SPEC = SimulationSpec(
    MachineSpec(4, 4000, ring(4, 10)),
    KsmSpec(pages_to_scan=500),
    (ProcessSpec("rank", 6, REGIONS, workers=1, policy=_IN_TURN),),
    passes=5,
)


@pytest.fixture(scope="module")
def undisturbed() -> list[PassResult]:
    return list(run_passes(SPEC, INLINE))


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 1), (1, 0), (0, 0)])
def test_a_run_goes_on_with_other_actors(
    ray_cluster: str, tmp_path: Path, undisturbed: list[PassResult], first: int, then: int
) -> None:
    """`first` and `then` are nodes of an actor; 0 is the inline engine."""
    before, after = (
        RunOptions(address=ray_cluster, nodes_per_actor=packed) if packed else INLINE
        for packed in (first, then)
    )
    keeper = CheckpointKeeper(tmp_path, {}, Interval(steps=2))
    with closing(run_passes(SPEC, before, checkpoints=keeper)) as run:
        assert same([next(run), next(run)], undisturbed[:2])
    events: list[Event] = []
    made = list(run_passes(SPEC, after, checkpoints=keeper, on_event=events.append))
    assert same(undisturbed, made)
    assert next(event.result.number for event in events if isinstance(event, PassDone)) == 3


def test_errors_of_actors_are_those_of_this_process(ray_cluster: str) -> None:
    failing = replace(SPEC, processes=(ProcessSpec("rank", 6, (_region("Failing", 40),)),))
    said = []
    for options in (INLINE, RunOptions(address=ray_cluster)):
        with pytest.raises(PluginError) as error:
            list(run_passes(failing, options))
        assert "in writes" in error.value.__notes__[0]
        said.append(str(error.value))
    assert said[0] == said[1]
    assert re.fullmatch(r"workload model '.*Failing': KeyError: .* \(models.py, line \d+\)", said[0])


def test_a_module_that_actors_do_not_find(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ModuleType("only_here")
    here.Model = type("Model", (WorkloadModel,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", here)
    region = RegionSpec("heap", 5, ContentModel.PLUGIN, plugin=PluginSpec("only_here:Model"))
    spec = replace(SPEC, processes=(ProcessSpec("rank", 4, (region,)),))
    with pytest.raises(
        PluginError, match="'only_here:Model': No module named 'only_here'; install the"
    ) as error:
        list(run_passes(spec, RunOptions(address=ray_cluster)))
    assert "\n" not in str(error.value)
