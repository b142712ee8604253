"""The recorded kernels, and running scripts as the replay does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.exact import ExactEngine
from cluster.script.parser import parse
from cluster.script.record import load
from cluster.script.runner import ScriptTopology, run
from cluster.spec.profile import PROFILES, profile_of_release
from tests.paths import DATA

RECORDS = DATA / "oracle"
#: Records with huge pages.
THP_RECORDS = DATA / "oracle_thp"
#: Records of kernels that differ, nearly all without huge pages.
KERNEL_RECORDS = DATA / "oracle_kernels"
#: Records of exec, memory failure and soft offline.
LIFE_RECORDS = DATA / "oracle_life"

Json = dict[str, Any]


def documents(folder: Path = RECORDS) -> dict[str, Json]:
    """Every recorded document of a folder, by `FILE/SCENARIO`."""
    return {
        f"{path.name.removesuffix('.json.xz')}/{document['scenario']}": document
        for path in sorted(folder.glob("*.json.xz"))
        for document in load(path)
    }


def replay(document: Json) -> Json:
    """The scenario of a recorded document, run on the exact engine."""
    profile = profile_of_release(document["kernel"])
    recorded = document["topology"]
    topology = ScriptTopology(recorded["nodes"], swap=recorded["swap"], cpus=recorded["cpus"])
    machine = ExactEngine(profile, topology.nodes, swap=topology.swap)
    scenario = parse(document["text"])
    return run(scenario, machine, topology, name=document["scenario"], kernel=document["kernel"])


def play(text: str, kernel: str = "6.18", nodes: int = 1, *, swap: bool = False) -> dict[str, Json]:
    """Run a script; its records by label, with `events` and `knobs` of the document besides."""
    topology = ScriptTopology(nodes, swap=swap)
    machine = ExactEngine(PROFILES[kernel], nodes, swap=swap)
    document = run(parse(text), machine, topology, name="test", kernel=kernel)
    records = {record["label"]: record for record in document["records"]}
    return {**records, "events": document["events"], "knobs": document["knobs"]}


def counts(record: Json) -> tuple[int, int, int, int]:
    """pages_shared, pages_sharing, pages_unshared and pages_volatile of a record."""
    sysfs = record["sysfs"]
    names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    return tuple(sysfs[name] for name in names)
