"""A capture, from its sources to the finished snapshot."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.frames import FrameColumns, identify
from ksmcluster.capture.hashing import PageHasher
from ksmcluster.capture.host import host_info
from ksmcluster.capture.kpage import KernelPages
from ksmcluster.capture.notes import Counts, notes, tracking_notes
from ksmcluster.capture.process import ProcessGoneError, ProcessSource, stopped
from ksmcluster.capture.select import ALL_ENDED, Wanted
from ksmcluster.capture.source import Chunk, Source, SourceScan
from ksmcluster.capture.tracing.tracker import WriteTracker
from ksmcluster.snapshot import (
    DIGEST_SIZE,
    FORMAT_VERSION,
    KSM,
    MERGEABLE,
    SHARED,
    SHARED_ZERO,
    UNKNOWN,
    WRITTEN,
    ZERO,
    ContentOrder,
    HostInfo,
    KeyInfo,
    Mapping,
    Metadata,
    Note,
    PageRows,
    SnapshotProcess,
    SnapshotWriter,
    content_ids,
    cover,
)
from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import parent_of


@dataclass(frozen=True, slots=True)
class Options:
    """What to capture and how."""

    output: Path
    key: bytes | None
    key_info: KeyInfo
    all_pages: bool = False
    stop: bool = False
    """Stop live processes while they are read."""
    interval: float = 0.0
    """Seconds from the start of one moment to the start of the next."""
    count: int = 1
    """Moments."""
    minimal: bool = False
    """Leave out names, paths, PIDs, the host's topology and the order of contents."""


