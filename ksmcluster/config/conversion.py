"""Converts a checked scenario to the spec of the simulated machine."""

from __future__ import annotations

from cluster.spec import scenario as spec
from cluster.spec.compaction import CompactionSpec
from cluster.spec.plugin import PluginSpec
from ksmcluster.config.ksmd import KsmConfig, to_cost
from ksmcluster.config.machine import MachineConfig
from ksmcluster.config.migration import to_migration_spec
from ksmcluster.config.processes import PolicyConfig, ProcessConfig, RegionConfig, WriteConfig
from ksmcluster.config.scenario import Scenario
from ksmcluster.config.tables import Settings


def to_spec(scenario: Scenario) -> spec.SimulationSpec:
    """Return the spec of a scenario, which the simulation takes."""
    simulation = scenario.simulation
    return spec.SimulationSpec(
        machine=_machine(scenario.machine),
        ksm=_ksm(scenario.ksm),
        processes=tuple(_process(process, scenario.machine.nodes) for process in scenario.process),
        seed=simulation.seed,
        passes=simulation.last_pass,
        seconds=simulation.seconds,
        tolerance=simulation.tolerance,
        windows_per_pass=simulation.windows_per_pass,
        cost=to_cost(scenario.cost),
        migration=_migration(scenario),
        relocations=tuple(r.to_spec() for r in scenario.migration.relocate) if scenario.migration else (),
    )


def _migration(scenario: Scenario) -> CompactionSpec | None:
    if scenario.migration is None:
        return None
    seed = scenario.simulation.seed
    return to_migration_spec(scenario.machine, scenario.migration, scenario.driver or (), seed)


def _machine(machine: MachineConfig) -> spec.MachineSpec:
    return spec.MachineSpec(
        nodes=machine.nodes,
        frames_per_node=machine.memory_per_node,
        distance=machine.topology.build(machine.nodes),
        content=machine.content,
    )


def _ksm(ksm: KsmConfig) -> spec.KsmSpec:
    knobs = ksm.model_dump(exclude_none=True)
    # A kernel without these knobs behaves like one in which they are off.
    return spec.KsmSpec(**{"use_zero_pages": 0, "smart_scan": 0, **knobs})


def _process(process: ProcessConfig, nodes: int) -> spec.ProcessSpec:
    return spec.ProcessSpec(
        name=process.name,
        count=process.total(nodes),
        regions=tuple(_region(region, nodes) for region in process.region),
        workers=process.workers,
        policy=_policy(process.policy, nodes),
        snapshot=process.snapshot,
        replay_interval=process.replay_interval,
        huge_pages=process.huge_pages != "none",
        clones=spec.Clones(process.clones or spec.Clones.DISTINCT),
        advice=spec.Advice(process.advice) if process.advice else None,
    )


def _policy(policy: PolicyConfig, nodes: int) -> spec.PolicySpec:
    named = policy.nodes or ()
    if policy.kind == "interleave" and not named:
        named = tuple(range(nodes))
    if plugin := _plugin(policy.kind, policy.settings):
        return spec.PolicySpec(spec.PolicyMode.PLUGIN, plugin=plugin)
    return spec.PolicySpec(spec.PolicyMode(policy.kind), named)


def _plugin(name: str, settings: Settings | None) -> PluginSpec | None:
    """Return the plug-in class that a key names; None if it names something else."""
    return PluginSpec(name, tuple((settings or {}).items())) if ":" in name else None


def _region(region: RegionConfig, nodes: int) -> spec.RegionSpec:
    given = region.model_dump(
        include={"name", "mergeable", "pinned", "huge_pages", "copies", "pool", "distinct", "exponent"},
        exclude_none=True,
    )
    plugin = _plugin(region.model, region.settings)
    return spec.RegionSpec(
        **given,
        pages=region.size,
        model=spec.ContentModel.PLUGIN if plugin else spec.ContentModel(region.model),
        plugin=plugin,
        policy=_policy(region.policy, nodes) if region.policy else None,
        scope=spec.Scope(region.scope or spec.Scope.MACHINE),
        law=spec.Law(region.law or spec.Law.UNIFORM),
        writes=tuple(_write(write) for write in region.write),
    )


def _write(write: WriteConfig) -> spec.WriteSpec:
    return spec.WriteSpec(**{**write.model_dump(), "content": spec.Rewrite(write.content)})
