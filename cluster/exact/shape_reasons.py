"""Which steps of a script depend on the shapes of trees, and why."""

from __future__ import annotations

from cluster.exact.engine import ExactEngine
from cluster.exact.reason import Reason
from cluster.script.parser import Script
from cluster.script.runner import ScriptTopology, run
from cluster.spec.profile import Profile

#: For each reason, the labels of the records after such steps, in order.
ShapeReasons = dict[Reason, list[str]]


def shape_reasons(script: Script, profile: Profile, topology: ScriptTopology) -> ShapeReasons:
    """Run a script on the exact engine and return the reasons; empty if nothing depends on shapes.

    Before the first such step, a machine without tree shapes (`MachineSpec.tree_shape`) has the same records.
    Raises ScriptError as `run` does.
    """
    machine = ExactEngine(profile, topology.nodes, swap=topology.swap)
    reasons: ShapeReasons = {}

    def note(label: str) -> None:
        for reason in sorted(machine.take_reasons()):
            reasons.setdefault(reason, []).append(label)

    run(script, machine, topology, name="", kernel=profile.name, after_record=note)
    return reasons
