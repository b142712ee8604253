"""Shell commands that apply the KSM settings of a scenario to a real machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ksmcluster.system.kernel_files import KSM

#: The kernel accepts these only while nothing is merged.
_WHILE_EMPTY = ("merge_across_nodes", "max_page_sharing")
_FREE = ("use_zero_pages", "smart_scan", "stable_node_chains_prune_millisecs", "sleep_millisecs")
_ADVISOR = (
    "advisor_target_scan_time",
    "advisor_max_cpu",
    "advisor_min_pages_to_scan",
    "advisor_max_pages_to_scan",
)


def shell_lines(ksm: Mapping[str, Any]) -> list[str]:
    """Return the commands for the keys of [ksm], without knobs that its kernel does not have."""
    return list(_lines(ksm))


def _lines(ksm: Mapping[str, Any]) -> Iterator[str]:
    yield f"# ksmd of Linux {ksm['kernel']}; run as root"
    yield f"cd {KSM}"
    yield "echo 2 > run  # unmerges all pages, which needs free memory; without it, the next settings fail"
    for name in (*_WHILE_EMPTY, *_FREE):
        if name in ksm:
            yield f"echo {ksm[name]} > {name}"
    yield from _speed(ksm)
    if ksm["threads"] == "per-node":
        yield "# ksm.threads = per-node: no kernel has one ksmd per node; this sets the single ksmd"
    yield f"echo {ksm['run']} > run"


def _speed(ksm: Mapping[str, Any]) -> Iterator[str]:
    """Yield the scan speed: of the advisor, or pages_to_scan, which an advisor would overwrite."""
    advisor = ksm.get("advisor_mode")
    if advisor == "scan-time":
        for name in filter(ksm.__contains__, _ADVISOR):
            yield f"echo {ksm[name]} > {name}"
        yield f"echo {advisor} > advisor_mode"
        return
    if advisor is not None:
        yield f"echo {advisor} > advisor_mode"
    yield f"echo {ksm['pages_to_scan']} > pages_to_scan"
