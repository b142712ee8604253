"""Measures the costs of merged pages outside ksmd: writes to them, and mappings when they move."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.spec.content import PAGE_SIZE
from cluster.spec.profile import Profile
from ksmcluster.validate.calibrate.programs import merged
from ksmcluster.validate.children import Children
from ksmcluster.validate.host import FIRST_ADDRESS, HostMachine
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import Ksmd

#: Pages written, pages per measurement, and equal pages per group.
_WRITTEN, _AT_ONCE, _EQUAL = 4096, 512, 16
#: Frames that move, and the mappings that share each.
_FRAMES, _FEW, _MANY = 64, 2, 128
_NODES = Path("/sys/devices/system/node")
_MOVE_PAGES = {"x86_64": 279, "aarch64": 239, "riscv64": 239}  #: system call numbers
_MPOL_MF_MOVE_ALL = 4


def cow_fault_ns(profile: Profile, knobs: Knobs) -> list[float]:
    """Return the time of a write to a KSM page, per batch of pages; empty if none merged."""
    with _merged_process(profile, knobs, _WRITTEN, _EQUAL) as children:
        if knobs.number("pages_sharing") < _WRITTEN // 2:
            return []
        starts = range(0, _WRITTEN, _AT_ONCE)
        spent = [
            int(children.tell("A", "touch", FIRST_ADDRESS + start * PAGE_SIZE, _AT_ONCE)) for start in starts
        ]
    return [ns / _AT_ONCE for ns in spent]


def mapping_ns(profile: Profile, knobs: Knobs) -> list[float]:
    """Return repeated measurements of the time per mapping to move a KSM frame.

    Empty if pages cannot move: on a host with one node, or without permission.
    """
    nodes = [int(folder.name[4:]) for folder in _NODES.glob("node[0-9]*") if _has_memory(folder)]
    number = _MOVE_PAGES.get(platform.machine())
    if len(nodes) < 2 or number is None:
        return []
    few, many = (_move_ns(profile, knobs, number, group, nodes) for group in (_FEW, _MANY))
    per_frame = (_MANY - _FEW) * _FRAMES
    return [(b - a) / per_frame for a, b in zip(few, many, strict=False)]


def _move_ns(profile: Profile, knobs: Knobs, number: int, group: int, nodes: Sequence[int]) -> list[int]:
    """Return the times to move all frames from one node to the next and back."""
    spent = []
    with _merged_process(profile, knobs, _FRAMES * group, group) as children:
        pid = children.pids()["A"]
        pages = (ctypes.c_void_p * _FRAMES)(*(FIRST_ADDRESS + i * PAGE_SIZE for i in range(_FRAMES)))
        status = (ctypes.c_int * _FRAMES)()
        libc = ctypes.CDLL(None, use_errno=True)
        for node in [*nodes[:2], *nodes[:2], nodes[0]]:
            target = (ctypes.c_int * _FRAMES)(*[node] * _FRAMES)
            arguments = (pid, ctypes.c_ulong(_FRAMES), pages, target, status, _MPOL_MF_MOVE_ALL)
            begin = time.perf_counter_ns()
            failed = libc.syscall(number, *arguments)
            ns = time.perf_counter_ns() - begin
            if failed or list(status) != [node] * _FRAMES:
                return []
            spent.append(ns)
    return spent[2:]  # at first, some frames are already there


@contextmanager
def _merged_process(profile: Profile, knobs: Knobs, pages: int, group: int) -> Iterator[Children]:
    """Start process A with `pages` pages that merge in groups of `group`. Leaves the knobs changed."""
    ksmd = Ksmd(knobs)
    with Children(1) as children:
        merged(pages, group, HostMachine(profile, knobs, ksmd, children))
        yield children
        knobs.forget_all()


def _has_memory(node: Path) -> bool:
    return any("MemTotal" in line and int(line.split()[3]) for line in (node / "meminfo").open())
