"""Huge pages on the vectorised machine: the recorded kernels, random scripts, and how results are reached."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings

from cluster.script.record import compare
from cluster.script.runner import ScriptTopology
from tests.cluster.exact.oracle import THP_RECORDS, documents
from tests.cluster.machine.engines import again, difference, kernel_of, topology_of, vector
from tests.cluster.machine.huge_scripts import huge_scripts
from tests.cluster.machine.scripts import Script

DOCUMENTS = documents(THP_RECORDS)
#: A page of a shared huge page is broken out; the child's page has the same frame, and is visited later.
BROKEN_OUT_FOR_TWO = Script(
    "6.18.15",
    ScriptTopology(1),
    "proc A\nhugemap A x 512\nfill A x 0 512 seq 480\nhugemap A y 512\nfill A y 0 512 seq 444\n"
    "mergeable A x\nmergeable A y\nscan 1\nfork A B\nbatch 600\nscan 3",
)
#: A window of so many pages goes on after a split has taken pages of zeros away.
BATCH_OVER_A_SPLIT = Script(
    "6.18",
    ScriptTopology(1),
    "set use_zero_pages 1\nproc A\nhugemap A x 512\nfill A x 8 504 seq 1\nmap A y 9\nfill A y 0 9 seq 900\n"
    "mergeable A x\nmergeable A y\nscan 1\nbatch 5\nbatch 500\nscan 2",
)
#: The second page splits the first huge page for nothing; nothing comes of searches for zeros after that.
ZEROS_STOP_SEARCHES = Script(
    "6.18",
    ScriptTopology(1),
    "proc A\nhugemap A x 5120\nfill A x 0 5120 zero\nmap A y 9\nfill A y 0 9 zero\nhugemap A z 512\n"
    "fill A z 0 512 mod 0 2\nmergeable A x\nmergeable A y\nmergeable A z\nscan 3",
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_record_is_reproduced(name: str) -> None:
    document = DOCUMENTS[name]
    ours = again(document, vector(kernel_of(document), topology_of(document)))
    if name.startswith("host"):
        # A host may have its huge zero page before a script reads one.
        for record in (*ours["records"], *document["records"]):
            record["vmstat"].pop("thp_zero_page_alloc")
    assert compare(ours, document) is None


@settings(max_examples=40, deadline=None)
@given(huge_scripts())
@example(BROKEN_OUT_FOR_TWO)
@example(BATCH_OVER_A_SPLIT)
@example(ZEROS_STOP_SEARCHES)
def test_with_the_shapes_of_trees(script: Script) -> None:
    assert difference(script) is None


#: A page of zeros whose memory has failed stays when its huge page is split, and the next search meets it.
FAILED_ZERO_STAYS = Script(
    "6.16",
    ScriptTopology(1),
    "proc A\nhugemap A x 512 lazy\nfill A x 0 512 zero\nmergeable A x\n"
    "proc B\nhugemap B y 512 lazy\nfill B y 0 512 zero\nmergeable B y\n"
    "scan 1\nfork A C\npoison A x 0 1\nscan 1",
)


@settings(max_examples=20, deadline=None)
@given(huge_scripts(life=True))
@example(FAILED_ZERO_STAYS)
def test_exec_and_memory_failure(script: Script) -> None:
    assert difference(script) is None


@settings(max_examples=30, deadline=None)
@given(huge_scripts(quiet=True))
@example(BROKEN_OUT_FOR_TWO)
@example(BATCH_OVER_A_SPLIT)
@example(ZEROS_STOP_SEARCHES)
def test_without(script: Script) -> None:
    assert difference(script, tree_shape=False) is None
