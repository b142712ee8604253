"""Classes as users write them, which tests name in scenarios; Ray actors import them, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.arrays.words import I64, U64
from cluster.plugins.placement_policy import PageFaults, PlacementPolicy, PolicyNode
from cluster.plugins.workload_model import ModelRegion, PageWrites, WorkloadModel

HERE = "tests.cluster.plugins.models"


class Cursor:
    """A part of a model's state that is an object."""

    def __init__(self, at: int) -> None:
        self.at = at


class Ring(WorkloadModel):
    """Writes `step` pages an interval; every other one holds its number in all processes."""

    merging_rate = 2.0

    def __init__(self, region: ModelRegion, *, step: int = 7) -> None:
        super().__init__(region)
        self.step = step
        self.cursors = [Cursor(region.process)]
        self.rng = region.stream("offsets")
        self.log: list[tuple[float, float]] = []
        self.as_number = int

    def contents(self) -> U64:
        return np.arange(self.region.pages, dtype=np.uint64) // np.uint64(2)

    def writes(self, start: float, stop: float) -> PageWrites:
        self.log.append((start, stop))
        # Objects that come later, and a generator that goes on.
        self.cursors.append(Cursor(self.cursors[-1].at + self.step + int(self.rng.integers(3))))
        numbers = np.arange(self.cursors[-2].at, self.cursors[-1].at)
        pages, index = np.unique(numbers % self.region.pages, return_index=True)
        ids = numbers[index].astype(np.uint64) + np.uint64(1000)
        own = self.region.own_ids(ids)
        return PageWrites(pages, np.where(self.as_number(self.step) and ids % 2 == 0, ids, own))


class Quiet(WorkloadModel):
    """Writes nothing."""

    def contents(self) -> U64:
        return self.region.shared_ids(np.arange(self.region.pages, dtype=np.uint64))


class Same(Quiet):
    """Writes what the pages hold."""

    def writes(self, start: float, stop: float) -> PageWrites:
        return PageWrites(np.arange(self.region.worker, self.region.pages, 3), None)


class InTurn(PlacementPolicy):
    """Each page goes to the next node, whoever asks."""

    def __init__(self, node: PolicyNode) -> None:
        super().__init__(node)
        self.turn = node.node
        self.told: list[tuple[str, int, int]] = []

    def nodes_for(self, faults: PageFaults) -> I64:
        self.told.append((faults.region, faults.process, faults.free))
        turns = self.turn + np.arange(len(faults.pages))
        self.turn += len(faults.pages)
        nodes: I64 = turns % self.node.nodes
        return nodes


class Fixed(PlacementPolicy):
    """All pages go to one node."""

    def __init__(self, node: PolicyNode, *, to: int = 0) -> None:
        super().__init__(node)
        self.to = to

    def nodes_for(self, faults: PageFaults) -> I64:
        return np.full(len(faults.pages), self.to)


class Answers(Quiet):
    """Answers what a test says."""

    first: Any = None
    later: Any = None

    def contents(self) -> Any:
        return self.first

    def writes(self, start: float, stop: float) -> Any:
        return self.later


class Failing(Quiet):
    """Fails on one node, not at once."""

    def writes(self, start: float, stop: float) -> PageWrites:
        if start > 0 and self.region.node == 1:
            raise KeyError("no such\n  thing")
        return super().writes(start, stop)


class Callable(Quiet):
    def __call__(self) -> None:
        """Make the object look like a function."""


class Unwritable(Quiet):
    """Has a state that no checkpoint can keep."""

    def __init__(self, region: ModelRegion) -> None:
        super().__init__(region)
        self.generator = (n for n in range(3))


class Unrelated:
    """Is no plug-in."""


def function(region: ModelRegion) -> None:
    """Is no class."""
