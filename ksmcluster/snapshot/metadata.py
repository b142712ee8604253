"""The metadata of a snapshot: its host, its processes and its key, as JSON in the Parquet metadata."""

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
from cluster.spec.limits import MOST_CAPTURES, MOST_SECONDS, MOST_STEPS
from ksmcluster.snapshot.schema import FORMAT_VERSION, MAX_MOMENTS
from ksmcluster.system.errors import UserError


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range of a process's virtual pages with one purpose."""

    start_vpn: int
    """First virtual page number (address / 4096)."""
    pages: int
    """Length in pages, including absent pages."""
    permissions: str
    """As in /proc/PID/maps, such as `rw-p`; the last character is `?` if a core file does not tell."""
    name: str
    """Backing file or kernel name such as `[heap]`; may be empty."""
    private_anonymous: bool
    """Whether it is private memory without a backing file."""
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
    """Disjoint and ascending; they cover the pages of every moment."""
    parent: int | None = None
    """Index of its parent among the captured processes."""
    pinned_pages: int | None = None
    """Pages that cannot move or merge (`VmPin`) at the first moment."""
    ksm_stat: dict[str, int] | None = None
    """/proc/PID/ksm_stat at the first moment, with yes and no as 1 and 0."""


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node of the host."""

    id: int
    memory_bytes: int
    distances: tuple[int, ...]
    """Distances to all nodes, in the order of the list; SLIT units."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """The machine whose live processes were captured."""

    kernel_release: str
    hz: int | None = None
    """Timer ticks per second (CONFIG_HZ)."""
    ksm: dict[str, str] = field(default_factory=dict)
    """Contents of every file of /sys/kernel/mm/ksm at the first moment."""
    thp: dict[str, str] = field(default_factory=dict)
    """Settings of transparent huge pages, including khugepaged."""
    nodes: tuple[NumaNode, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The key of a snapshot's digests, without the key itself."""

    mode: Literal["random", "file", "none"]
    fingerprint: str | None
    """Equal for equal keys and reveals nothing else; None for unkeyed digests."""


@dataclass(frozen=True, slots=True)
class Note:
    """A note on the limits of a snapshot."""

    code: str
    """One word for programs, such as `interval`."""
    text: str
    """One sentence for people: the limit, and its effect on the result."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The JSON under the Parquet metadata key `ksmcluster`."""

    version: int
    page_size: int
    key: KeyInfo
    captured_at: str
    """UTC, ISO 8601."""
    kernel_release: str | None
    """The machine of the captured live processes; None for files."""
    all_pages: bool
    vanished_pages: int
    """Pages that disappeared during the capture."""
    moments: tuple[float, ...]
    """Seconds since the first moment."""
    processes: tuple[SnapshotProcess, ...]
    host: HostInfo | None = None
    """None if only files were captured, and in format 1."""
    tracking: Literal["soft-dirty", "ptrace"] | None = None
    """How written pages were tracked; None if they were not."""
    interval: float | None = None
    """Requested seconds between moments; None if written pages were not tracked."""
    notes: tuple[Note, ...] = ()


_METADATA: TypeAdapter[Metadata] = TypeAdapter(Metadata)


def to_json(metadata: Metadata) -> bytes:
    """Return the metadata as JSON."""
    return _METADATA.dump_json(metadata)


def from_json(text: bytes, named: str) -> Metadata:
    """Return the metadata of a snapshot; `named` is its name in messages.

    Raises UserError if it is damaged, has a newer format, or breaks a rule of the format.
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
    """Return the rule of the format that the metadata break, if any."""
    moments = metadata.moments
    if metadata.version < 1:
        return f"version {metadata.version} never existed"
    if metadata.page_size != PAGE_SIZE:
        return f"its pages have {metadata.page_size} bytes instead of {PAGE_SIZE}"
    if not 0 < len(moments) <= MAX_MOMENTS:
        return f"it has {len(moments)} moments instead of 1 to {MAX_MOMENTS}"
    if not all(isfinite(moment) for moment in moments) or moments[0] != 0:
        return "its moments are not finite or do not start at 0"
    if any(later <= earlier for earlier, later in pairwise(moments)):
        return "its moments do not ascend"
    if metadata.interval is not None and not 0 < metadata.interval < inf:
        return f"its interval is {metadata.interval} s"
    if moments[-1] > min(MOST_SECONDS, (metadata.interval or inf) * MOST_STEPS):
        return f"its last moment is at {moments[-1]} s, with an interval of {metadata.interval} s"
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
            return f"the mapping at page {mapping.start_vpn:#x} is empty or out of order"
        end = mapping.end_vpn
    if process.parent is not None and not (0 <= process.parent < processes and process.parent != index):
        return f"its parent {process.parent} is not another process"
    if process.pinned_pages is not None and process.pinned_pages < 0:
        return f"{process.pinned_pages} pinned pages"
    if (process.ksm_stat or {}).get("ksm_zero_pages", 0) < 0:
        return "its number of ksm_zero_pages is negative"
    return None


def cover(earlier: Sequence[Mapping], later: Sequence[Mapping]) -> tuple[Mapping, ...]:
    """Return disjoint ascending mappings over all pages of both; where they overlap, the earlier ones win.

    Both must be disjoint and ascending. Neighbours that differ only in their range are joined.
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
