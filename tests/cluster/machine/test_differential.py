"""Random scripts on the sequential model and on the vectorised machine: equal at every step and field."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import example, given, settings

from cluster.exact.shape_reasons import shape_reasons
from cluster.ksm import scan
from cluster.ksm.decide import decide_window as decide
from cluster.machine.host import Host
from cluster.machine.node import Report
from cluster.machine.replay.script_engine import spec_for
from cluster.script.parser import parse
from cluster.script.record import compare
from cluster.script.runner import ScriptTopology
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import SimulationSpec
from cluster.wire.commands import Command
from cluster.wire.mailbox import Mail, among
from cluster.wire.parcels import Parcel, packed, together
from tests.cluster.machine.engines import difference, exact, play, vector
from tests.cluster.machine.scripts import Script, life_scripts, mid_pass_scripts, scripts

#: A page leaves a stable node that is in no tree, its frame having just moved to another node.
LEAVES_A_MIGRATED_NODE = Script(
    "6.12",
    ScriptTopology(2),
    "set merge_across_nodes 0\nproc A\nmap A x 4\nfill A x 0 4 mod 1 2\nmergeable A x\nscan 2\n"
    "batch 2\nfill A x 2 2 seq 3\nmove A x 0 2 1\nbatch 2\nscan 2",
)
#: After run=2 only the swap cache refers to a KSM frame: its stable node goes, though the frame is there.
KEPT_BY_THE_SWAP_CACHE = Script(
    "6.18",
    ScriptTopology(1, swap=True),
    "set max_page_sharing 2\nproc A\nmap A x 4\nfill A x 0 4 zero\npageout A x 0 2\nmergeable A x\n"
    "fork A B\nread A x 0 2\nbatch 7\nbatch 4\nunmerge_all\nrecord unmerged\nscan 2",
)


@settings(max_examples=100, deadline=None)
@example(KEPT_BY_THE_SWAP_CACHE)
@given(scripts() | mid_pass_scripts())
def test_with_the_shapes_of_trees(script: Script) -> None:
    assert difference(script) is None


@settings(max_examples=100, deadline=None)
@given(scripts() | mid_pass_scripts())
@example(LEAVES_A_MIGRATED_NODE)
@example(KEPT_BY_THE_SWAP_CACHE)
def test_without(script: Script) -> None:
    assert difference(script, tree_shape=False) is None


@settings(max_examples=50, deadline=None)
@given(life_scripts())
def test_exec_and_memory_failure(script: Script) -> None:
    assert difference(script) is None
    assert difference(script, tree_shape=False) is None


@settings(max_examples=60, deadline=None)
@given(scripts() | mid_pass_scripts())
def test_portions_are_not_seen(script: Script) -> None:
    """Pages and contents are worked on in portions, here of three, with the same results."""
    whole = play(script.text, vector(script.kernel, script.topology, tree_shape=False), script.topology)
    with patch.object(scan, "PORTION", 3), patch.object(decide, "PORTION", 3):
        parts = play(script.text, vector(script.kernel, script.topology, tree_shape=False), script.topology)
    assert compare(parts, whole) is None


@settings(max_examples=60, deadline=None)
@given(mid_pass_scripts())
def test_shapes_matter_only_where_there_is_a_reason(script: Script) -> None:
    """Up to the first reason the machine without shapes does as the kernel does."""
    theirs = play(script.text, exact(script.kernel, script.topology), script.topology)
    ours = play(script.text, vector(script.kernel, script.topology, tree_shape=False), script.topology)
    reasons = shape_reasons(parse(script.text), PROFILES[script.kernel], script.topology)
    first = {steps[0] for steps in reasons.values()}
    until = next((i for i, record in enumerate(theirs["records"]) if record["label"] in first), None)
    assert ours["records"][:until] == theirs["records"][:until]


class PackedFabric:
    """Nodes in several hosts, as in actors. Every second host sends to the others in parcels."""

    def __init__(self, spec: SimulationSpec, per_host: int) -> None:
        self.nodes = spec.machine.nodes
        firsts = range(0, self.nodes, per_host)
        packs = [list(range(first, min(first + per_host, self.nodes))) for first in firsts]
        self._hosts = [Host(pack, spec, {}) for pack in packs]
        self._sent: list[list[Mail]] = [[] for _ in self._hosts]

    def superstep(self, command: Command | None) -> list[Report]:
        reports: list[Report] = []
        sent: list[list[Mail]] = []
        for host in self._hosts:
            mail = self._mail_to(host)
            addressed = {node for sent_by in mail for node in sent_by.to}
            to = [node for node in host.nodes if command is not None or node in addressed]
            told, mail = host.step(command, mail, to) if to else ([], [])
            reports += told
            sent.append(mail)
        self._sent = sent
        return reports

    def _mail_to(self, host: Host) -> list[Mail]:
        nodes = min(host.nodes), max(host.nodes) + 1
        mail: list[Mail] = []
        parcels: list[Parcel] = []
        for number, (sender, sent) in enumerate(zip(self._hosts, self._sent, strict=True)):
            if number % 2 and sender is not host and sent:
                parcels.append(Parcel(min(sender.nodes), *packed(sent, [nodes])))
            else:
                mail += among(sent, *nodes)
        return together(mail, parcels)


@settings(max_examples=40, deadline=None)
@given(scripts())
@example(
    Script("6.18", ScriptTopology(3), "proc A\nmap A x 9 node 1\nfill A x 0 9 mod 1 2\nmergeable A x\nscan 3")
)
def test_nodes_in_several_hosts(script: Script) -> None:
    topology = ScriptTopology(3, swap=script.topology.swap)
    one = play(script.text, vector(script.kernel, topology), topology)
    for per_host in (1, 2):
        fabric = PackedFabric(spec_for(PROFILES[script.kernel], 3), per_host)
        assert play(script.text, vector(script.kernel, topology, fabric=fabric), topology) == one
