"""The result of a simulation: in memory, and as files.

docs/reference/results.md describes every number; its tables are generated from `cluster.spec.statistics` and
from DERIVED and TIMING below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cluster.compaction.scenario.relocation_result import RelocationResult
from cluster.machine.census import EMPTY
from cluster.machine.pass_result import PassResult
from cluster.spec.captured_pages import CapturedProcess
from cluster.spec.content import PAGE_SIZE
from cluster.spec.knobs import RMAP_ITEM_SIZE
from cluster.spec.statistics import COUNTERS, GAUGES, NODE_NAMES, SCHEMA_VERSION, Statistic
from cluster.spec.topology import Distances
from ksmcluster.config import Scenario
from ksmcluster.config.problems import did_you_mean
from ksmcluster.report.console import as_text
from ksmcluster.report.simulation_report import report
from ksmcluster.results import advisor_target, huge_pages, processes
from ksmcluster.results.columns import ColumnTable
from ksmcluster.results.compaction import pass_compaction, relocations
from ksmcluster.results.directory import (
    MAPPINGS,
    NODE_PAIRS,
    PASSES,
    PROCESSES,
    RELOCATIONS,
    write_directory,
)
from ksmcluster.results.headline import HEADLINE, headline
from ksmcluster.results.identity import config_digest
from ksmcluster.results.node_pairs import NodePairs, node_pairs
from ksmcluster.results.processes import CensusTable
from ksmcluster.results.provenance import provenance
from ksmcluster.results.timing import Timing
from ksmcluster.system.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from ksmcluster.report.plots.picture import Picture

DERIVED = (
    *HEADLINE,
    Statistic("memory_before_bytes", "bytes", "memory that would be in use without KSM: frames_without_ksm"),
    Statistic("memory_after_bytes", "bytes", "memory in use at the end: frames_used"),
    Statistic("saved_bytes", "bytes", "saved at the end: before - after"),
    Statistic("saved_fraction", "", "saved / before"),
    Statistic(
        "general_profit_bytes",
        "bytes",
        "pages_sharing + ksm_zero_pages, minus 64 bytes for each of rmap_items, as in the kernel; "
        "below 0, KSM costs more memory than it saves",
    ),
    Statistic(
        "ksm_mappings_remote_fraction", "", "ksm_mappings_remote / ksm_mappings; null if there are none"
    ),
    Statistic(
        "ksm_mappings_mean_distance",
        "SLIT units",
        "ksm_mappings_distance / ksm_mappings; null if there are none",
    ),
    Statistic("simulated_seconds", "s", "simulated time from the start of ksmd to the end of the last pass"),
    Statistic("ksmd_cpu_seconds", "s", "simulated CPU time of ksmd, sum of all threads: ksmd_cpu_ns"),
    Statistic("cow_ksm_per_second", "1/s", "cow_ksm / simulated_seconds; null if no time passes"),
    Statistic("cow_ksm_seconds", "s", "time that programs spent in these faults: cow_ksm * cow_fault_ns"),
)

TIMING = (
    Statistic("engine", "", "`ray` or `inline`"),
    Statistic("nodes_per_actor", "", "NUMA nodes that share an actor; null for the inline engine"),
    Statistic("cores", "", "CPUs that the run could use; null if it joined a Ray cluster"),
    Statistic("wall_seconds", "s", "from the start to the end of the simulation"),
    Statistic("start_seconds", "s", "... part of it before the first pass: the start of Ray and the actors"),
    Statistic("pass_seconds", "s", "a list: time of each pass"),
    Statistic("mail_bytes", "bytes", "a list: what actors sent to other actors in each pass"),
    Statistic("pages_per_second", "pages/s", "pages_scanned / time of all passes"),
)


class PassTable(ColumnTable):
    """Columns: `pass`, `node`, each of `statistics.NODE_NAMES`, and the columns of compaction, if any.

    One row per pass and node; all int64.
    """


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """The result of a simulation.

    Examples:
        >>> result = ksmcluster.simulate("tiny", engine="inline")
        >>> print(result)
        >>> result.summary["derived"]["saved_bytes_mean"]
        >>> result.passes.to_pandas()  # needs pandas
    """

    #: The scenario, with defaults and changes.
    config: Scenario
    #: One row per pass and node.
    passes: PassTable
    #: The contents of summary.json.
    summary: dict[str, Any]
    #: The contents of provenance.json: how and where it was simulated, and the time that this took.
    provenance: dict[str, Any]
    #: One row per process at the end of the run: kind, index in the kind and node; name and PID if it was
    #: captured; `statistics.OF_PROCESS`.
    processes: CensusTable
    #: The same per name of mappings, by kind and captured name.
    mappings: CensusTable
    #: One row per pair of nodes, of which processes on one map KSM frames of the other at the end of the run.
    node_pairs: NodePairs
    #: The moves between nodes, in the order in which they happened.
    relocated: tuple[RelocationResult, ...] = ()

    @classmethod
    def of(
        cls,
        config: Scenario,
        passes: Sequence[PassResult],
        timing: Timing,
        notes: Sequence[str] = (),
        captured: Sequence[Sequence[CapturedProcess]] = (),
        digest: str | None = None,
    ) -> Result:
        """Return the result of the passes.

        `notes`: notes on the result, a line each; `captured`: the captured processes of each kind; `digest`:
        the digest of the scenario, if it was computed before the run.
        """
        table = _table(passes)
        if config.migration is not None:
            table |= pass_compaction.columns(config.migration, passes)
        relocated = tuple(done for result in passes for done in result.relocated)
        # A run that ended before its last pass has no census.
        is_complete = passes[-1].census is not None
        census = passes[-1].census or EMPTY
        kinds = [process.name for process in config.process]
        names = kinds, captured or [()] * len(kinds)
        summary = _summary(config, passes, table, digest or config_digest(config))
        spent = _timing(timing, passes, summary["counters"]["pages_scanned"]) | _driven(config, timing)
        by_pass = summary["by_pass"]
        counters = summary["counters"]
        advisor = advisor_target.notes(config.ksm, by_pass["simulated_seconds"], by_pass["windows"])
        saved = summary["derived"]["saved_bytes"]
        huge = huge_pages.summary(counters, census, saved) if is_complete else {}
        summary |= {
            "ksm_frame_mappings": processes.frame_mappings(census),
            **huge,
            "notes": [*notes, *advisor, *huge_pages.notes(huge.get("huge_pages", {}))],
        }
        of_each = processes.processes(*names, census), processes.mappings(*names, census)
        pairs = node_pairs(census.ksm_mappings, _distance(config))
        return cls(config, table, summary, provenance(spent), *of_each, pairs, relocated)

    def by_node(self, name: str) -> NDArray[np.int64]:
        """Return a statistic as int64[passes, nodes]. Raises UserError for an unknown name."""
        if name not in self.passes:
            hint = did_you_mean(name, list(self.passes)) or f"; choose one of {', '.join(self.passes)}"
            raise UserError(f"by_node: there is no statistic {name}{hint}")
        return self.passes[name].reshape(-1, self.config.machine.nodes)

    def summary_json(self) -> str:
        """Return the text of summary.json."""
        return json.dumps(self.summary, indent=2) + "\n"

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables that `save` writes, by file name."""
        tables = {
            PASSES: self.passes.to_arrow(),
            PROCESSES: self.processes.to_arrow(),
            MAPPINGS: self.mappings.to_arrow(),
            NODE_PAIRS: self.node_pairs.to_arrow(),
        }
        if self.relocated:
            tables[RELOCATIONS] = relocations.table(self.relocated, self.distance)
        return tables

    @property
    def distance(self) -> Distances:
        """Distances between the nodes."""
        return _distance(self.config)

    def plot(self, kind: str = "memory", *, statistic: str | None = None) -> Picture:
        """Draw a picture of this kind, as `ksmcluster plot` does: a matplotlib figure.

        `statistic` is the column of `passes` that the kind "nodes" shows. Raises UserError if this result has
        no such picture, or matplotlib is not installed.
        """
        from ksmcluster.report.plots.kinds import picture
        from ksmcluster.report.run_data import of_result

        return picture(kind, [of_result(self)], statistic)

    def save(self, directory: str | Path) -> None:
        """Write summary.json, provenance.json, config.toml and the tables; if that fails, write nothing.

        An earlier output is replaced. Raises UserError if the directory has any other files, or if it is the
        working directory.
        """
        write_directory(Path(directory), self)

    def __str__(self) -> str:
        return as_text(report(self))

    def _repr_html_(self) -> str:
        from ksmcluster.report.html.cell import cell
        from ksmcluster.report.run_data import of_result

        return cell(of_result(self))

    def __repr__(self) -> str:
        machine, saved = self.config.machine, self.summary["derived"]["saved_bytes_mean"]
        return f"<Result: {machine.nodes} nodes, {self.summary['passes']} passes, {saved:.0f} bytes saved>"


