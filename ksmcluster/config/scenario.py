"""The whole scenario, and the checks that need more than one of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cluster.arrays.words import MAX_MMS_PER_NODE
from cluster.spec.scenario import SimulationSpec
from ksmcluster.config.compaction import DriverConfig
from ksmcluster.config.ksmd import CostConfig, KsmConfig
from ksmcluster.config.machine import MachineConfig
from ksmcluster.config.migration import KsmMigrationConfig, migration_problems
from ksmcluster.config.overrides import ENDS, UNTIL_CONVERGED
from ksmcluster.config.problems import refusal
from ksmcluster.config.processes import ProcessConfig, repeated
from ksmcluster.config.tables import ConfigTable, Passes, Seed, Share, TimeSpan, Title, key

SPEC: dict[str, Any] = {field.name: field.default for field in fields(SimulationSpec)}


class SimulationConfig(ConfigTable):
    """The run."""

    title: Title = key("", "Heading of the report.")
    seed: Seed = key(SPEC["seed"], "The same seed and scenario give the same result, byte for byte.")
    passes: Passes | None = key(
        SPEC["passes"], "Full passes of ksmd over all memory; not with `seconds` or `until`."
    )
    seconds: TimeSpan | None = key(
        None,
        "Simulated time at which the run ends; the current pass is completed. Instead of `passes`.",
        "s of simulated time",
    )
    until: Literal["converged"] | None = key(
        None,
        "The run ends once its figures stop changing: see docs/explanation/model.md. Instead of `passes`.",
    )
    tolerance: Share | None = key(
        None, "The largest change that counts as none, as a share of the mapped pages; by default 0.001."
    )
    most_passes: Passes | None = key(None, "The most passes of a run until it has converged; by default 100.")
    windows_per_pass: Passes | None = key(
        None,
        "Number of parts of a pass; the processes write to their memory between them. By default as many "
        "as the writes need: see docs/explanation/model.md.",
    )

    @model_validator(mode="after")
    def _settle(self) -> Self:
        ends = [name for name in ENDS if name in self.model_fields_set]
        if len(ends) > 1:
            text = f"says when the run ends, and so does {ends[0]}; give only one"
            raise refusal([(ends[1], text)])
        for name, default in UNTIL_CONVERGED.items():
            if self.until and getattr(self, name) is None:
                setattr(self, name, default)
            elif not self.until and getattr(self, name) is not None:
                raise refusal([(name, 'has no meaning without until = "converged"')])
        if self.seconds or self.until:
            self.passes = None
        return self

    @property
    def last_pass(self) -> int | None:
        """Return the most passes of the run; None if there is no limit."""
        return self.passes or self.most_passes


class Scenario(ConfigTable):
    """A scenario of `ksmcluster simulate`. Returned by `ksmcluster.config.load`."""

    simulation: SimulationConfig = Field(default_factory=lambda: SimulationConfig(), description="The run.")
    machine: MachineConfig = Field(description="The NUMA machine.")
    ksm: KsmConfig = Field(default_factory=lambda: KsmConfig(), description="ksmd.")
    cost: CostConfig = Field(default_factory=lambda: CostConfig(), description="Cost of ksmd's work.")
    migration: KsmMigrationConfig | None = Field(None, description="Compaction; none by default.")
    driver: Annotated[tuple[DriverConfig, ...], Field(strict=False)] | None = key(
        None, "Drivers that also fill memory; only with a table [migration]."
    )
    process: Annotated[tuple[ProcessConfig, ...], Field(strict=False)] = key(..., "Kinds of processes.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [
            (f"process[{i}].name", text) for i, text in repeated([process.name for process in self.process])
        ]
        if not self.process:
            problems.append(("process", "is empty; add a [[process]]"))
        problems += self._absent_nodes()
        problems += self._crowded_nodes()
        problems += self._absent_passes()
        problems += [
            (f"process[{i}].snapshot", 'has digests but no bytes; it needs machine.content = "symbolic"')
            for i, process in enumerate(self.process)
            if process.snapshot and self.machine.content == "bytes"
        ]
        problems += self._different_pools()
        problems += migration_problems(self.machine, self.migration, self.driver or ())
        if problems:
            raise refusal(problems)
        return self

    def _absent_nodes(self) -> Iterator[tuple[str, str]]:
        nodes = self.machine.nodes
        for i, process in enumerate(self.process):
            policies = {f"process[{i}]": process.policy}
            policies |= {
                f"process[{i}].region[{j}]": region.policy
                for j, region in enumerate(process.region)
                if region.policy
            }
            for path, policy in policies.items():
                if absent := policy.absent(nodes):
                    last = f"the last is {nodes - 1}" if nodes > 1 else "the only one is 0"
                    yield f"{path}.policy.nodes", f"there is no node {absent[0]}; {last}"

    def _crowded_nodes(self) -> Iterator[tuple[str, str]]:
        """Yield the kind that has most of the processes of a node, if these are too many."""
        kinds = [process.on_nodes(self.machine.nodes) for process in self.process]
        on_node = [sum(of_kinds) for of_kinds in zip(*kinds, strict=True)]
        most = max(on_node, default=0)
        if most > MAX_MMS_PER_NODE:
            node = on_node.index(most)
            i = max(range(len(kinds)), key=lambda kind: kinds[kind][node])
            key = "count" if self.process[i].count is not None else "per_node"
            key = "workers" if self.process[i].workers else key
            text = f"there would be {most:,} processes on node {node}; the most is {MAX_MMS_PER_NODE:,}"
            yield f"process[{i}].{key}", text

    def _absent_passes(self) -> Iterator[tuple[str, str]]:
        for i, relocation in enumerate(self.migration.relocate if self.migration else ()):
            last = self.simulation.last_pass
            if last is not None and relocation.after_pass > last:
                path = f"migration.relocate[{i}].after_pass"
                yield path, f"there is no pass {relocation.after_pass}; the last is {last}"

    def _different_pools(self) -> Iterator[tuple[str, str]]:
        sizes: dict[str, tuple[int | None, str]] = {}
        for i, process in enumerate(self.process):
            for j, region in enumerate(process.region):
                if region.pool is None:
                    continue
                path = f"process[{i}].region[{j}]"
                distinct, first = sizes.setdefault(region.pool, (region.distinct, path))
                if distinct != region.distinct:
                    text = f'pool "{region.pool}" has distinct = {distinct} in {first}'
                    yield f"{path}.distinct", text
