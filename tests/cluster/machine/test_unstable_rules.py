"""Small cases of the unstable tree on both engines, worked out by hand from the kernel's rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from cluster.script.engine import Engine
from cluster.script.runner import ScriptTopology
from tests.cluster.machine.engines import exact, play, vector

#: What the rest of a pass makes of pages that have been inserted: shared, sharing, unshared, volatile pages.
CASES = {
    "a page that holds the same again merges": (
        "map A x 3 node 0\nfill A x 0 3 seq 1\nfill A x 2 1 const 1\n"
        "mergeable A x\nscan 1\nbatch 1\nfill A x 0 1 zero\nfill A x 0 1 const 1\nscan 1",
        (1, 1, 1, 0),
    ),
    "a page that changed and is gone blocks searches": (
        "map A x 2 node 0\nfill A x 0 2 const 1\n"
        "mergeable A x\nscan 1\nbatch 1\nfill A x 0 1 zero\ndontneed A x 0 1\nscan 1",
        (0, 0, 1, 1),
    ),
    "a page that holds the same again is behind the page inserted meanwhile": (
        "map A x 4 node 0\nfill A x 0 4 const 1\nfill A x 1 1 const 2\n"
        "mergeable A x\nscan 1\nbatch 1\nfill A x 0 1 zero\nbatch 2\nfill A x 0 1 const 1\nscan 1",
        (1, 1, 2, 0),
    ),
    "one write: a page holds the same again, another changes": (
        "set merge_across_nodes 0\nmap A x 5 node 0\nfill A x 0 5 const 1\nfill A x 1 2 const 2\n"
        "mergeable A x\nscan 1\nbatch 2\nfill A x 0 1 zero\nfill A x 0 2 const 1\nscan 1",
        (1, 2, 2, 0),
    ),
    "the same, the contents exchanged": (
        "set merge_across_nodes 0\nmap A x 5 node 0\nfill A x 0 5 const 2\nfill A x 1 2 const 1\n"
        "mergeable A x\nscan 1\nbatch 2\nfill A x 0 1 zero\nfill A x 0 2 const 2\nscan 1",
        (1, 2, 2, 0),
    ),
    "one tree for all nodes becomes that of node 0": (
        "map A x 3 node 0\nfill A x 0 3 seq 1\nfill A x 2 1 const 1\nmap A y 1 node 1\nfill A y 0 1 const 1\n"
        "mergeable A x\nmergeable A y\nscan 1\nbatch 1\nset merge_across_nodes 0\nscan 1",
        (1, 1, 2, 0),
    ),
    "the tree of node 0 becomes that of all nodes": (
        "set merge_across_nodes 0\nmap A x 1 node 0\nfill A x 0 1 const 2\nmap A y 3 node 1\n"
        "fill A y 0 2 const 1\nfill A y 2 1 const 2\n"
        "mergeable A x\nmergeable A y\nscan 1\nbatch 2\nset merge_across_nodes 1\nscan 1",
        (1, 1, 2, 0),
    ),
}
NAMES = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    "engine", [exact, vector, partial(vector, tree_shape=False)], ids=["exact", "shape", "vector"]
)
def test_counters(
    engine: Callable[[str, ScriptTopology], Engine], text: str, expected: tuple[int, ...]
) -> None:
    topology = ScriptTopology(2)
    document = play("proc A\n" + text, engine("6.18", topology), topology)
    last = document["records"][-1]["sysfs"]
    assert tuple(last[name] for name in NAMES) == expected
