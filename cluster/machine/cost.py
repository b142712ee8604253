"""The CPU time of ksmd's work: how much of what it did, and what each takes (docs/explanation/model.md)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64
from cluster.spec.scenario import SimulationSpec
from cluster.spec.topology import LOCAL, Distances

Columns = dict[str, I64]
OfNodes = NDArray[np.float64]

#: Terms that each are a count times a number of nanoseconds: fields of `CostSpec`.
TERMS = (
    "visit",
    "first_visit",
    "skip",
    "checksum",
    "huge_saves",
    "stable_level",
    "unstable_level",
    "uncached_level",
    "merge",
    "stable_node",
    "split",
    "split_zero",
    "wakeup",
    "cold_visit",
    "cold_level",
    "remote",
)
#: By how much a search in a tree that grows from nothing is shorter, on the average, than one in the whole
#: tree, in levels.
_GROWING = 1 / math.log(2)
#: What a visit needs that is not of a tree, after a sleep: it is found cold as a tree of so many pages is.
_COLD_SET = 1024


def ksmd_cpu_ns(spec: SimulationSpec, old: Columns, new: Columns, wakeups: OfNodes) -> OfNodes:
    """Return ksmd's CPU time for the pages of each node between two collections: float64[nodes], nanoseconds.

    `wakeups` are those of ksmd for the pages of each node: float64[nodes].
    """
    work = ksmd_work(spec, old, new, wakeups)
    ns = np.zeros(len(wakeups))
    for term in TERMS:
        ns += getattr(spec.cost, term) * work[term]
    return ns


def ksmd_work(spec: SimulationSpec, old: Columns, new: Columns, wakeups: OfNodes) -> dict[str, OfNodes]:
    """Return how much ksmd did for the pages of each node between two collections: float64[nodes] by term.

    A page with an unchanged checksum is looked up in the stable tree and, if it is not merged, in the
    unstable tree. Each level of a tree is a comparison; the lower ones of a large tree are uncached, and all
    are after a sleep, until a search has been there. Distances are left out where they cost nothing.
    """

    def done(name: str) -> OfNodes:
        return np.asarray(new[name] - old[name], np.float64)

    searches = np.asarray(searched(old, new), np.float64)
    in_unstable = np.maximum(searches - done("pages_merged"), 0)
    stable_pages, unstable_pages = _tree(spec, new["pages_shared"]), _tree(spec, new["pages_unshared"])
    stable = np.log2(1 + stable_pages)
    unstable = np.maximum(np.log2(1 + unstable_pages) - _GROWING, 0)
    cached = math.log2(1 + spec.cost.cached_tree)
    below = np.maximum(stable - cached, 0) * searches + np.maximum(unstable - cached, 0) * in_unstable
    cold = _cold(stable_pages, searches, wakeups) + _cold(unstable_pages / math.e, in_unstable, wakeups)
    checksums, visits, sleeps = done("checksums"), done("pages_scanned"), spec.ksm.sleep_millisecs > 0
    return {
        "visit": visits,
        "first_visit": np.maximum(done("rmap_items"), 0),
        "skip": done("pages_skipped"),
        "checksum": checksums,
        "huge_saves": -done("huge_checksums"),
        "stable_level": stable * searches,
        "unstable_level": unstable * in_unstable,
        "uncached_level": below,
        "merge": done("pages_merged"),
        "stable_node": np.maximum(done("pages_shared"), 0),
        "split": done("thp_split_page"),
        "split_zero": done("thp_zero_pages"),
        "wakeup": wakeups,
        "cold_visit": _cold(_COLD_SET, visits, wakeups) * sleeps,
        "cold_level": cold * sleeps,
        "remote": checksums * (_extra_distance(spec) if spec.cost.remote else 0.0),
    }


def searched(old: Columns, new: Columns) -> I64:
    """Return how many pages were looked up in the trees between two collections: int64[nodes]."""
    searches: I64 = new["checksums"] - old["checksums"] - (new["changed"] - old["changed"])
    return searches


def _cold(tree: OfNodes | I64 | int, looks: OfNodes, wakeups: OfNodes) -> OfNodes:
    """Return how often ksmd comes to a page of a tree for the first time since it woke up: float64[nodes].

    Of n looks that begin with cold caches, the upper log2(n) levels are met by many, and are soon cached;
    those below are new to each look.
    """
    of_wakeup = np.divide(looks, wakeups, out=np.ones(len(looks)), where=wakeups > 0)
    new: OfNodes = looks * np.log2(1 + tree / np.maximum(of_wakeup, 1))
    return new


def _tree(spec: SimulationSpec, pages: I64) -> I64:
    """Return the pages of the tree that a page of each node is looked up in: int64[nodes]."""
    return pages if not spec.ksm.merge_across_nodes else pages.sum(keepdims=True)


def _extra_distance(spec: SimulationSpec) -> OfNodes:
    """Return how far a node's pages are from ksmd beyond local memory, in local distances: float64[nodes].

    ksmd is equally often on each node; with a ksmd for each node, it is where its pages are.
    """
    distance: Distances = spec.machine.distance
    if spec.ksm.threads == "per-node":
        return np.zeros(len(distance))
    extra: OfNodes = distance.mean(axis=0) / LOCAL - 1
    return extra
