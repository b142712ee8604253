"""Reads /proc: kernel threads, and processes and their memory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.script.engine import NO_FRAME, SWAPPED
from cluster.spec.content import PAGE_SIZE
from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import PROC, ksm_users, parent_of, parsed_ksm_stat, read, text

_PRESENT, _SWAPPED = np.uint64(1 << 63), np.uint64(1 << 62)
_FRAME = np.uint64((1 << 55) - 1)
_KTHREADD = 2  #: parent of all kernel threads


def kernel_thread(name: str) -> Path:
    """Return the folder of a kernel thread. Raises UserError if it is not visible."""
    for comm in PROC.glob("[0-9]*/comm"):
        if read(comm) == f"{name}\n" and parent_of(int(comm.parent.name)) == _KTHREADD:
            return comm.parent
    raise UserError(f"{name} is not visible in {PROC}: run outside containers")


def ksm_stat(pid: int) -> dict[str, int | str]:
    """Return the fields of ksm_stat, and ksm_merging_pages, as far as this kernel has them."""
    fields = parsed_ksm_stat(text(pid, "ksm_stat"))
    if merging := text(pid, "ksm_merging_pages"):
        fields["ksm_merging_pages"] = int(merging)
    return fields


def users_of_ksm(but: Collection[int]) -> list[str]:
    """Return other processes with mergeable memory, as texts with name and PID."""
    return [f"{text(pid, 'comm').strip() or 'process'} ({pid})" for pid in ksm_users() if pid not in but]


def frames(pid: int, address: int, pages: int) -> NDArray[np.int64]:
    """Return the frame of each page; NO_FRAME or SWAPPED if it has none.

    Raises UserError if the kernel hides frames.
    """
    with (PROC / str(pid) / "pagemap").open("rb") as file:
        file.seek(address // PAGE_SIZE * 8)
        entries = np.frombuffer(file.read(pages * 8), dtype=np.uint64)
    present = entries & _PRESENT != 0
    found = (entries & _FRAME).astype(np.int64)
    if not found[present].all():
        raise UserError(f"{PROC}/{pid}/pagemap hides frames: run with the capability CAP_SYS_ADMIN")
    swapped = entries & _SWAPPED != 0
    return np.where(present, found, np.where(swapped, SWAPPED, NO_FRAME))


def vmstat(names: Collection[str]) -> dict[str, int]:
    """Return fields of /proc/vmstat, as far as this kernel has them."""
    fields = dict(line.split() for line in (PROC / "vmstat").read_text().splitlines())
    return {name: int(fields[name]) for name in names if name in fields}
