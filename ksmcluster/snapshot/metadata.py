"""What a snapshot tells about its host, its processes and its key: JSON in the Parquet metadata."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from math import inf, isfinite
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from cluster.spec.content import PAGE_SIZE
from cluster.spec.limits import MOST_CAPTURES
from ksmcluster.snapshot.schema import FORMAT_VERSION, MAX_MOMENTS
from ksmcluster.system.errors import UserError


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range of a process's virtual pages with one purpose."""

    start_vpn: int
    """First virtual page number (address / 4096)."""
    pages: int
    """Length in pages, present or not."""
    permissions: str
    """As in /proc/PID/maps, such as `rw-p`; `?` in the last place where a core file does not tell."""
    name: str
    """Backing file or kernel name such as `[heap]`; empty when it has none."""
    private_anonymous: bool
    """Private memory without a file behind it."""
    advised: bool | None = None
    """Whether ksmd scans it (`VmFlags: mg`); None if the source does not tell."""
    thp_eligible: bool | None = None
    """Whether the kernel may put huge pages here (`THPeligible` of smaps)."""

    @property
    def end_vpn(self) -> int:
        """Virtual page number after the last one."""
        return self.start_vpn + self.pages


@dataclass(frozen=True, slots=True)
class SnapshotProcess:
    """A captured process."""

    pid: int | None
    """Its PID when captured or dumped; None for a raw memory image and with `--minimal`."""
    name: str
    """Command name, or the file's name for a raw memory image."""
    source: Literal["process", "core", "image"]
    mappings: tuple[Mapping, ...]
    """Disjoint, ascending; they cover the pages of every moment."""
    parent: int | None = None
    """Place of its parent among the captured processes."""
    pinned_pages: int | None = None
    """Pages that cannot move or merge (`VmPin`) at the first moment."""
    ksm_stat: dict[str, int] | None = None
    """/proc/PID/ksm_stat at the first moment; yes and no are 1 and 0."""


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node of the host."""

    id: int
    memory_bytes: int
    distances: tuple[int, ...]
    """To each node, in the order of the list; SLIT units."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """The machine whose live processes were captured."""

    kernel_release: str
    hz: int | None = None
    """Timer ticks a second (CONFIG_HZ)."""
    ksm: dict[str, str] = field(default_factory=dict)
    """Every file of /sys/kernel/mm/ksm and what it held at the first moment."""
    thp: dict[str, str] = field(default_factory=dict)
    """Settings of transparent huge pages, khugepaged's among them."""
    nodes: tuple[NumaNode, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a snapshot tells about the key of its digests."""

    mode: Literal["random", "file", "none"]
    fingerprint: str | None
    """Equal for equal keys, tells nothing else about them; None for unkeyed digests."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that limits what a snapshot can answer."""

    code: str
    """One word for programs, such as `interval`."""
    text: str
    """One sentence for people: what it is, and what it means for the answer."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The JSON under the Parquet metadata key `ksmcluster`."""

    version: int
    page_size: int
    key: KeyInfo
    captured_at: str
    """UTC, ISO 8601."""
    kernel_release: str | None
    """Of the machine whose live processes were captured; None for files."""
    all_pages: bool
    vanished_pages: int
    """Pages that went away while they were being captured."""
    moments: tuple[float, ...]
    """Seconds since the first moment."""
    processes: tuple[SnapshotProcess, ...]
    host: HostInfo | None = None
    """None for files alone, and in format 1."""
    tracking: Literal["soft-dirty", "ptrace"] | None = None
    """How written pages were found; None if they were not."""
    interval: float | None = None
    """Seconds between moments that the capture was asked for; None if written pages were not tracked."""
    notes: tuple[Note, ...] = ()


_METADATA: TypeAdapter[Metadata] = TypeAdapter(Metadata)


def to_json(metadata: Metadata) -> bytes:
    """Return the metadata as JSON."""
    return _METADATA.dump_json(metadata)


def from_json(text: bytes, named: str) -> Metadata:
    """Return the metadata of a snapshot that is called `named` in messages.

    Raises UserError if it is damaged, or of a newer format, or breaks a rule of the format.
    """
    try:
        found: Any = json.loads(text)
        version = int(found["version"])
        if version > FORMAT_VERSION:
            raise UserError(
                f"{named} has snapshot format {version}, newer than {FORMAT_VERSION}: upgrade ksmcluster"
            )
        metadata = _METADATA.validate_python(found)
    except (ValueError, KeyError, TypeError, ValidationError, OverflowError, RecursionError) as error:
        raise UserError(f"{named} has damaged snapshot metadata: capture it again") from error
    broken = _broken_rule(metadata)
    if broken:
        raise UserError(f"{named} breaks the snapshot format, {broken}: capture it again")
    return metadata


def _broken_rule(metadata: Metadata) -> str | None:
    """Say which rule of the format the metadata break, if any."""
    moments = metadata.moments
    if metadata.version < 1:
        return f"version {metadata.version} never existed"
    if metadata.page_size != PAGE_SIZE:
        return f"its pages have {metadata.page_size} bytes, not {PAGE_SIZE}"
    if not 0 < len(moments) <= MAX_MOMENTS:
        return f"it has {len(moments)} moments, not 1 to {MAX_MOMENTS}"
    if not all(isfinite(moment) for moment in moments) or moments[0] != 0:
        return "its moments are not numbers from 0 on"
    if any(later <= earlier for earlier, later in pairwise(moments)):
        return "its moments do not ascend"
    if metadata.interval is not None and not 0 < metadata.interval < inf:
        return f"its interval is {metadata.interval} s"
    if not metadata.processes:
        return "it has no process"
    return _broken_processes(metadata)


def _broken_processes(metadata: Metadata) -> str | None:
    if len(metadata.processes) * len(metadata.moments) > MOST_CAPTURES:
        return f"it has more than {MOST_CAPTURES:,} moments of processes"
    for index, process in enumerate(metadata.processes):
        broken = _broken_process(process, len(metadata.processes), index)
        if broken:
            return f"process {index}: {broken}"
    return None


def _broken_process(process: SnapshotProcess, processes: int, index: int) -> str | None:
    end = 0
    for mapping in process.mappings:
        if mapping.start_vpn < end or mapping.pages <= 0 or mapping.end_vpn > 1 << 52:
            return f"the mapping at page {mapping.start_vpn:#x} is empty, or not behind the one before it"
        end = mapping.end_vpn
    if process.parent is not None and not (0 <= process.parent < processes and process.parent != index):
        return f"its parent {process.parent} is no other process"
    if process.pinned_pages is not None and process.pinned_pages < 0:
        return f"{process.pinned_pages} pinned pages"
    return None


def cover(earlier: Sequence[Mapping], later: Sequence[Mapping]) -> tuple[Mapping, ...]:
    """Return disjoint ascending mappings over all pages of both; where they overlap the earlier ones stay.

    Both must be disjoint and ascending. Neighbours that differ in nothing but their range are joined.
    """
    if list(earlier) == list(later):
        return tuple(earlier)
    starts = [mapping.start_vpn for mapping in earlier]
    pieces = list(earlier)
    for mapping in later:
        start = mapping.start_vpn
        first = max(bisect_right(starts, start) - 1, 0)
        for taken in islice(earlier, first, bisect_left(starts, mapping.end_vpn)):
            if taken.start_vpn > start:
                pieces.append(_part(mapping, start, taken.start_vpn))
            start = max(start, taken.end_vpn)
        if start < mapping.end_vpn:
            pieces.append(_part(mapping, start, mapping.end_vpn))
    return _joined(sorted(pieces, key=lambda piece: piece.start_vpn))


def _part(mapping: Mapping, start: int, end: int) -> Mapping:
    return replace(mapping, start_vpn=start, pages=end - start)


def _joined(pieces: Iterable[Mapping]) -> tuple[Mapping, ...]:
    joined: list[Mapping] = []
    for piece in pieces:
        if joined and piece == _part(joined[-1], joined[-1].end_vpn, piece.end_vpn):
            piece = _part(piece, joined.pop().start_vpn, piece.end_vpn)
        joined.append(piece)
    return tuple(joined)