@dataclass(frozen=True, slots=True)
class MomentSummary:
    """Pages of one moment; contents and duplicates are those of the mergeable pages."""

    seconds: float
    pages: int
    mergeable_pages: int
    zero_pages: int
    distinct_contents: int
    duplicate_pages: int
    """Mergeable pages minus distinct contents."""
    shared_pages: int
    """Mergeable pages in the frame of another one without KSM, as after a fork; 0 if frames are not known."""

    @property
    def saved_pages(self) -> int:
        """The most frames that KSM could save."""
        return max(self.duplicate_pages - self.shared_pages, 0)


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of a capture."""

    processes: int
    moments: tuple[MomentSummary, ...]
    vanished_pages: int
    ended: tuple[int, ...]
    """PIDs of processes that ended during the capture; their last moments may lack pages."""
    memory_bytes: int
    """Bytes of the captured pages at the largest moment."""
    file_bytes: int
    seconds: float
    notes: tuple[Note, ...] = ()
    """Limits of the result; also stored in the snapshot."""


@dataclass(slots=True)
class _Tally:
    """Running counts of one moment; takes 8 bytes per mergeable page, and 4 if frames are known."""

    seconds: float
    pages: int = 0
    zero_pages: int = 0
    contents: list[NDArray[np.uint64]] = field(default_factory=list)
    #: Frames that ksmd has not merged, int32.
    frames: list[NDArray[np.int32]] = field(default_factory=list)

    def add(
        self, digests: NDArray[np.uint8], flags: NDArray[np.uint16], frames: NDArray[np.int64] | None
    ) -> None:
        if frames is not None:
            own = (frames != UNKNOWN) & (flags & MERGEABLE != 0) & (flags & (KSM | SHARED_ZERO) == 0)
            self.frames.append(frames[own].astype(np.int32))
        takes_memory = flags & SHARED_ZERO == 0
        digests, flags = digests[takes_memory], flags[takes_memory]
        zero = flags & ZERO != 0
        self.pages += len(flags)
        self.zero_pages += int(zero.sum())
        self.contents.append(content_ids(digests, zero)[flags & MERGEABLE != 0])

    def summary(self) -> MomentSummary:
        contents = np.concatenate(self.contents) if self.contents else np.empty(0, np.uint64)
        distinct = len(np.unique(contents))
        frames = np.concatenate(self.frames) if self.frames else np.empty(0, np.int32)
        return MomentSummary(
            seconds=self.seconds,
            pages=self.pages,
            mergeable_pages=len(contents),
            zero_pages=self.zero_pages,
            distinct_contents=distinct,
            duplicate_pages=len(contents) - distinct,
            shared_pages=len(frames) - len(np.unique(frames)),
        )


class Session:
    """Takes the moments of a capture one after another."""

    def __init__(
        self,
        sources: Sequence[Source],
        options: Options,
        advance: Callable[[int], None],
        tracker: WriteTracker | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        """`advance` is called with the pages of each chunk; `wanted` finds processes that start later."""
        self._sources = list(sources)
        self._wanted = wanted
        self._newcomers = ExitStack()
        self._options = options
        self._advance = advance
        self._tracker = tracker
        self._hash = PageHasher(options.key)
        #: Only needed for huge pages.
        self._order: ContentOrder | None = None
        self._mappings: list[tuple[Mapping, ...]] = [() for _ in sources]
        self._alive = dict(enumerate(sources))
        live = [source for source in sources if isinstance(source, ProcessSource)]
        self._host: HostInfo | None = host_info() if live else None
        self._counts = Counts()
        self._required = wanted.single if wanted else tuple(source.pid for source in live)
        self._pinned: dict[ProcessSource, int | None] = {}
        self._ksm_stat: dict[ProcessSource, dict[str, int] | None] = {}
        for process, source in enumerate(live):
            with self._may_end(process, 0):
                self._pinned[source] = source.pinned_pages
                self._ksm_stat[source] = source.ksm_stat

    def run(self) -> Summary:
        """Capture everything into the snapshot.

        Raises UserError for errors that the user can fix, such as a process that ended before the first
        moment, and OSError, for example if the disk is full. In both cases no new file is left.
        """
        started = datetime.now(UTC)
        begin = time.monotonic()
        kernel = KernelPages.open() if self._host is not None else None
        self._counts.frames_known = kernel is not None
        with SnapshotWriter(self._options.output) as writer, kernel or nullcontext(), self._newcomers:
            moments = self._take_moments(writer, kernel)
            metadata = self._metadata(started, tuple(moment.seconds for moment in moments))
            live = (source for source in self._sources if isinstance(source, ProcessSource))
            ended = tuple(source.pid for source in live if source.has_ended())
            size = writer.finish(metadata, self._order.contents() if self._order else None)
        return Summary(
            processes=len(self._sources),
            moments=tuple(moments),
            vanished_pages=metadata.vanished_pages,
            ended=ended,
            memory_bytes=PAGE_SIZE * max(moment.pages for moment in moments),
            file_bytes=size,
            seconds=time.monotonic() - begin,
            notes=metadata.notes,
        )

    def _take_moments(self, writer: SnapshotWriter, kernel: KernelPages | None) -> list[MomentSummary]:
        """Capture moments until there are enough or no process is left."""
        moments: list[MomentSummary] = []
        begin = time.monotonic()
        for moment in range(self._options.count):
            time.sleep(max(begin + moment * self._options.interval - time.monotonic(), 0))
            seconds = time.monotonic() - begin if moment else 0.0
            if moment:
                self._find_newcomers()
            summary = self._take(writer, moment, seconds, kernel)
            if not self._alive:
                break
            moments.append(summary)
        return moments

    def _find_newcomers(self) -> None:
        """Start to capture processes that have appeared since the previous moment."""
        if self._wanted is None or not self._wanted.follows:
            return
        known = {source.pid for source in self._sources}
        for pid in _still_there(self._wanted):
            if pid in known:
                continue
            with suppress(UserError):  # it has ended already
                source = self._newcomers.enter_context(closing(ProcessSource(pid)))
                self._alive[len(self._sources)] = source
                self._sources.append(source)
                self._mappings.append(())

    def _take(
        self, writer: SnapshotWriter, moment: int, seconds: float, kernel: KernelPages | None
    ) -> MomentSummary:
        """Capture one moment: list the pages of all processes, then read them process by process."""
        tally = _Tally(seconds)
        live = [source for source in self._alive.values() if isinstance(source, ProcessSource)]
        with stopped(live) if self._options.stop else nullcontext():
            scans = self._scans(moment)
            frames = self._frames(scans, kernel)
            _forget_merges(scans)
            if not self._options.minimal and any((of.huge != UNKNOWN).any() for of in frames.values()):
                self._order = self._order or ContentOrder()
            if moment == 0:
                self._count(scans, frames)
            for process, scan in scans.items():
                self._mappings[process] = cover(self._mappings[process], scan.mappings)
                with self._may_end(process, moment):
                    for chunk in scan.chunks:
                        self._write(writer, process, moment, chunk, frames.get(process), tally)
        return tally.summary()

    @contextmanager
    def _may_end(self, process: int, moment: int) -> Iterator[None]:
        """Skip a process that ends; but raise at the first moment if it is the last or was given by PID."""
        try:
            yield
        except ProcessGoneError as error:
            if moment == 0 and self._sources[process].pid in self._required:
                raise
            if moment == 0 and len(self._alive) == 1:
                raise UserError(ALL_ENDED) from error
            del self._alive[process]

    def _scans(self, moment: int) -> dict[int, SourceScan]:
        scans: dict[int, SourceScan] = {}
        for process, source in list(self._alive.items()):
            with self._may_end(process, moment):
                scan = source.scan(self._options.all_pages)
                if scan.listing is not None:
                    self._track(source, scan, moment)
                scans[process] = scan
        return scans

    def _track(self, source: Source, scan: SourceScan, moment: int) -> None:
        """Mark the pages written since the previous moment."""
        assert isinstance(source, ProcessSource) and scan.listing is not None
        written = self._tracker.written(source, scan.listing) if self._tracker else None
        scan.listing.flags[:] &= ~np.uint16(WRITTEN)
        if written is not None and moment:
            scan.listing.flags[written] |= WRITTEN

    def _frames(self, scans: dict[int, SourceScan], kernel: KernelPages | None) -> dict[int, FrameColumns]:
        listed = {process: scan.listing for process, scan in scans.items() if scan.listing is not None}
        pids = [pid for pid in (self._sources[process].pid for process in listed) if pid is not None]
        nodes = [node.id for node in self._host.nodes] if self._host else []
        return dict(zip(listed, identify(pids, list(listed.values()), kernel, nodes), strict=True))

    def _count(self, scans: dict[int, SourceScan], frames: dict[int, FrameColumns]) -> None:
        """Count mergeable pages of the first moment, for the notes."""
        for process, columns in frames.items():
            listing = scans[process].listing
            assert listing is not None
            own = listing.flags & MERGEABLE != 0
            self._counts.pages += int(own.sum())
            self._counts.shared += int((listing.flags[own] & SHARED != 0).sum())
            self._counts.outside += int((columns.outside[own] > 0).sum())

    def _write(
        self,
        writer: SnapshotWriter,
        process: int,
        moment: int,
        chunk: Chunk,
        frames: FrameColumns | None,
        tally: _Tally,
    ) -> None:
        if chunk.data is None:
            digests, zero = (
                np.zeros((len(chunk.vpn), DIGEST_SIZE), np.uint8),
                np.ones(len(chunk.vpn), np.bool_),
            )
        else:
            digests, zero = self._hash(chunk.data)
        flags = chunk.flags | np.where(zero, ZERO, 0).astype(np.uint16)
        rows = PageRows(chunk.vpn, digests, flags)
        if frames is not None and chunk.at is not None:
            at = chunk.at
            columns = (frames.frame[at], frames.outside[at], frames.huge[at], frames.node[at])
            rows = PageRows(chunk.vpn, digests, flags, *columns)
        writer.write(process, moment, rows)
        if self._order is not None and chunk.data is not None:
            self._order.add(content_ids(digests, zero), chunk.data)
        tally.add(digests, flags, rows.frame)
        self._advance(len(flags))

    def _metadata(self, started: datetime, moments: tuple[float, ...]) -> Metadata:
        minimal = self._options.minimal
        host = self._host
        if host is not None and minimal:
            host = replace(host, nodes=())
        pids = [source.pid for source in self._sources]
        processes = tuple(
            self._process(source, mappings, pids)
            for source, mappings in zip(self._sources, self._mappings, strict=True)
        )
        tracking = self._tracker.method if self._tracker else None
        return Metadata(
            version=FORMAT_VERSION,
            page_size=PAGE_SIZE,
            key=self._options.key_info,
            captured_at=started.isoformat(timespec="milliseconds"),
            kernel_release=host.kernel_release if host else None,
            all_pages=self._options.all_pages,
            vanished_pages=sum(source.vanished for source in self._sources),
            moments=moments,
            processes=processes,
            host=host,
            tracking=tracking,
            interval=(self._options.interval or None) if tracking else None,
            notes=(
                *notes(processes, host, self._counts, moments, self._options.interval, tracking),
                *(tracking_notes(self._tracker.pauses, self._tracker.skipped) if self._tracker else ()),
            ),
        )

    def _process(
        self, source: Source, mappings: tuple[Mapping, ...], pids: Sequence[int | None]
    ) -> SnapshotProcess:
        live = source if isinstance(source, ProcessSource) else None
        if self._options.minimal:
            mappings = tuple(replace(mapping, name="") for mapping in mappings)
        return SnapshotProcess(
            pid=None if self._options.minimal else source.pid,
            name="" if self._options.minimal else source.name,
            source=source.kind,
            mappings=mappings,
            parent=_place(pids, live) if live else None,
            pinned_pages=self._pinned.get(live) if live else None,
            ksm_stat=self._ksm_stat.get(live) if live else None,
        )


def _forget_merges(scans: dict[int, SourceScan]) -> None:
    """Unmark pages that ksmd merged: to write protection, a merge looks like a write."""
    for scan in scans.values():
        if scan.listing is not None:
            merged = scan.listing.flags & KSM != 0
            scan.listing.flags[merged] &= ~np.uint16(WRITTEN)


def _still_there(wanted: Wanted) -> list[int]:
    """Return the wanted PIDs; empty if all have ended."""
    try:
        return wanted.pids()
    except UserError:
        return []


def _place(pids: Sequence[int | None], source: ProcessSource) -> int | None:
    """Return the index of a process's parent among the captured processes."""
    parent = parent_of(source.pid)
    return pids.index(parent) if parent in pids else None
