"""`ksmcluster bench`, each in its smallest form, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from ksmcluster.validate.knobs import Knobs
from tests.ksmcluster.conftest import Run
from tests.ksmcluster.validate.conftest import knobs

__all__ = ["knobs"]

COMMAND = [sys.executable, "-m", "ksmcluster.cli", "bench"]
PASS = ("bench", "pass", "--pages", "320", "--repeat", "1", "--quiet")
SCALING = ("bench", "scaling", "--nodes", "2,1", "--pages-per-node", "64", "--repeat", "2", "--quiet")


def entries(file: Path) -> dict[str, Any]:
    """By name, after a look at what trackers rely on."""
    found = json.loads(file.read_text())
    for entry in found:
        assert set(entry) == {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["value"], float)
        assert entry["value"] > 0
        assert isinstance(entry["range"], str)
    assert len({entry["name"] for entry in found}) == len(found)
    return {entry["name"]: entry for entry in found}


def test_pass(run: Run, tmp_path: Path) -> None:
    ran = run(*PASS, "--json", str(tmp_path / "pass.json"))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("320 pages, half unique, half in groups of 16; medians of 1")
    assert "modelled ksmd" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert list(entries(tmp_path / "pass.json")) == [
        f"pass, 320 pages: {content}, {phase}"
        for content in ("symbolic", "bytes")
        for phase in ("first", "merging", "steady")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["pass.json"]


@pytest.mark.host_ksmd
def test_pass_against_this_hosts_ksmd(knobs: Knobs, tmp_path: Path) -> None:
    before = knobs.saved()
    arguments = ["pass", "--ksmd", "--pages", "320", "--repeat", "2", "--json", str(tmp_path / "pass.json")]
    ran = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    if "use KSM" in ran.stderr or "KSM is in use" in ran.stderr:
        pytest.skip(ran.stderr)
    assert ran.returncode == 0, ran.stderr
    assert "ksmd here" in ran.stdout
    found = entries(tmp_path / "pass.json")
    assert "pass, 320 pages: symbolic, merging, against ksmd" in found
    assert "pass, 320 pages: bytes, all three and hashing, against ksmd" in found
    assert knobs.saved() == before


def test_scaling(run: Run, tmp_path: Path) -> None:
    plot = tmp_path / "scaling.svg"
    file = tmp_path / "scaling.json"
    ran = run(*SCALING, "--engine", "inline", "--json", str(file), "--plot", str(plot))
    assert (ran.code, ran.err) == (0, "")
    assert "Strong scaling" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert list(entries(file)) == [
        *(
            f"scaling, inline, 64 pages a node: {nodes}{what}"
            for nodes in ("1 node", "2 nodes")
            for what in ("", ", time a page against the best")
        ),
    ]
    assert ET.parse(plot).getroot().tag.endswith("svg")


def test_scaling_on_ray(tmp_path: Path) -> None:
    plot, file = tmp_path / "scaling.png", tmp_path / "scaling.json"
    arguments = [*SCALING[1:], "--processes", "2", "--json", str(file), "--plot", str(plot)]
    ran = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    strong = {f"scaling, 2 nodes of 64 pages: 2 processes {what}against 1" for what in ("", "apart ")}
    assert strong <= set(entries(file))
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_startup(tmp_path: Path) -> None:
    file = tmp_path / "startup.json"
    arguments = ["startup", "--nodes", "2", "--nodes-per-actor", "2", "--repeat", "1", "--json", str(file)]
    ran = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert list(entries(file)) == ["startup, 2 nodes, 2 an actor: against Ray alone"]


def test_compaction(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "compaction.json"
    ran = run("bench", "compaction", "--short", "--nodes", "1", "--quiet", "--json", str(file))
    assert (ran.code, ran.err) == (0, "")
    assert list(entries(file)) == [
        "compaction, compaction-zram, 1 node of 64MiB: moves",
        "compaction, compaction-zram, 1 node of 64MiB: moves a second",
    ]


def test_memory(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    sizes = "80000,160000"
    ran = run("bench", "memory", "--nodes", "1", "--pages-per-node", sizes, "--json", str(file))
    assert ran.code == 0, ran.err
    assert ran.err.splitlines() == ["1 node of 80,000 pages", "1 node of 160,000 pages"]
    assert "16 TiB" in ran.out
    assert list(entries(file)) == [
        f"memory, inline, 1 node{of}"
        for of in (
            " of 80000 pages: peak",
            " of 80000 pages: steady",
            " of 160000 pages: peak",
            " of 160000 pages: steady",
            ": peak, fitted",
            ": steady, fitted",
        )
    ]


def test_memory_leaves_out_what_does_not_fit(run: Run) -> None:
    sizes = "80000,160000,800000000000"
    ran = run("bench", "memory", "--nodes", "1", "--pages-per-node", sizes, "--quiet")
    assert ran.code == 0, ran.err
    assert "Not run: too little memory" in ran.out
    assert ran.out.splitlines()[-2].startswith("  800,000,000,000  ")


@pytest.mark.parametrize(("factor", "code"), [(0.001, 0), (1000.0, 1)])
def test_compared_with_a_baseline(run: Run, tmp_path: Path, factor: float, code: int) -> None:
    file = tmp_path / "pass.json"
    assert run(*PASS, "--json", str(file)).code == 0
    scaled = [entry | {"value": entry["value"] * factor} for entry in json.loads(file.read_text())]
    file.write_text(json.dumps(scaled))
    ran = run(*PASS, "--compare", str(file), "--max-regression", "50%")
    assert (ran.code, ran.err) == (code, "")
    last = ran.out.splitlines()[-1]
    worse = "worse by more than 50 %: pass, 320 pages: bytes, steady"
    assert last == (worse if code else "nothing is worse by more than 50 %")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("pass --pages 33", "error: --pages 33: give a multiple of 32"),
        ("pass --compare gone.json", "error: --compare gone.json: No such file"),
        ("pass --max-regression much", "error: --max-regression much: give a share"),
        ("pass --json gone/pass.json", "error: --json gone/pass.json: there is no directory gone; create it"),
        ("scaling --nodes 1,none", "error: --nodes: give numbers from 1 to 1,024, separated by commas"),
        ("scaling --nodes 1025", "error: --nodes: give numbers from 1 to 1,024"),
        ("scaling --pages-per-node 0", "error: --pages-per-node: must be at least 1"),
        ("startup --nodes 1025", "error: --nodes: must be at most 1024"),
        ("scaling --pages-per-node 9", "error: --pages-per-node 9: give a multiple of 8"),
        ("scaling --plot plot.txt", "error: --plot plot.txt: give a name that ends in .png, .svg or .pdf"),
        ("startup --nodes-per-actor 0", "error: --nodes-per-actor: give numbers from 1 to 1,024"),
        ("compaction gone", "error: there is no scenario gone"),
        ("memory --nodes 1 --pages-per-node 80", "error: --pages-per-node: give at least two sizes"),
    ],
)
def test_mistakes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("bench", *arguments.split(), "--quiet")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(text)
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        ("pass", "--json", "theirs.json"),
        ("pass", "--json", "nosuch/../theirs.json"),
        ("pass", "--json", "link"),
        ("pass", "--json", "~/theirs.json"),
        ("scaling", "--json", "theirs.json"),
        ("scaling", "--plot", "theirs.png"),
        ("scaling", "--plot", "theirs.svg"),
    ],
)
def test_other_files_are_not_replaced(
    run: Run,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
    for theirs in ("theirs.json", "theirs.png", "theirs.svg"):
        Path(theirs).write_text('[{"name": "theirs", "value": 1}]')
    Path("link").symlink_to("theirs.json")
    ran = run("bench", command, option, name, "--quiet")
    says = "this command did not write the existing file; choose another name"
    assert ran == (2, "", f"error: {option} {name}: {says}\n")
    assert {file.read_text() for file in tmp_path.iterdir()} == {'[{"name": "theirs", "value": 1}]'}
    assert len(list(tmp_path.iterdir())) == 4


def test_earlier_files_are_replaced_and_links_stay(run: Run, tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("made.json", "made.svg", "made.png")]
    links = [path.with_stem("link") for path in made]
    for link, path in zip(links, made, strict=True):
        link.symlink_to(path.name)  # dangling at first
    before = [b""] * 3
    for repeat in ("1", "2"):
        for plot in links[1:]:
            options = ("--json", str(links[0]), "--plot", str(plot), "--repeat", repeat)
            assert run(*SCALING, "--engine", "inline", *options).code == 0
        assert all(link.is_symlink() for link in links)
        after = [path.read_bytes() for path in made]
        assert all(new != old for new, old in zip(after, before, strict=True))
        before = after
    assert sorted(tmp_path.iterdir()) == sorted(links + made)


def test_a_directory_is_no_file(run: Run, tmp_path: Path) -> None:
    ran = run(*PASS, "--json", str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: --json {tmp_path}: it is not a regular file; choose another name\n"


def test_a_file_that_cannot_be_written(run: Run) -> None:
    ran = run(*PASS, "--json", "/dev/full")
    assert (ran.code, ran.err) == (1, "error: cannot write /dev/full: No space left on device\n")
    assert Path("/dev/full").is_char_device()


def test_where_no_file_can_be_is_found_before_the_work(run: Run) -> None:
    """Not even root may make files in /proc."""
    ran = run("bench", "scaling", "--short", "--engine", "inline", "--plot", "/proc/s.png")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: --plot /proc/s.png: /proc is not writable: ")
    assert ran.err.count("\n") == 1
