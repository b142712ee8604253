"""Workload models: what the pages of a region hold at the start, and how they are written over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import U64, empty
from cluster.plugins.answers import check_array, check_range
from cluster.plugins.loading import PluginError, call, make
from cluster.spec.keyed import content_ids, stream
from cluster.spec.plugin import PageWrites, PluginSpec
from cluster.spec.scenario import ProcessSpec, RegionSpec, SimulationSpec


class ModelRegion(NamedTuple):
    """The region of one process for which a workload model works."""

    #: Names of the region, and of the kind of its process.
    name: str
    kind: str
    #: 4 KiB pages, numbered 0, 1, ...
    pages: int
    #: Number of the process in its kind; of a worker, that of its parent.
    process: int
    #: Number of the worker, from 1; 0 for a process that is no worker.
    worker: int
    #: The node of the process, and the nodes of the machine.
    node: int
    nodes: int
    #: `simulation.seed`.
    seed: int

    def stream(self, *names: object) -> np.random.Generator:
        """Return a generator that depends on the seed, the process, the region and these names alone."""
        return stream("plugin", self.seed, self.kind, self.process, self.worker, self.name, *names)

    def own_ids(self, numbers: U64, *names: object) -> U64:
        """Return ids that no other region has; equal for equal names and numbers. uint64[n] -> uint64[n]."""
        of_process = "plugin", self.seed, self.kind, self.process, self.worker, self.name
        return content_ids(*of_process, *names, numbers=numbers)

    def shared_ids(self, numbers: U64, *names: object) -> U64:
        """Return ids that are the same in every process; equal for equal names and numbers. uint64[n]."""
        return content_ids("plugin", self.seed, *names, numbers=numbers)


class WorkloadModel:
    """The base class of workload models. There is one object for each region of each process.

    Contents are ids: pages with equal ids have equal bytes, wherever they are; id 0 is a page of zeros.
    Answers must depend on the arguments and on earlier calls of the object alone. Random numbers come from
    `region.stream`.
    """

    #: How often a page is written in a simulated second, at most, with contents that other pages may hold.
    #: The passes of ksmd are divided into windows by it. 0: all contents that are written are unique.
    merging_rate: float = 0.0

    def __init__(self, region: ModelRegion) -> None:
        self.region = region

    def contents(self) -> U64:
        """Return the contents of all pages at the start. uint64[pages].

        Writes with `content = "original"` ask again. Workers share the pages of their parent, which is asked.
        """
        raise NotImplementedError

    def writes(self, start: float, stop: float) -> PageWrites:
        """Return the writes of the interval [start, stop) of simulated time, in seconds.

        Intervals follow each other without a gap; the first one begins at 0.
        """
        return PageWrites(empty(), None)


class CheckedModel:
    """A workload model, whose answers are checked. Raises PluginError."""

    def __init__(self, plugin: PluginSpec, region: ModelRegion) -> None:
        self._who = f"workload model {plugin.name!r}"
        self._pages = region.pages
        self.model = make("workload model", plugin, WorkloadModel, region)
        rate = self.model.merging_rate
        if not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
            raise PluginError(f"{self._who}: merging_rate is {rate!r}, not a number from 0")

    def contents(self) -> U64:
        """Return the contents of all pages at the start. uint64[pages]."""
        found = call(self._who, self.model.contents)
        check_array(f"{self._who}: contents()", found, np.uint64, self._pages)
        return found.copy()

    def writes(self, start: float, stop: float) -> PageWrites:
        """Return the writes of an interval."""
        answer, who = call(self._who, self.model.writes, start, stop), f"{self._who}: writes()"
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise PluginError(f"{who} returned {type(answer).__name__}, not PageWrites(pages, ids)")
        pages, ids = answer
        check_array(f"{who}, pages", pages, np.int64)
        check_range(f"{who}, pages", pages, self._pages)
        if (pages[1:] <= pages[:-1]).any():
            raise PluginError(f"{who}: pages do not ascend, or one is there twice; np.unique sorts them")
        if ids is not None:
            check_array(f"{who}, ids", ids, np.uint64, len(pages))
        return PageWrites(pages.copy(), None if ids is None else ids.copy())


def make_models(spec: SimulationSpec, node: int) -> dict[tuple[str, str, int, int], CheckedModel]:
    """Return the models of a node's processes, by kind, region, process and worker."""
    return {
        (kind.name, region.name, process, worker): CheckedModel(
            region.plugin,
            model_region(spec, kind, region, node, process, worker),
        )
        for kind in spec.processes
        for region in kind.regions
        if region.plugin
        for process in np.flatnonzero(kind.placed(spec.machine.nodes) == node).tolist()
        for worker in range(1 + kind.workers)
    }


def model_region(
    spec: SimulationSpec, kind: ProcessSpec, region: RegionSpec, node: int, process: int, worker: int
) -> ModelRegion:
    """Return what a model is told of the region of a process."""
    place = node, spec.machine.nodes, spec.seed
    return ModelRegion(region.name, kind.name, region.pages, process, worker, *place)