def _distance(config: Scenario) -> Distances:
    return config.machine.topology.build(config.machine.nodes)


def _table(passes: Sequence[PassResult]) -> PassTable:
    nodes = len(passes[0].nodes[NODE_NAMES[0]])
    table = PassTable()
    table["pass"] = np.repeat(np.array([result.number for result in passes], dtype=np.int64), nodes)
    table["node"] = np.tile(np.arange(nodes, dtype=np.int64), len(passes))
    for name in NODE_NAMES:
        table[name] = np.concatenate([result.nodes[name] for result in passes])
    return table


def _summary(config: Scenario, passes: Sequence[PassResult], table: PassTable, digest: str) -> dict[str, Any]:
    by_pass = {name: table[name].reshape(len(passes), -1).sum(axis=1) for name in NODE_NAMES}
    gauges = {s.name: int(by_pass[s.name][-1]) for s in GAUGES}
    counters = {s.name: int(by_pass[s.name].sum()) for s in COUNTERS}
    totals = gauges | counters
    seconds = [result.simulated_seconds for result in passes]
    mean = headline(seconds, saved_bytes(by_pass), by_pass["frames_used"] * PAGE_SIZE)
    return {
        "schema_version": SCHEMA_VERSION,
        "title": config.simulation.title,
        "config_digest": digest,
        "seed": config.simulation.seed,
        "kernel": config.ksm.kernel,
        "nodes": config.machine.nodes,
        "passes": len(passes),
        "complete": passes[-1].census is not None,
        "gauges": gauges,
        "counters": counters | {"full_scans": passes[-1].full_scans},
        "derived": mean | _derived(totals, seconds[-1]) | _faults(config, totals, seconds[-1]),
        "by_pass": {
            "full_scans": [result.full_scans for result in passes],
            "simulated_seconds": seconds,
            "scan_seconds": np.diff(seconds, prepend=0.0).tolist(),
            "ksmd_cpu_seconds": (by_pass["ksmd_cpu_ns"] / 1e9).tolist(),
            "saved_bytes": saved_bytes(by_pass).tolist(),
            "bytes_sent": by_pass["bytes_sent"].tolist(),
            "pages_to_scan": [result.pages_to_scan for result in passes],
            "windows": [result.windows for result in passes],
        },
        **_migration(config, passes),
    }


