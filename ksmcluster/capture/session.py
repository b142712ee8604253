"""A capture from its sources to the finished snapshot."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture.hashing import PageHasher
from ksmcluster.capture.proc import ProcessGoneError, ProcessSource, stopped
from ksmcluster.capture.snapshot import (
    FORMAT_VERSION,
    MERGEABLE,
    ZERO,
    KeyInfo,
    Mapping,
    Metadata,
    SnapshotProcess,
    SnapshotWriter,
    content_ids,
    cover,
)
from ksmcluster.capture.source import Source


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


@dataclass(frozen=True, slots=True)
class MomentSummary:
    """Pages of one moment; contents and duplicates are those of the mergeable pages."""

    seconds: float
    pages: int
    mergeable_pages: int
    zero_pages: int
    distinct_contents: int
    duplicate_pages: int
    """What KSM could save at best: mergeable pages less distinct contents."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a capture took."""

    processes: int
    moments: tuple[MomentSummary, ...]
    vanished_pages: int
    ended: tuple[int, ...]
    """PIDs of processes that ended during the capture; their last moments may lack pages."""
    memory_bytes: int
    """Bytes of the captured pages of one moment, the one that has most."""
    file_bytes: int
    seconds: float


@dataclass(slots=True)
class _Tally:
    """Counts of one moment as it goes; 8 bytes for every mergeable page."""

    seconds: float
    pages: int = 0
    zero_pages: int = 0
    contents: list[NDArray[np.uint64]] = field(default_factory=list)

    def add(self, digests: NDArray[np.uint8], flags: NDArray[np.uint8]) -> None:
        zero = flags & ZERO != 0
        self.pages += len(flags)
        self.zero_pages += int(zero.sum())
        self.contents.append(content_ids(digests, zero)[flags & MERGEABLE != 0])

    def summary(self) -> MomentSummary:
        contents = np.concatenate(self.contents) if self.contents else np.empty(0, np.uint64)
        distinct = len(np.unique(contents))
        return MomentSummary(
            seconds=self.seconds,
            pages=self.pages,
            mergeable_pages=len(contents),
            zero_pages=self.zero_pages,
            distinct_contents=distinct,
            duplicate_pages=len(contents) - distinct,
        )


class Session:
    """Takes the moments of a capture one after another."""

    def __init__(self, sources: Sequence[Source], options: Options, advance: Callable[[int], None]) -> None:
        """`advance` is told the number of pages after each chunk."""
        self._sources = sources
        self._options = options
        self._advance = advance
        self._hash = PageHasher(options.key)
        self._mappings: list[tuple[Mapping, ...]] = [() for _ in sources]
        self._alive = dict(enumerate(sources))

    def run(self) -> Summary:
        """Capture everything into the snapshot.

        Raises UserError for what the user can mend, among it a process that has ended before the
        first moment, and OSError, such as for a full disk; then there is no new file.
        """
        started = datetime.now(UTC)
        begin = time.monotonic()
        with SnapshotWriter(self._options.output) as writer:
            moments = self._take_moments(writer)
            metadata = self._metadata(started, tuple(moment.seconds for moment in moments))
            size = writer.finish(metadata)
        return Summary(
            processes=len(self._sources),
            moments=tuple(moments),
            vanished_pages=metadata.vanished_pages,
            ended=tuple(
                source.pid
                for source in self._sources
                if isinstance(source, ProcessSource) and source.has_ended()
            ),
            memory_bytes=PAGE_SIZE * max(moment.pages for moment in moments),
            file_bytes=size,
            seconds=time.monotonic() - begin,
        )

    def _take_moments(self, writer: SnapshotWriter) -> list[MomentSummary]:
        """Moments until there are enough or no process is left."""
        moments: list[MomentSummary] = []
        begin = time.monotonic()
        for moment in range(self._options.count):
            time.sleep(max(begin + moment * self._options.interval - time.monotonic(), 0))
            seconds = time.monotonic() - begin if moment else 0.0
            summary = self._take(writer, moment, seconds)
            if not self._alive:
                break
            moments.append(summary)
        return moments

    def _take(self, writer: SnapshotWriter, moment: int, seconds: float) -> MomentSummary:
        tally = _Tally(seconds)
        live = [source for source in self._alive.values() if isinstance(source, ProcessSource)]
        with stopped(live) if self._options.stop else nullcontext():
            for process in list(self._alive):
                try:
                    self._take_process(writer, process, moment, tally)
                except ProcessGoneError:
                    if moment == 0:
                        raise
                    del self._alive[process]
        return tally.summary()

    def _take_process(self, writer: SnapshotWriter, process: int, moment: int, tally: _Tally) -> None:
        scan = self._sources[process].scan(self._options.all_pages)
        self._mappings[process] = cover(self._mappings[process], scan.mappings)
        for chunk in scan.chunks:
            digests, zero = self._hash(chunk.data)
            flags = chunk.flags | np.where(zero, ZERO, 0).astype(np.uint8)
            writer.write(process, moment, chunk.vpn, digests, flags)
            tally.add(digests, flags)
            self._advance(len(flags))

    def _metadata(self, started: datetime, moments: tuple[float, ...]) -> Metadata:
        live = any(source.kind == "process" for source in self._sources)
        return Metadata(
            version=FORMAT_VERSION,
            page_size=PAGE_SIZE,
            key=self._options.key_info,
            captured_at=started.isoformat(timespec="milliseconds"),
            kernel_release=os.uname().release if live else None,
            all_pages=self._options.all_pages,
            vanished_pages=sum(source.vanished for source in self._sources),
            moments=moments,
            processes=tuple(
                SnapshotProcess(source.pid, source.name, source.kind, mappings)
                for source, mappings in zip(self._sources, self._mappings, strict=True)
            ),
        )
