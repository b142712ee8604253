"""Scenarios on the engines, as documents of records."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from cluster.exact import ExactEngine
from cluster.machine.fabric import Fabric, InlineFabric
from cluster.machine.replay.script_engine import ScriptEngine, spec_for
from cluster.script.engine import Engine
from cluster.script.parser import parse
from cluster.script.record import compare, unfold
from cluster.script.runner import ScriptTopology, run
from cluster.spec.profile import PROFILES, profile_of_release
from tests.cluster.machine.scripts import Script
from tests.cluster.machine.shapeless import shapeless

Json = dict[str, Any]


def exact(kernel: str, topology: ScriptTopology) -> Engine:
    return ExactEngine(PROFILES[kernel], topology.nodes, swap=topology.swap)


def vector(
    kernel: str, topology: ScriptTopology, *, tree_shape: bool = True, fabric: Fabric | None = None
) -> Engine:
    profile = PROFILES[kernel]
    fabric = fabric or InlineFabric(spec_for(profile, topology.nodes, tree_shape=tree_shape), {})
    return ScriptEngine(profile, topology.nodes, swap=topology.swap, fabric=fabric)


def difference(script: Script, *, tree_shape: bool = True) -> Json | None:
    """Return the first difference between the exact and the vectorised machine; None if they agree."""
    with nullcontext() if tree_shape else shapeless():
        theirs = play(script.text, exact(script.kernel, script.topology), script.topology)
    engine = vector(script.kernel, script.topology, tree_shape=tree_shape)
    return compare(play(script.text, engine, script.topology), theirs)


def topology_of(document: Json) -> ScriptTopology:
    """What a recorded document ran on."""
    recorded = document["topology"]
    return ScriptTopology(recorded["nodes"], swap=recorded["swap"], cpus=recorded["cpus"])


def kernel_of(document: Json) -> str:
    return profile_of_release(document["kernel"]).name


def play(text: str, engine: Engine, topology: ScriptTopology, *, kernel: str = "", name: str = "") -> Json:
    """The document of a script."""
    return unfold(run(parse(text), engine, topology, name=name, kernel=kernel))


def again(document: Json, engine: Engine) -> Json:
    """The script of a recorded document, on another engine."""
    topology = topology_of(document)
    return play(document["text"], engine, topology, kernel=document["kernel"], name=document["scenario"])