T = TypeVar("T", int, NDArray[np.int64])


def saved_bytes(totals: Mapping[str, T]) -> T:
    """Return how much more memory would be in use if ksmd had merged nothing."""
    return (totals["frames_without_ksm"] - totals["frames_used"]) * PAGE_SIZE


def _migration(config: Scenario, passes: Sequence[PassResult]) -> dict[str, Any]:
    if config.migration is None:
        return {}
    return {"migration": pass_compaction.summary(config.migration, config.machine.nodes, passes)}


def _driven(config: Scenario, timing: Timing) -> dict[str, Any]:
    if config.migration is None:
        return {}
    return {"migration_actors": timing.migration_actors}


def _derived(totals: dict[str, int], simulated_seconds: float) -> dict[str, float | None]:
    saved = saved_bytes(totals)
    after = totals["frames_used"] * PAGE_SIZE
    mappings = totals["ksm_mappings"]
    # After writes, the kernel's counter is outdated until ksmd visits the page.
    profit = (totals["pages_sharing"] + totals["ksm_zero_pages"]) * PAGE_SIZE
    return {
        "memory_before_bytes": after + saved,
        "memory_after_bytes": after,
        "saved_bytes": saved,
        "saved_fraction": saved / (after + saved) if saved else 0.0,
        "general_profit_bytes": profit - RMAP_ITEM_SIZE * totals["rmap_items"],
        "ksm_mappings_remote_fraction": totals["ksm_mappings_remote"] / mappings if mappings else None,
        "ksm_mappings_mean_distance": totals["ksm_mappings_distance"] / mappings if mappings else None,
        "simulated_seconds": simulated_seconds,
        "ksmd_cpu_seconds": totals["ksmd_cpu_ns"] / 1e9,
    }


def _faults(config: Scenario, totals: dict[str, int], seconds: float) -> dict[str, float | None]:
    """Return the cost of writes to KSM pages for the programs."""
    faults = totals["cow_ksm"]
    return {
        "cow_ksm_per_second": faults / seconds if seconds else None,
        "cow_ksm_seconds": faults * config.cost.cow_fault_ns / 1e9,
    }


def _timing(timing: Timing, passes: Sequence[PassResult], scanned: int) -> dict[str, Any]:
    seconds = [result.wall_seconds for result in passes]
    return {
        "engine": timing.engine,
        "nodes_per_actor": timing.nodes_per_actor,
        "cores": timing.cores,
        "wall_seconds": timing.wall_seconds,
        "start_seconds": timing.start_seconds,
        "pass_seconds": seconds,
        "mail_bytes": [result.mail_bytes for result in passes],
        "pages_per_second": scanned / sum(seconds) if sum(seconds) else None,
    }
