"""What needs no KSM: refusals, knobs in a folder of files, and how differences are shown."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cluster.script import runner as scenario
from cluster.script.parser import ScriptError, parse
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import CostSpec
from ksmcluster.commands import validate as command
from ksmcluster.system.errors import UserError
from ksmcluster.validate import script
from ksmcluster.validate.access import check_permission, check_unused
from ksmcluster.validate.comparison import Comparison, Step, steps
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.session import validate
from ksmcluster.validate.timing import PassTime, TimeComparison, TimedEngine

pytestmark = pytest.mark.host_ksmd

KNOBS = PROFILES["6.18"].knobs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like /sys/kernel/mm/ksm."""
    files = {
        "run": "1",
        "pages_to_scan": "100",
        "advisor_mode": "[none] scan-time",
        "max_page_sharing": "256",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    for name in ("pages_shared", "pages_unshared", "pages_volatile"):
        (tmp_path / name).write_text("0\n")
        (tmp_path / name).chmod(0o444)
    return tmp_path


# Refusals


def test_no_ksm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no KSM; run on Linux with CONFIG_KSM"):
        validate(None, "exact", tmp_path)


def test_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="no permission to drive ksmd; run as root"):
        check_permission(folder)


def test_merged_pages_of_somebody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ksmcluster.validate.access.users_of_ksm", lambda but: [])
    check_unused(Knobs(folder))
    (folder / "pages_shared").chmod(0o644)
    (folder / "pages_shared").write_text("3\n")
    with pytest.raises(UserError, match="in use on this host: pages_shared is 3"):
        check_unused(Knobs(folder))


def test_unknown_engine() -> None:
    with pytest.raises(UserError, match="--engine banana: no such engine"):
        command.validate(engine="banana")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("require nodes 2", "2:1: the host's nodes cannot be chosen; leave it out, or use replay"),
        ("require swap", "2:1: the host's swap cannot be chosen"),
        ("map A y 3 node 0", "2:1: regions cannot be bound to nodes here"),
        ("merge_any A", "2:1: merge_any cannot"),
        ("exec A", "2:1: exec cannot"),
        ("map A y 3\npoison A y", "3:1: poison cannot"),
        ("map A y 3\nsoft_offline A y", "3:1: soft_offline cannot"),
        ("drain off", "2:1: drain cannot"),
        ("map A y 3\nmove A y 0 1 0", "3:1: move cannot"),
        ("map A y 3\npageout A y", "3:1: pageout cannot"),
        ("set advisor_mode scan-time", "2:1: this knob cannot be set here"),
        ("set pages_to_scan 3", "2:1: this knob cannot be set here"),
        ("set ../swap/vma_ra_enabled 0", "2:1: this knob cannot be set here"),
    ],
)
def test_what_cannot_be_run(text: str, reason: str) -> None:
    with pytest.raises(ScriptError) as error:
        script.check(parse(f"proc A\n{text}"), KNOBS, nodes=1)
    assert str(error.value).startswith(reason)


def test_what_depends_on_the_node() -> None:
    scenario = parse("set merge_across_nodes 0")
    script.check(scenario, KNOBS, nodes=1)
    with pytest.raises(ScriptError, match="cannot be set on a host with 2 nodes"):
        script.check(scenario, KNOBS, nodes=2)


def test_the_built_in_script_can_be_run() -> None:
    script.check(script.load(None), KNOBS, nodes=8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "No such file"),
        (b"\xff", "not UTF-8"),
        (b"proc A\nbanana", ":2:1: banana is not a known operation"),
    ],
)
def test_unreadable_script(tmp_path: Path, data: bytes | None, reason: str) -> None:
    path = tmp_path / "script.scn"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=reason):
        script.load(path)


# Knobs


def test_knobs_are_put_back(folder: Path) -> None:
    knobs = Knobs(folder)
    saved = knobs.saved()
    assert list(saved)[-2:] == ["advisor_mode", "run"]
    assert saved["advisor_mode"] == "none"
    assert "pages_shared" not in saved
    for name in saved:
        knobs.must_set(name, 5)
    knobs.put_back(saved)
    assert knobs.saved() == saved


def test_a_knob_that_cannot_be_put_back_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = Knobs(folder)
    saved = knobs.saved()
    for name in saved:
        knobs.must_set(name, 5)
    wanted = knobs.set
    monkeypatch.setattr(
        knobs, "set", lambda name, value: "EBUSY" if name == "max_page_sharing" else wanted(name, value)
    )
    with pytest.raises(UserError, match="could not restore max_page_sharing=256; set them manually"):
        knobs.put_back(saved)
    assert knobs.get("pages_to_scan") == "100"
    assert knobs.get("run") == "1"


def test_a_knob_that_is_not_there(folder: Path) -> None:
    assert Knobs(folder).set("banana", 1) == "ENOENT"
    with pytest.raises(UserError, match=r"the kernel refuses 1 for .*banana \(ENOENT\)"):
        Knobs(folder).must_set("banana", 1)


