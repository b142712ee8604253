"""Which steps of a scenario hang on the shapes of trees, and why."""

from __future__ import annotations

from cluster.exact.engine import ExactEngine
from cluster.exact.reason import Reason
from cluster.script.parser import Script
from cluster.script.runner import ScriptTopology, run
from cluster.spec.profile import Profile

#: Labels of the records that follow such steps, in order.
ShapeReasons = dict[Reason, list[str]]


def shape_reasons(scenario: Script, profile: Profile, topology: ScriptTopology) -> ShapeReasons:
    """The reasons that the exact engine finds on its way; empty if nothing hangs on shapes.

    Up to the first such step a machine without tree shapes (`MachineSpec.tree_shape`) has the same records.

    Raises ScriptError as `run` does.
    """
    machine = ExactEngine(profile, topology.nodes, swap=topology.swap)
    reasons: ShapeReasons = {}

    def note(label: str) -> None:
        for reason in sorted(machine.take_reasons()):
            reasons.setdefault(reason, []).append(label)

    run(scenario, machine, topology, name="", kernel=profile.name, after_record=note)
    return reasons
