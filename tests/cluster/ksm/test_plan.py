"""The example of docs/explanation/vectorised.md, worked out there by hand."""

from __future__ import annotations

import re

import numpy as np

from cluster.ksm.decide.plan import NONE, MergeProblem, plan_regular, plan_stepwise
from cluster.ksm.visit import VisitKind
from cluster.script.runner import ScriptTopology
from tests.cluster.machine.engines import exact, play, vector
from tests.paths import DOCS

DOCUMENT = DOCS / "explanation" / "vectorised.md"


def test_the_script_on_both_engines() -> None:
    found = re.search(r"## An example\n\n((?:    .*\n)+)", DOCUMENT.read_text())
    assert found is not None
    for engine in (exact("6.18", ScriptTopology()), vector("6.18", ScriptTopology(), tree_shape=False)):
        last = play(found[1], engine, ScriptTopology())["records"][-1]
        # Stable nodes S, T and U with three pages each; pages 4 and 7 gave the frames of T and U.
        assert last["regions"][0]["part"] == "0*3 1*3 2*3 3"
        assert last["new_ksm"] == {"label": "1+2", "frame_of_slot": "4 7"}
        counts = [last["sysfs"][name] for name in ("pages_shared", "pages_sharing", "pages_unshared")]
        assert counts == [3, 6, 1]
        assert last["sysfs"]["stable_node_dups"] == 3


def test_the_last_window() -> None:
    s, t, u = 0, 1, 2
    problem = MergeProblem(
        limit=3,
        groups=1,
        group=np.zeros(6, np.int64),
        kind=np.full(6, VisitKind.CANDIDATE, np.uint8),
        frame=np.arange(4, 10),
        node=np.full(6, NONE),
        node_group=np.array([s]),
        node_count=np.array([3]),
        waiting=np.array([3]),
    )
    for plan in (plan_regular(problem), plan_stepwise(problem)):
        assert plan.target.tolist() == [t, t, u, u, u, NONE]
        assert np.flatnonzero(plan.new_stable_page).tolist() == [0, 3]
        assert np.flatnonzero(plan.waits).tolist() == [5]
        assert plan.waited_target.tolist() == [t]
        assert plan.node_count.tolist() == [3, 3, 3]
