"""[[migration.relocate]] in scenarios of `ksmcluster simulate`: what it may say, and what is told of it."""

from __future__ import annotations

import copy
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import ksmcluster
from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.spec.compaction import RelocationSpec
from ksmcluster.config import Overrides, load, resolved_toml, to_spec
from ksmcluster.results.result import Result
from ksmcluster.system.errors import UserError

#: Ranks whose pages lie on all nodes, and that share a table with the others of their node.
RANKS: dict[str, Any] = {
    "simulation": {"passes": 4},
    "machine": {"nodes": 4, "memory_per_node": "8MiB", "topology": {"kind": "ring"}},
    "migration": {
        "trigger": "none",
        "relocate": [
            {"kind": "nearer", "after_pass": 3},
            {"kind": "drain", "nodes": [2], "after_pass": 4, "most_pages": 30},
        ],
    },
    "process": [
        {
            "name": "rank",
            "per_node": 4,
            "policy": {"kind": "interleave"},
            "region": [
                {"name": "table", "size": "100 pages", "model": "replicated", "scope": "node"},
                {"name": "heap", "size": "40 pages", "model": "unique"},
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def result() -> Result:
    return ksmcluster.simulate(load(copy.deepcopy(RANKS)), engine="inline")


def test_ranks_get_their_pages(result: Result) -> None:
    """Every table is mapped by the ranks of one node, every page of a heap by one of them."""
    remote, distance = result.by_node("ksm_mappings_remote"), result.by_node("ksm_mappings_distance")
    mappings = result.by_node("ksm_mappings")
    assert mappings[1:].sum(axis=1).tolist() == [4 * 4 * 100] * 3
    assert remote[1].sum() > 1000
    assert remote[2].sum() == 0
    assert distance[2].sum() == 10 * mappings[2].sum()
    assert (result.by_node("frames_used").sum(axis=1)[1:] == 4 * 100 + 16 * 40).all()
    assert result.by_node("pages_sharing")[1:].sum(axis=1).tolist() == [4 * 3 * 100] * 3
    # 30 pages left node 2 for the lower of its neighbours
    assert result.by_node("frames_used")[2:].tolist() == [[260] * 4, [260, 290, 230, 260]]


def test_what_moved_is_told(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["migration"]
    nearer, drain = summary["relocations"]
    assert (nearer["kind"], nearer["after_pass"], nearer["drained"]) == ("nearer", 3, [])
    assert (drain["pages"], drain["bytes"], {m["from"] for m in drain["moved"]}) == (30, 30 * 4096, {2})
    rows = pq.read_table(tmp_path / "out" / "relocations.parquet").to_pylist()
    assert sum(row["pages"] for row in rows if row["relocation"] == 1) == 30
    assert summary["bytes_moved_between"] == sum(row["bytes"] for row in rows) == summary["bytes_moved"]
    (node,) = drain["drained"]
    assert node["node"] == 2
    assert {stayed["owner"] for stayed in node["stayed"]} == {"anon", "ksm"}
    assert {stayed["why"] for stayed in node["stayed"]} == {"most_pages have moved"}
    assert sum(stayed["pages"] for stayed in node["stayed"]) == 230
    result.save(tmp_path / "out")


def test_report(result: Result) -> None:
    said = str(result)
    assert "Moved between nodes\n  all nodes sent frames nearer, after pass 3: " in said
    assert "drained" not in said
    assert "  drain of 1 node, after pass 4: 120.0 KiB moved in 0.0" in said
    assert said.count("    node 2: ") == said.count(", most_pages have moved\n") == 2
    assert max(map(len, said.splitlines())) <= 80


def test_everything_arrives() -> None:
    data = copy.deepcopy(RANKS)
    data["migration"]["relocate"][0] |= {"min_gain": 7, "nodes": [1, 2], "most_pages": 9}
    scenario = load(data)
    assert to_spec(scenario).relocations == (
        RelocationSpec("nearer", (1, 2), most_pages=9, after_pass=3, min_gain=7),
        RelocationSpec("drain", (2,), most_pages=30, after_pass=4),
    )
    assert load(tomllib.loads(resolved_toml(scenario))) == scenario


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("[0].after_pass=5", "after_pass: there is no pass 5; the last is 4"),
        ("[0].after_pass=0", "after_pass: must be at least 1, not 0"),
        ("[0].nodes=[4]", "nodes: there is no node 4; the last is 3"),
        ("[1].nodes=[]", 'nodes: is empty; kind = "drain" needs it'),
        ("[1].min_gain=3", 'min_gain: has no meaning with kind = "drain", only with "nearer"'),
        ("[1].kind=dry", 'kind: "dry" is not one of "nearer", "drain", "even-out"'),
        ("[1].when=after", "when: unknown key"),
    ],
)
def test_mistakes_are_told_in_one_line(setting: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        load(copy.deepcopy(RANKS), Overrides(settings=(f"migration.relocate{setting}",)))
    said = str(error.value)
    assert text in said
    assert "\n" not in said


@pytest.mark.parametrize("merge_across_nodes", [0, 1])
def test_a_drained_node_is_empty(merge_across_nodes: int) -> None:
    """Tables are KSM pages, of which a drain asks no knob."""
    data = copy.deepcopy(RANKS)
    data["simulation"]["passes"] = 5
    data["ksm"] = {"merge_across_nodes": merge_across_nodes}
    data["migration"]["relocate"] = [{"kind": "drain", "nodes": [2], "after_pass": 3}]
    done = ksmcluster.simulate(load(data), engine="inline")
    assert (done.by_node("frames_used")[2:, 2] == 0).all()
    # Nothing is written, so sharing goes on.
    assert done.by_node("pages_sharing").sum(axis=1)[2:].tolist() == [4 * 3 * 100] * 3
    (drain,) = json.loads(done.summary_json())["migration"]["relocations"]
    assert drain["drained"] == [{"node": 2, "stayed": []}]
    assert "  1 node drained, after pass 3: " in str(done)
    assert "    node 2: no frame stayed\n" in str(done)


def test_ksm_pages_stay_with_their_trees() -> None:
    """A tree for each node: only pages that were not merged go."""
    scenario = load(copy.deepcopy(RANKS), Overrides(settings=("ksm.merge_across_nodes=0",)))
    spec = replace(to_spec(scenario), relocations=(RelocationSpec("nearer", after_pass=3),))
    passes = list(run_passes(spec, INLINE))
    before, after = passes[1].nodes, passes[2].nodes
    assert passes[2].relocated[0].pages.sum() == 16 * 30
    assert after["ksm_mappings_distance"].tolist() == before["ksm_mappings_distance"].tolist()
