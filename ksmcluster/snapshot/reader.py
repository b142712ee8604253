"""Reading snapshots."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ksmcluster.snapshot.metadata import Metadata, SnapshotProcess, from_json
from ksmcluster.snapshot.order import ORDER_KEY
from ksmcluster.snapshot.schema import (
    DIGEST_SIZE,
    MERGEABLE,
    METADATA_KEY,
    OPTIONAL,
    SCHEMA,
    SCHEMA_1,
    UNKNOWN,
    ZERO,
    content_ids,
)
from ksmcluster.system.errors import UserError


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotPages:
    """Pages of one process at one moment, ascending by page number; all arrays have n elements."""

    vpn: NDArray[np.int64]
    content: NDArray[np.uint64]
    """0 for a zero page, else equal for equal contents (`content_ids`)."""
    flags: NDArray[np.uint16]
    frame: NDArray[np.int64]
    """Equal for pages of this moment that map the same frame; -1 where that is not known."""
    outside: NDArray[np.int64]
    """Mappers of the frame outside the captured processes; -1 where that is not known."""
    huge: NDArray[np.int64]
    """Equal for pages of one huge page; -1 for small pages."""
    node: NDArray[np.int64]
    """NUMA node of the frame; -1 where that is not known."""

    @classmethod
    def empty(cls) -> Self:
        """Return no pages."""
        none = np.empty(0, np.int64)
        return cls(none, none.view(np.uint64), none.astype(np.uint16), none, none, none, none)

    @classmethod
    def joined(cls, parts: Sequence[SnapshotPages]) -> SnapshotPages:
        """Return pages one behind the other."""
        parts = parts or [cls.empty()]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))

    def part(self, start: int, end: int) -> SnapshotPages:
        """Return the pages from a place to another."""
        return SnapshotPages(*(getattr(self, name)[start:end] for name in _NAMES))

    def where(self, chosen: NDArray[np.bool_]) -> SnapshotPages:
        """Return the chosen pages, bool[n]."""
        if chosen.all():
            return self
        columns = (getattr(self, name) for name in _NAMES)
        return SnapshotPages(*(column[chosen] if len(column) else column for column in columns))


_NAMES = ("vpn", "content", "flags", *OPTIONAL)


class Snapshot:
    """A snapshot opened for reading; a context manager."""

    def __init__(self, path: Path, parquet: pq.ParquetFile, metadata: Metadata) -> None:
        self._path = path
        self._parquet = parquet
        self.metadata = metadata
        self._edges_of: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._row_groups = [_ranges(parquet.metadata, i) for i in range(parquet.num_row_groups)]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a snapshot; raises UserError for anything but a snapshot this version can read."""
        path = Path(path)
        try:
            parquet = pq.ParquetFile(path, page_checksum_verification=True)
        except FileNotFoundError as error:
            raise UserError(f"no snapshot {path}: check the name") from error
        except PermissionError as error:
            raise UserError(f"no permission to read {path}") from error
        except (pa.ArrowInvalid, OSError) as error:
            if _is_of_the_system(error) and not path.is_dir():
                raise
            raise UserError(f"{path} is not a snapshot: make one with `ksmcluster capture`") from error
        try:
            return cls(path, parquet, _read_metadata(path, parquet))
        except BaseException:
            parquet.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; `pages` may not be called any more."""
        self._parquet.close()

    @property
    def processes(self) -> tuple[SnapshotProcess, ...]:
        """The captured processes; their place is the `process_index` of `pages`."""
        return self.metadata.processes

    @property
    def moments(self) -> tuple[float, ...]:
        """Seconds since the first moment, one number for each moment."""
        return self.metadata.moments

    @property
    def rows(self) -> int:
        """Pages of all processes and moments."""
        return int(self._parquet.metadata.num_rows)

    @property
    def order(self) -> NDArray[np.uint64]:
        """Contents in the order of memcmp, ascending; none if the snapshot does not tell."""
        text = (self._parquet.metadata.metadata or {}).get(ORDER_KEY, b"")
        try:
            raw = b64decode(text, validate=True)
            return np.frombuffer(raw, "<u8") if raw else np.empty(0, np.uint64)
        except ValueError as error:
            raise UserError(f"{self._path} is damaged: its order of contents cannot be read") from error

    def comparable(self, other: Snapshot) -> bool:
        """Return whether equal pages have equal contents in both: the same key, or none in either."""
        return self.metadata.key.fingerprint == other.metadata.key.fingerprint

    def pages(
        self, process_index: int, moment: int = 0, *, all_pages: bool = False
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return a process's pages at a moment: (vpn uint64[n] ascending, content uint64[n]).

        Content is 0 for a zero page, else a nonzero number that is equal for equal contents
        (`content_ids`). Pages that KSM could not merge are left out unless `all_pages`. Raises
        IndexError for an unknown process or moment, UserError for a damaged file.
        """
        if not (0 <= process_index < len(self.processes) and 0 <= moment < len(self.moments)):
            raise IndexError(f"no process {process_index} at moment {moment} in {self._path}")
        wanted = [
            group
            for group, (moments, processes) in enumerate(self._row_groups)
            if moments[0] <= moment <= moments[1] and processes[0] <= process_index <= processes[1]
        ]
        pieces = (found[2] for found in self._pieces(wanted, ()) if found[:2] == (moment, process_index))
        pages = SnapshotPages.joined(list(pieces))
        if not all_pages:
            pages = pages.where((pages.flags & MERGEABLE) != 0)
        return pages.vpn.astype(np.uint64), pages.content

    def blocks(self) -> Iterator[tuple[int, int, SnapshotPages]]:
        """Yield (moment, process, all its pages) in ascending order; moments without pages are left out.

        Raises UserError as `pieces` does.
        """
        for (moment, process), pieces in groupby(self.pieces(OPTIONAL), key=itemgetter(0, 1)):
            yield moment, process, SnapshotPages.joined([pages for _, _, pages in pieces])

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, int, SnapshotPages]]:
        """Yield (moment, process, some of its pages) in ascending order, so that little memory is needed.

        Of the arrays in OPTIONAL only those in `columns` are read; the others are empty. Raises UserError for
        a damaged file, or one that breaks the rules of the format: order, duplicates, pages outside mappings.
        """
        return self._pieces(range(len(self._row_groups)), columns)

    def _pieces(
        self, groups: Sequence[int], optional: Sequence[str]
    ) -> Iterator[tuple[int, int, SnapshotPages]]:
        last, last_vpn = (-1, -1), -1
        for group in groups:
            moments, processes, pages = self._read(group, optional)
            changes = np.flatnonzero((moments[1:] != moments[:-1]) | (processes[1:] != processes[:-1])) + 1
            for start, end in pairwise([0, *changes.tolist(), len(moments)]):
                if start == end:
                    continue
                key = int(moments[start]), int(processes[start])
                if key < last:
                    raise self._breaks("rows are not in ascending order of moment and process")
                piece = pages.part(start, end)
                self._check(*key, piece.vpn, last_vpn if key == last else -1)
                last, last_vpn = key, int(piece.vpn[-1])
                yield *key, piece

    def _check(self, moment: int, process: int, vpn: NDArray[np.int64], before: int) -> None:
        """Check some pages of a process, which come behind the page `before`."""
        if moment >= len(self.moments) or process >= len(self.processes):
            raise self._breaks(f"there are pages of process {process} at moment {moment}")
        if vpn[0] <= before or (vpn[1:] <= vpn[:-1]).any():
            raise self._breaks(f"pages of process {process} do not ascend, or come twice")
        starts, ends = self._edges(process)
        at = np.searchsorted(starts, vpn, "right")
        inside = vpn < ends[at]
        if not inside.all():
            where = int(vpn[np.argmin(inside)])
            raise self._breaks(f"page {where:#x} of process {process} is in none of its mappings")

    def _edges(self, process: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first pages of a process's mappings; and 0, and the page behind each."""
        if process not in self._edges_of:
            mappings = self.processes[process].mappings
            starts = np.array([mapping.start_vpn for mapping in mappings], np.int64)
            ends = np.array([0, *(mapping.end_vpn for mapping in mappings)], np.int64)
            self._edges_of[process] = starts, ends
        return self._edges_of[process]

    def _breaks(self, what: str) -> UserError:
        return UserError(f"{self._path} breaks the snapshot format, {what}: capture it again")

    def _read(
        self, row_group: int, optional: Sequence[str]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint32], SnapshotPages]:
        """Return moment, process and columns of the pages of a row group."""
        try:
            wanted = [*SCHEMA_1.names, *optional]
            table = self._parquet.read_row_group(row_group, columns=wanted).combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise UserError(f"{self._path} is damaged: {str(error).splitlines()[0]}") from error
        flags = table["flags"].to_numpy().astype(np.uint16)
        zero = (flags & ZERO) != 0
        if (table["digest"].is_valid().to_numpy() == zero).any():
            raise self._breaks("a page has a digest and the flag of zeros, or neither")
        pages = SnapshotPages(
            table["vpn"].to_numpy().astype(np.int64),
            content_ids(_digests(table["digest"]), zero),
            flags,
            *(_optional(table, name) if name in optional else np.empty(0, np.int64) for name in OPTIONAL),
        )
        return table["moment"].to_numpy(), table["process"].to_numpy(), pages


