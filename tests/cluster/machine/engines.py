"""Scenarios on the engines, as documents of records."""

from __future__ import annotations

from typing import Any

from cluster.exact import ExactEngine
from cluster.machine.fabric import Fabric, InlineFabric
from cluster.machine.script_engine import ScriptEngine, spec_for
from cluster.script.engine import Engine
from cluster.script.parser import parse
from cluster.script.record import unfold
from cluster.script.runner import Topology, run
from cluster.spec.profile import PROFILES, profile_of_release

Json = dict[str, Any]


def exact(kernel: str, topology: Topology) -> Engine:
    return ExactEngine(PROFILES[kernel], topology.nodes, swap=topology.swap)


def vector(
    kernel: str, topology: Topology, *, tree_shape: bool = True, fabric: Fabric | None = None
) -> Engine:
    profile = PROFILES[kernel]
    fabric = fabric or InlineFabric(spec_for(profile, topology.nodes, tree_shape=tree_shape), {})
    return ScriptEngine(profile, topology.nodes, swap=topology.swap, fabric=fabric)


def topology_of(document: Json) -> Topology:
    """What a recorded document ran on."""
    recorded = document["topology"]
    return Topology(recorded["nodes"], swap=recorded["swap"], cpus=recorded["cpus"])


def kernel_of(document: Json) -> str:
    return profile_of_release(document["kernel"]).name


def play(text: str, engine: Engine, topology: Topology, *, kernel: str = "", name: str = "") -> Json:
    """The document of a script."""
    return unfold(run(parse(text), engine, topology, name=name, kernel=kernel))


def again(document: Json, engine: Engine) -> Json:
    """The script of a recorded document, on another engine."""
    topology = topology_of(document)
    return play(document["text"], engine, topology, kernel=document["kernel"], name=document["scenario"])
