"""exec, memory failure and soft offline on both engines, worked out by hand from the kernel's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cluster.machine import coordinator
from cluster.machine.coordinator import Machine
from cluster.machine.fabric import InlineFabric
from cluster.machine.replay.script_engine import spec_for
from cluster.script.engine import Engine
from cluster.script.runner import ScriptTopology
from cluster.spec.errors import SimulationError
from cluster.spec.profile import PROFILES
from tests.cluster.machine.engines import exact, play, vector

Json = dict[str, Any]
#: Plays a script and returns its document.
Play = Callable[..., Json]


@pytest.fixture(params=[exact, vector], ids=["exact", "vector"])
def played(request: pytest.FixtureRequest) -> Play:
    make: Callable[[str, ScriptTopology], Engine] = request.param

    def run(text: str, *, kernel: str = "6.18", nodes: int = 1, swap: bool = False) -> Json:
        topology = ScriptTopology(nodes, swap=swap)
        return play(text, make(kernel, topology), topology)

    return run


def errors(document: Json) -> list[tuple[str, str]]:
    return [(event["what"], event["err"]) for event in document["events"] if event["err"]]


def parts(document: Json, label: str) -> dict[str, str]:
    [record] = [record for record in document["records"] if record["label"] == label]
    return {f"{region['p']}.{region['r']}": region["part"] for region in record["regions"]}


def test_a_fill_stops_at_a_lost_page(played: Play) -> None:
    """Pages 0 and 2 are written, page 4 is lost; page 6 stays as it was, untouched."""
    document = played(
        "proc A\nmap A x 8\npoison A x 4 1\nfill A x 4 1 const 1\npoison A x 4 1\n"
        "fill A x 0 8 const 1 step 2\nrecord end"
    )
    # An untouched page maps the zero page when it is to fail, and that cannot be taken out of use.
    assert errors(document) == [("poison", "EBUSY"), ("fill", "EFAULT")]
    assert parts(document, "end") == {"A.x": "0 -1 1 -1 -2 -1*3"}


def test_a_lost_page_can_be_unmapped_and_dropped(played: Play) -> None:
    document = played(
        "proc A\nmap A x 3\nfill A x 0 3 seq 1\npoison A x\nrecord lost\nread A x\n"
        "dontneed A x 0 1\nread A x 0 1\nfill A x 0 1 const 1\nunmap A x 1 1\nrecord end"
    )
    assert errors(document) == [("read", "EFAULT")]
    assert parts(document, "lost") == {"A.x": "-2*3"}
    assert parts(document, "end") == {"A.x": "0 -1 -2"}


def test_a_pinned_page_fails_but_does_not_move(played: Play) -> None:
    document = played(
        "proc A\nmap A x 2\nfill A x 0 2 const 1\npin A x 0 2\nsoft_offline A x 0 1\npoison A x 1 1\n"
        "pin A x\nrecord end"
    )
    assert errors(document) == [("soft_offline", "EBUSY"), ("pin", "EFAULT")]
    assert parts(document, "end") == {"A.x": "0 -2"}


def test_a_failed_ksm_frame_takes_sharers_until_its_items_are_gone(played: Play) -> None:
    """y is visited after x 0 to x 2 have left the stable node, and before x 3 to x 5 have."""
    document = played(
        "proc A\nmap A x 3\nmap A y 1\nmap A z 3\nfill A x 0 3 const 1\nfill A z 0 3 const 1\n"
        "mergeable A x\nmergeable A z\nscan 2\nfill A y 0 1 const 1\nmergeable A y\nscan 1\n"
        "poison A x 0 1\nrecord lost\nscan 1"
    )
    assert parts(document, "lost") == {"A.x": "-2*3", "A.y": "0", "A.z": "-2*3"}
    last = document["records"][-1]
    assert last["regions"][1]["kind"] == "1"
    assert last["sysfs"]["pages_shared"] == 1
    assert last["sysfs"]["pages_sharing"] == 0


def test_mappings_that_reverse_mapping_does_not_find_stay(played: Play) -> None:
    """ksmd sees that A has written its pages, and B never was visited: no item stands for B's mappings."""
    document = played(
        "proc A\nmap A x 2\nfill A x 0 2 const 1\nmergeable A x\nscan 2\nfork A B\nfill A x 0 2 seq 8\n"
        "batch 2\npoison B x 0 1\nsoft_offline B x 0 1\npoison B x 0 1\nfill B x 0 1 const 3\nrecord end"
    )
    # The failure is noted, so that soft offline has nothing to do.
    assert errors(document) == [("poison", "EBUSY"), ("poison", "EHWPOISON")]
    assert parts(document, "end") == {"A.x": "0+2", "B.x": "2+2"}


def test_exec_ends_memory_and_advice_but_not_the_prctl(played: Play) -> None:
    document = played(
        "proc A\nmap A x 2\nfill A x 0 2 const 1\nmerge_any A\nproc B\nmap B x 2\nfill B x 0 2 const 1\n"
        "mergeable B x\nscan 2\nexec A\nexec B\nmap A y 2\nmap B y 2\nfill A y 0 2 const 1\n"
        "fill B y 0 2 const 1\nscan 3"
    )
    assert parts(document, "scan@16.3") == {"A.y": "0*2", "B.y": "1+2"}


def test_frames_out_of_use_are_not_used_again() -> None:
    spec = spec_for(PROFILES["6.18"], 1)
    machine = Machine(InlineFabric(spec, {}), spec.ksm)
    mm, page = machine.new_process(), np.ones(1, np.bool_)
    before = free_frames(machine)
    machine.map(mm, 0, 3)
    machine.write(mm, np.arange(3), np.arange(3, dtype=np.uint64))
    assert machine.memory_failure.soft_offline(mm, 1, page) == ""
    assert free_frames(machine) == before - 3 - 1
    assert machine.memory_failure.poison(mm, 2, page) == ""
    assert free_frames(machine) == before - 3 - 1
    machine.exit(mm)
    assert free_frames(machine) == before - 2


def free_frames(machine: Machine) -> int:
    return int(machine.collect()["frames_free"].sum())


def test_a_node_numbers_no_process_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a process that has ended stays taken."""
    monkeypatch.setattr(coordinator, "MAX_MMS_PER_NODE", 3)
    play("proc A\nexit A\nproc A\nfork A B", vector("6.18", ScriptTopology(1)), ScriptTopology(1))
    with pytest.raises(SimulationError, match="node 0 has had 3 processes, which is the most"):
        play(
            "proc A\nexit A\nproc A\nfork A B\nfork A C", vector("6.18", ScriptTopology(1)), ScriptTopology(1)
        )
