"""The host of live processes: kernel, timer, KSM and huge page settings, NUMA nodes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ksmcluster.snapshot import HostInfo, NumaNode
from ksmcluster.system.kernel_files import KSM
from ksmcluster.system.timer import kernel_hz

_THP = Path("/sys/kernel/mm/transparent_hugepage")
_THP_FILES = ("enabled", "defrag", "use_zero_page", "shrink_underused")
_NODES = Path("/sys/devices/system/node")


def host_info() -> HostInfo:
    """Return the facts about the host; all are readable without root."""
    release = os.uname().release
    thp = {name: _read(_THP / name) for name in _THP_FILES if (_THP / name).is_file()}
    khugepaged = _THP / "khugepaged"
    if khugepaged.is_dir():
        thp |= {f"khugepaged/{file.name}": _read(file) for file in sorted(khugepaged.iterdir())}
    return HostInfo(
        kernel_release=release,
        hz=kernel_hz(release),
        ksm={file.name: _read(file) for file in sorted(KSM.iterdir())} if KSM.is_dir() else {},
        thp=thp,
        nodes=_nodes(),
    )


def _read(file: Path) -> str:
    return file.read_text().strip()


def _nodes() -> tuple[NumaNode, ...]:
    found = []
    for folder in _NODES.glob("node[0-9]*"):
        memory = re.search(r"MemTotal:\s+(\d+) kB", _read(folder / "meminfo"))
        distances = tuple(map(int, _read(folder / "distance").split()))
        found.append(NumaNode(int(folder.name[4:]), int(memory[1]) * 1024 if memory else 0, distances))
    return tuple(sorted(found, key=lambda node: node.id))
