"""Searches stopped by a page of zeros that a split took away: as on the exact engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.machine.fabric import InlineFabric
from cluster.machine.replay.script_engine import spec_for
from cluster.script.record import Json
from cluster.script.runner import ScriptTopology
from cluster.spec.content import page_key
from cluster.spec.profile import PROFILES
from tests.cluster.machine.engines import exact, play, vector

ONE_NODE = ScriptTopology(1)
STEPS = 400


def ascending_ids() -> list[int]:
    """Content ids that ascend as their pages do in the order of memcmp."""
    keys = page_key(np.arange(1, 1 << 18, dtype=np.uint64))
    found, least = [], 0
    for content, key in enumerate(keys, 1):
        if least <= key < least + (1 << 64) // STEPS:
            found.append(content)
            least = key + 1
    return found


IDS = ascending_ids()


def script(seed: int, use_zero_pages: int, smart_scan: int) -> str:
    """Small pages, then two huge pages with zeros, then small pages; each content once or twice."""
    draws = np.random.default_rng(seed)
    contents = draws.permutation(np.repeat(IDS, draws.integers(1, 3, len(IDS)))).tolist()
    before, within = int(draws.integers(0, 40)), int(draws.integers(1, 80))
    lines = [f"set use_zero_pages {use_zero_pages}", f"set smart_scan {smart_scan}", "proc A"]
    lines += [f"map A a {before + 1}", "hugemap A h 1024", f"map A z {len(contents)}"]
    lines += [f"fill A a {page} 1 const {contents.pop()}" for page in range(before)]
    pages = draws.choice(1024, within, replace=False).tolist()
    lines += [f"fill A h {page} 1 const {contents.pop()}" for page in pages]
    lines += [f"fill A z {page} 1 const {content}" for page, content in enumerate(contents)]
    lines += [f"mergeable A {region}" for region in "ahz"]
    return "\n".join([*lines, "scan 6"])


def counters(document: Json) -> list[Json]:
    return [record["sysfs"] for record in document["records"]]


def in_order() -> InlineFabric:
    """A machine without shapes that is told that contents ascend."""
    return InlineFabric(
        replace(spec_for(PROFILES["6.18"], 1, tree_shape=False), ordered_contents=1 << 62), {}
    )


@pytest.mark.parametrize("smart_scan", [0, 1])
@pytest.mark.parametrize("use_zero_pages", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_order_of_contents_makes_up_for_the_shape(seed: int, use_zero_pages: int, smart_scan: int) -> None:
    text = script(seed, use_zero_pages, smart_scan)
    ours = play(text, vector("6.18", ONE_NODE, fabric=in_order()), ONE_NODE)
    assert counters(ours) == counters(play(text, exact("6.18", ONE_NODE), ONE_NODE))


def test_a_content_below_zeros_at_the_root() -> None:
    """Zeros, a content, zeros again: the tree is these two when zeros go, so all other searches stop."""
    fills = [
        f"fill A h {page} 1 const {content}" for page, content in ((1, IDS[50]), (9, IDS[3]), (10, IDS[90]))
    ]
    text = "\n".join(["proc A", "hugemap A h 512", *fills, "mergeable A h", "scan 4"])
    ours = counters(play(text, vector("6.18", ONE_NODE, fabric=in_order()), ONE_NODE))
    assert ours == counters(play(text, exact("6.18", ONE_NODE), ONE_NODE))
    assert (ours[1]["pages_unshared"], ours[1]["pages_volatile"]) == (2, 3)


def test_without_the_order_these_searches_go_on() -> None:
    text = script(0, 1, 0)
    ours = play(text, vector("6.18", ONE_NODE, tree_shape=False), ONE_NODE)
    theirs = play(text, exact("6.18", ONE_NODE), ONE_NODE)
    assert counters(ours)[1]["pages_volatile"] < counters(theirs)[1]["pages_volatile"]
    assert counters(ours)[-1] == counters(theirs)[-1]
