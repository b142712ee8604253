"""The shell lines for a real machine; run in a folder that stands for /sys/kernel/mm/ksm."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import ksmcluster
from cluster.spec.profile import PROFILES
from ksmcluster.config import Overrides, load, load_compaction
from ksmcluster.config.ksmd import KsmConfig
from ksmcluster.experiments.knobs import shell_lines
from tests.ksmcluster.conftest import Run, result_of


def written(text: str, folder: Path) -> list[tuple[str, str]]:
    """What the lines write to which file, in order; a shell runs them, and leaves the last value of each."""
    folder.mkdir()
    script = text.replace("cd /sys/kernel/mm/ksm", f"cd {folder}")
    subprocess.run(["sh", "-e"], input=script, text=True, check=True)
    found = re.findall(r"^echo (\S+) > (\w+)", text, re.MULTILINE)
    left = {file.name: file.read_text().strip() for file in folder.iterdir()}
    assert left == {name: value for value, name in found}
    return [(name, value) for value, name in found]


def ksm(*settings: str) -> dict[str, Any]:
    return load("tiny", Overrides(settings=settings)).ksm.model_dump(exclude_none=True)


def lines(*settings: str) -> str:
    return "".join(f"{line}\n" for line in shell_lines(ksm(*settings)))


def test_every_knob_of_the_kernel_is_written(tmp_path: Path) -> None:
    found = written(lines("ksm.pages_to_scan=77", "ksm.max_page_sharing=5"), tmp_path / "ksm")
    last = dict(found)
    assert last["pages_to_scan"] == "77"
    assert last["max_page_sharing"] == "5"
    assert last["run"] == "1"
    assert found[0] == ("run", "2")
    assert found[-1] == ("run", "1")
    knobs = {"run", "pages_to_scan", "sleep_millisecs", "merge_across_nodes", *PROFILES["6.18"].knobs}
    assert set(last) == {name for name in knobs if not name.startswith("advisor_") or name == "advisor_mode"}


def test_the_advisor_sets_pages_to_scan(tmp_path: Path) -> None:
    found = written(lines("ksm.advisor_mode=scan-time", "ksm.advisor_max_cpu=33"), tmp_path / "ksm")
    names = [name for name, _ in found]
    assert "pages_to_scan" not in names
    assert dict(found)["advisor_max_cpu"] == "33"
    assert dict(found)["advisor_mode"] == "scan-time"


def test_an_old_kernel_lacks_knobs() -> None:
    text = "\n".join(shell_lines(KsmConfig(kernel="4.8").model_dump(exclude_none=True)))
    assert "smart_scan" not in text
    assert "advisor" not in text
    assert "echo 100 > pages_to_scan" in text


def test_a_ksmd_for_each_node_is_no_knob() -> None:
    text = lines("ksm.merge_across_nodes=0", "ksm.threads=per-node")
    assert "# ksm.threads = per-node: no kernel has" in text


def test_of_a_run(run: Run, tmp_path: Path) -> None:
    config = load("tiny", Overrides(settings=("ksm.sleep_millisecs=7",)))
    result_of(config).save(tmp_path / "out")
    ran = run("knobs", str(tmp_path / "out"))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "".join(f"{line}\n" for line in shell_lines(config.ksm.model_dump(exclude_none=True)))
    assert "echo 7 > sleep_millisecs" in ran.out


def test_of_a_point(run: Run, tmp_path: Path) -> None:
    vary = {"ksm.sleep_millisecs": [5, 50], "ksm.max_page_sharing": [1, 256]}
    ksmcluster.sweep("tiny", vary, output=tmp_path / "out")
    ran = run("knobs", str(tmp_path / "out"), "--point", "4")
    assert ran.out.startswith(
        f"# point 4 of {tmp_path / 'out'}: ksm.sleep_millisecs=50, ksm.max_page_sharing=256"
    )
    assert "echo 50 > sleep_millisecs" in ran.out
    for point, says in {
        "1": "point 1 has no KSM settings",
        "5": "the points are 1 to 4",
        "0": "the points are",
    }.items():
        ran = run("knobs", str(tmp_path / "out"), "--point", point)
        assert (ran.code, ran.out) == (2, "")
        assert says in ran.err


@pytest.mark.parametrize("options", [(), ("--point", "1")])
def test_without_ksmd(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    small = load_compaction("compaction-gpu", Overrides(1, settings=("machine.memory_per_node=16MiB",)))
    ksmcluster.compact(small, engine="inline").save(tmp_path / "out")
    ran = run("knobs", str(tmp_path / "out"), *options)
    assert (ran.code, ran.out) == (2, "")
    assert ("which has no KSM settings" if not options else "is not a sweep") in ran.err
