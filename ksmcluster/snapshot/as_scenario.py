"""Converts a snapshot to a scenario: its host, its KSM settings, its processes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.spec.content import PAGE_SIZE
from cluster.spec.limits import MOST_NAME
from cluster.spec.profile import PROFILES, UnknownKernelError, kernel_of_release
from cluster.spec.scenario import Advice
from ksmcluster.report.text import one_line
from ksmcluster.snapshot.metadata import HostInfo, Metadata
from ksmcluster.snapshot.reader import Snapshot
from ksmcluster.system.errors import UserError

_MAGIC = b"PAR1"
_KNOBS_OF_ALL = ("pages_to_scan", "sleep_millisecs", "merge_across_nodes")
_KNOBS_OF_SOME = (
    "max_page_sharing",
    "use_zero_pages",
    "smart_scan",
    "stable_node_chains_prune_millisecs",
    "advisor_mode",
    "advisor_target_scan_time",
    "advisor_max_cpu",
    "advisor_min_pages_to_scan",
    "advisor_max_pages_to_scan",
)
_ROOM = 2
"""Memory of the machine, as a multiple of the captured pages, if the host is unknown."""
_LEAST_PAGES = 1 << 14
_TITLES: dict[str, str] = {
    Advice.AS_CAPTURED: "KSM with the host's settings",
    Advice.ALL: "KSM if every process enabled it",
}


def is_parquet(path: Path) -> bool:
    """Return whether a file starts like a Parquet file, or has the name of one."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):
        return False
    try:
        named = path.suffix == ".parquet"
        return stat.S_ISREG(os.fstat(file).st_mode) and (named or os.read(file, len(_MAGIC)) == _MAGIC)
    except OSError:
        return False
    finally:
        os.close(file)


def scenario_of(
    path: Path, nodes: int | None = None, count: int | None = None, advice: str | None = None
) -> dict[str, Any]:
    """Return the data of the scenario for a snapshot.

    `nodes`: this many equal nodes instead of the host's own. `count`: number of processes, by default the
    captured ones. `advice`: a value of `cluster.spec.scenario.Advice`, not checked here; by default as
    captured if ksmd scans any of the memory on the host, else all. Raises UserError if the file is not a
    snapshot.
    """
    with Snapshot.open(path) as snapshot:
        metadata, rows = snapshot.metadata, snapshot.rows
    chosen = advice or _default_advice(metadata)
    wanted = count or len(metadata.processes)
    per_process = -(-rows // (len(metadata.processes) * len(metadata.moments)))
    return {
        "simulation": {"title": f"{one_line(path.name)}: {_TITLES.get(chosen, chosen)}"},
        "machine": _machine(metadata.host, nodes, wanted * per_process),
        "ksm": dict(_ksm(metadata)),
        "process": [
            {
                "name": one_line(path.stem)[:MOST_NAME],
                "count": wanted,
                "snapshot": str(path.absolute()),
                "advice": str(chosen),
            }
        ],
    }


def _default_advice(metadata: Metadata) -> Advice:
    mappings = (mapping for process in metadata.processes for mapping in process.mappings)
    return Advice.AS_CAPTURED if any(mapping.advised for mapping in mappings) else Advice.ALL


def _machine(host: HostInfo | None, nodes: int | None, pages: int) -> dict[str, Any]:
    """Return [machine]: the host's nodes, or other nodes with memory for all pages."""
    known = host.nodes if host else ()
    number = nodes or len(known) or 1
    needed = max(_ROOM * pages // number, _LEAST_PAGES)
    memory = max(min((node.memory_bytes for node in known), default=0) // PAGE_SIZE, needed)
    machine: dict[str, Any] = {"nodes": number, "memory_per_node": f"{memory * PAGE_SIZE // 1024}KiB"}
    if nodes is None and len(known) > 1:
        matrix = [" ".join(map(str, node.distances)) for node in known]
        machine["topology"] = {"kind": "matrix", "matrix": matrix}
    return machine


def _ksm(metadata: Metadata) -> Iterator[tuple[str, Any]]:
    """Yield the keys of [ksm]: the host's kernel and knobs, except that ksmd runs."""
    host = metadata.host
    if host is None:
        return
    kernel = _kernel(host.kernel_release)
    yield "kernel", kernel
    if host.hz is not None:
        yield "hz", host.hz
    for knob in (*_KNOBS_OF_ALL, *(name for name in _KNOBS_OF_SOME if name in PROFILES[kernel].knobs)):
        held = host.ksm.get(knob)
        if held is not None:
            chosen = re.search(r"\[(.+)\]", held)
            if chosen is None and not re.fullmatch(r"\d{1,20}", held, re.ASCII):
                raise UserError(f"the snapshot has an invalid {knob} = {held[:80]}: capture it again")
            yield knob, chosen[1] if chosen else int(held)


def _kernel(release: str) -> str:
    """Return the profile of a kernel release; for older kernels, the oldest profile."""
    try:
        return kernel_of_release(release)
    except UnknownKernelError:
        return next(iter(PROFILES))
