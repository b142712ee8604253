"""The mappings of a process: /proc/PID/smaps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.spec.content import PAGE_SIZE
from ksmcluster.snapshot import Mapping

_NEVER_MERGED = frozenset({"sh", "ms", "io", "pf", "de", "mm", "ht", "dp"})
"""VmFlags of mappings that KSM does not scan: shared, device, special, huge TLB and droppable ones."""
_UNREADABLE = frozenset({"io", "pf"})
"""VmFlags of mappings without pages of memory behind them."""
_ADVISED = "mg"
"""VmFlag of VM_MERGEABLE: madvise or prctl asked for KSM."""
_SPECIAL = frozenset({"[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]"})
"""Mappings that the kernel creates in every process."""

_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)")


@dataclass(frozen=True, slots=True)
class Area:
    """A mapping, and the facts that decide which of its pages are read."""

    mapping: Mapping
    resident: bool
    """Whether it has any page in memory or swap, not counting shared zero pages."""
    vm_flags: frozenset[str]

    @property
    def mergeable(self) -> bool:
        """Return whether KSM could merge its pages after madvise or prctl (vma_ksm_compatible())."""
        return not self.vm_flags & _NEVER_MERGED

    def wanted(self, all_pages: bool) -> bool:
        """Return whether it may have pages to capture."""
        if all_pages:
            return not self.vm_flags & _UNREADABLE
        return self.mergeable


def parse_smaps(text: str) -> list[Area]:
    """Return the mappings in the text of /proc/PID/smaps, in its order."""
    areas: list[Area] = []
    header: re.Match[str] | None = None
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if found := _HEADER.match(line):
            if header:
                areas.append(_area(header, fields))
            header, fields = found, {}
            continue
        field, _, value = line.partition(":")
        fields[field] = value.strip()
    if header:
        areas.append(_area(header, fields))
    return areas


def _area(header: re.Match[str], fields: dict[str, str]) -> Area:
    start, end, permissions, inode, name = header.groups()
    first = int(start, 16) // PAGE_SIZE
    flags = frozenset(fields.get("VmFlags", "").split())
    eligible = fields.get("THPeligible")
    mapping = Mapping(
        start_vpn=first,
        pages=int(end, 16) // PAGE_SIZE - first,
        permissions=permissions,
        name=name,
        private_anonymous=permissions[3] == "p" and inode == "0" and name not in _SPECIAL,
        advised=_ADVISED in flags if flags else None,
        thp_eligible=eligible == "1" if eligible is not None else None,
    )
    resident = any(fields.get(field, "0 kB") != "0 kB" for field in ("Rss", "Swap"))
    return Area(mapping, resident, flags)