def is_snapshot(path: Path) -> bool:
    """Return whether a file is a snapshot that can be read."""
    try:
        Snapshot.open(path).close()
    except UserError:
        return False
    return True


def _is_of_the_system(error: Exception) -> bool:
    """Whether reading failed, such as a broken disk; pyarrow has OSErrors for damaged files as well."""
    return isinstance(error, OSError) and error.errno is not None


def _optional(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Return a column that may be null or, in format 1, absent; UNKNOWN there."""
    if name not in table.column_names:
        return np.full(len(table), UNKNOWN, np.int64)
    column = table[name].cast(pa.int64()).fill_null(UNKNOWN)
    found: NDArray[np.int64] = column.to_numpy()
    return found


def _digests(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Digests as uint8[n, 16], undefined for nulls."""
    array = column.chunk(0)
    whole = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, DIGEST_SIZE)
    return whole[array.offset : array.offset + len(array)]


def _ranges(parquet: pq.FileMetaData, row_group: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Least and greatest moment and process of a row group; the widest ones if it does not tell."""
    moment, process = (parquet.row_group(row_group).column(column).statistics for column in (0, 1))
    return _range(moment), _range(process)


def _range(statistics: pq.Statistics | None) -> tuple[int, int]:
    return (0, 2**32) if statistics is None else (statistics.min, statistics.max)


def _read_metadata(path: Path, parquet: pq.ParquetFile) -> Metadata:
    text = (parquet.metadata.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise UserError(f"{path} is a Parquet file but not a snapshot: make one with `ksmcluster capture`")
    metadata = from_json(text, str(path))
    if parquet.schema_arrow != (SCHEMA_1 if metadata.version == 1 else SCHEMA):
        raise UserError(f"{path} has other columns than a snapshot: capture it again")
    return metadata
