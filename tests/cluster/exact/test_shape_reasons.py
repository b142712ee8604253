"""Why steps hang on the shapes of trees: by hand, in the smallest trees that show it."""

from __future__ import annotations

import pytest

from cluster.exact.reason import Reason
from cluster.exact.shape_reasons import shape_reasons
from cluster.script.parser import parse
from cluster.script.runner import ScriptTopology
from cluster.spec.profile import PROFILES

from .oracle import counts, play

#: Two pages, the first of which waits in the unstable tree; the second is visited next.
WAITING = """\
proc A
map A x 2
fill A x 0 2 seq 1
mergeable A x
scan
batch 1
"""

#: A page that merges with nothing, and behind it two that have become one.
MERGED = """\
proc A
map A x 3
fill A x 0 1 const 1
fill A x 1 2 const 2
mergeable A x
scan 2
"""


def reasons(text: str) -> dict[Reason, list[str]]:
    return shape_reasons(parse(text), PROFILES["6.18"], ScriptTopology())


@pytest.mark.parametrize(
    ("change", "unshared", "found"),
    [
        # The only page in the tree holds what the other one holds, and is found although it was put in as
        # something else.
        ("fill A x 0 1 const 2", 0, True),
        # It is gone: the search gives up, though nobody looks for what it was.
        ("dontneed A x 0 1", 1, True),
        # It is passed, whatever it holds, and the other page goes in.
        ("fill A x 0 1 const 3", 2, False),
        ("record nothing", 2, False),
    ],
)
def test_a_page_that_changed_while_it_waited(change: str, unshared: int, found: bool) -> None:
    text = f"{WAITING}{change}\nbatch 1"
    assert counts(play(text)["batch@8"])[2] == unshared
    assert reasons(text) == ({Reason.CHANGED_UNSTABLE: ["batch@8"]} if found else {})


def test_a_page_that_went_is_in_the_way_of_its_like_in_any_tree() -> None:
    text = f"{WAITING}dontneed A x 0 1\nbatch 1".replace("seq 1", "const 1")
    assert counts(play(text)["batch@8"]) == (0, 0, 1, 1)
    assert reasons(text) == {}


def test_a_stale_stable_node_on_the_way() -> None:
    text = f"{MERGED}dontneed A x 1 2\nbatch 1\nscan"
    played = play(text)
    assert counts(played["scan@6.2"])[:2] == (1, 1)
    # The first page's search has dropped the stable node at the top, before its own items are visited.
    assert counts(played["batch@8"])[:2] == (0, 0)
    assert reasons(text) == {Reason.STALE_STABLE: ["batch@8"]}


def test_a_stale_stable_node_of_the_content_looked_for() -> None:
    text = f"{MERGED}fill A x 0 1 const 2\nscan\ndontneed A x 1 2\nbatch 1"
    played = play(text)
    assert counts(played["scan@8"])[:2] == (1, 1)
    assert counts(played["batch@10"])[:2] == (0, 0)
    assert reasons(text) == {}


def test_a_chain_on_the_way() -> None:
    # Four pages in two stable nodes of two; one of the two goes, and the chain stays with a single one until
    # a search comes by.
    text = """\
set max_page_sharing 2
proc A
map A x 5
fill A x 0 1 const 1
fill A x 1 4 const 2
mergeable A x
scan 2
dontneed A x 1 2
batch 1
"""
    played = play(text)
    assert played["scan@7.2"]["sysfs"]["stable_node_chains"] == 1
    assert played["batch@9"]["sysfs"]["stable_node_chains"] == 0
    assert reasons(text) == {Reason.STALE_STABLE: ["batch@9"]}