# Differences


def record(label: str, shared: int, frames: str, **more: int) -> dict:
    region = {"p": "A", "r": "x", "part": frames}
    return {
        "label": label,
        "op": "scan",
        "sysfs": {"pages_shared": shared, **more},
        "vmstat": {"cow_ksm": 0},
        "procs": {"A": {"ksm_rmap_items": 2}},
        "regions": [region],
    }


SIMULATED = {
    "text": "",
    "events": [{"line": 3, "what": "set", "ret": 0, "err": ""}],
    "records": [record("scan@5", 1, "0*2", pages_skipped=0)],
}
REAL = {
    "text": "",
    "events": [{"line": 3, "what": "set", "ret": -1, "err": "EBUSY"}],
    "records": [record("scan@5", 0, "0+2")],
}


def test_steps() -> None:
    calls, scan = steps(SIMULATED, REAL)
    assert (calls.simulated, calls.real) == ({"line 3": "ok"}, {"line 3": "EBUSY"})
    assert list(scan.real) == ["pages_shared", "cow_ksm", "A.ksm_rmap_items", "A.x.frames"]
    assert scan.differences() == ["pages_shared", "A.x.frames"]


def run(comparison: Comparison, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(command, "run_both", lambda path, engine, cost: comparison)
    app = typer.Typer()
    app.command()(command.validate)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_differences_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = Comparison("6.18.44", "6.18", "exact", list(steps(SIMULATED, REAL)))
    code, output = run(comparison, monkeypatch)
    assert code == 1
    assert [line.rstrip() for line in output.splitlines()] == [
        "simulated: kernel 6.18, engine exact; real: 6.18.44",
        "step               shared",
        "scan@5  simulated     1 !",
        "        real          0 !",
        "calls line 3: simulated ok, real EBUSY",
        "scan@5 pages_shared: simulated 1, real 0",
        "scan@5 A.x.frames: simulated 0*2, real 0+2",
        "steps: 1, values compared: 5, 3 of them differ",
    ]
    code, output = run(comparison, monkeypatch, "--json")
    assert code == 1
    assert json.loads(output)["steps"][1]["differs"] == ["pages_shared", "A.x.frames"]


def test_nothing_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step("scan@1", "scan", {"full_scans": 1}, {"full_scans": 1})
    comparison = Comparison("6.18.44", "6.18", "exact", [Step("calls", "", {}, {}), step])
    code, output = run(comparison, monkeypatch)
    assert code == 0
    assert output.endswith("steps: 1, values compared: 1, all equal\n")


# Times


def test_times_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step("scan@1", "scan", {"full_scans": 1}, {"full_scans": 1})
    times = [
        TimeComparison(PassTime(100, 0.001, 0.024), PassTime(100, 0.002, 0.024)),
        TimeComparison(PassTime(300, 0.003, 0.072), PassTime(300, 0.003, 0.080)),
    ]
    comparison = Comparison("6.18.44", "6.18", "exact", [Step("calls", "", {}, {}), step], times)
    code, output = run(comparison, monkeypatch, "--time")
    assert code == 0
    assert [line.split() for line in output.splitlines()[-5:-1]] == [
        ["pass", "pages", "CPU", "ms", "real", "ratio", "wall", "ms", "real", "ratio"],
        ["1", "100", "1.00", "2.00", "0.50", "24.00", "24.00", "1.00"],
        ["2", "300", "3.00", "3.00", "1.00", "72.00", "80.00", "0.90"],
        ["all", "400", "4.00", "5.00", "0.80", "96.00", "104.00", "0.92"],
    ]
    _, output = run(comparison, monkeypatch, "--json")
    assert json.loads(output)["times"][1]["real_seconds"] == 0.08


def test_costs_are_for_times(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cost needs --time"):
        command.validate(engine="exact", time=False, cost=tmp_path / "cost.toml")


def test_predicted_times_follow_the_cost() -> None:
    """250 pages that are alone, at 1 ms each: two wake-ups of 124 ms, and 50 ms; then all are skipped."""
    cost = CostSpec(1e6, *[0.0] * (len(fields(CostSpec)) - 1))
    engine = TimedEngine(PROFILES["6.18"], cost, hz=250)
    text = "set smart_scan 1\nproc A\nmap A x 250\nfill A x 0 250 seq 1\nmergeable A x\nscan 5\n"
    scenario.run(parse(text), engine, scenario.ScriptTopology(), name="", kernel="6.18")
    assert [time.pages for time in engine.times] == [250] * 4 + [0]
    assert [time.cpu_seconds for time in engine.times] == pytest.approx([0.25] * 4 + [0])
    assert [time.seconds for time in engine.times] == pytest.approx([0.298] * 4 + [0])
