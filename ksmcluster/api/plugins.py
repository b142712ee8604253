"""Checks of the plug-in classes that a scenario names, before a run starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.spec.compaction import DriverSpec
from cluster.spec.scenario import ProcessSpec, RegionSpec, SimulationSpec
from ksmcluster.api.running import one_line
from ksmcluster.config import Scenario, to_spec
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    from ksmcluster.config.compaction import CompactionScenario


def try_plugins(scenario: Scenario | CompactionScenario) -> None:
    """Create an object of each plug-in class of a scenario. Raises UserError if one cannot be created."""
    if isinstance(scenario, Scenario):
        with_plugins(to_spec(scenario))
        return
    from ksmcluster.config.compaction import to_compaction_spec

    try_drivers(to_compaction_spec(scenario).drivers)


def with_plugins(spec: SimulationSpec) -> SimulationSpec:
    """Create an object of each plug-in class; return the spec with the merging rates of the models.

    Raises UserError if an object cannot be created.
    """
    try_drivers(spec.migration.drivers if spec.migration else ())
    with one_line():
        _try_policies(spec)
        if not any(region.plugin for kind in spec.processes for region in kind.regions):
            return spec
        processes = (replace(kind, regions=_regions(spec, kind)) for kind in spec.processes)
        return replace(spec, processes=tuple(processes))


def try_drivers(drivers: Iterable[DriverSpec]) -> None:
    """Create an object of each plug-in driver. Raises UserError if one cannot be created."""
    for driver in drivers:
        if ":" in driver.kind:
            from ksmcluster.config.compaction import try_driver

            with one_line():
                try:
                    try_driver(driver.kind, dict(driver.settings))
                except ValueError as error:
                    raise UserError(f"driver {driver.kind!r}: {error}") from error


def _try_policies(spec: SimulationSpec) -> None:
    if any(policy.plugin for kind in spec.processes for policy in kind.policies):
        from cluster.plugins.placement_policy import make_policies

        make_policies(spec, 0)


def _regions(spec: SimulationSpec, kind: ProcessSpec) -> tuple[RegionSpec, ...]:
    """Return the regions of a process kind, with the merging rates of their models."""
    from cluster.plugins.workload_model import CheckedModel, model_region

    def known(region: RegionSpec) -> RegionSpec:
        if region.plugin is None:
            return region
        model = CheckedModel(region.plugin, model_region(spec, kind, region, 0, 0, 0)).model
        return replace(region, merging_rate=float(model.merging_rate))

    return tuple(map(known, kind.regions))
