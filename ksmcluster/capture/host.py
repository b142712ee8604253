"""The host of live processes: kernel, timer, KSM and huge page settings, NUMA nodes."""

from __future__ import annotations

import gzip
import os
import re
import time
from pathlib import Path

from ksmcluster.snapshot import HostInfo, NumaNode
from ksmcluster.system.kernel_files import KSM

_THP = Path("/sys/kernel/mm/transparent_hugepage")
_THP_FILES = ("enabled", "defrag", "use_zero_page", "shrink_underused")
_NODES = Path("/sys/devices/system/node")
_CLOCK_MONOTONIC_COARSE = 6
"""Its resolution is one timer tick."""


def host_info() -> HostInfo:
    """Return what there is to know; everything is readable without root."""
    release = os.uname().release
    thp = {name: _read(_THP / name) for name in _THP_FILES if (_THP / name).is_file()}
    khugepaged = _THP / "khugepaged"
    if khugepaged.is_dir():
        thp |= {f"khugepaged/{file.name}": _read(file) for file in sorted(khugepaged.iterdir())}
    return HostInfo(
        kernel_release=release,
        hz=_hz(release),
        ksm={file.name: _read(file) for file in sorted(KSM.iterdir())} if KSM.is_dir() else {},
        thp=thp,
        nodes=_nodes(),
    )


def _read(file: Path) -> str:
    return file.read_text().strip()


def _hz(release: str) -> int | None:
    """Return CONFIG_HZ: from the kernel's configuration, else from the coarse clock, which ticks with it."""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{release}")):
        try:
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except OSError:
            continue
        if found := re.search(rb"^CONFIG_HZ=(\d+)$", text, re.MULTILINE):
            return int(found[1])
    tick = time.clock_getres(_CLOCK_MONOTONIC_COARSE)
    return round(1 / tick) if tick >= 1e-4 else None


def _nodes() -> tuple[NumaNode, ...]:
    found = []
    for folder in _NODES.glob("node[0-9]*"):
        memory = re.search(r"MemTotal:\s+(\d+) kB", _read(folder / "meminfo"))
        distances = tuple(map(int, _read(folder / "distance").split()))
        found.append(NumaNode(int(folder.name[4:]), int(memory[1]) * 1024 if memory else 0, distances))
    return tuple(sorted(found, key=lambda node: node.id))
