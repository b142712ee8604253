"""Reading snapshots."""

from __future__ import annotations

import stat
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

from cluster.spec.limits import MOST_GROUP, MOST_GROUP_ROWS, MOST_METADATA, MOST_ROW
from ksmcluster.snapshot.contents import ContentNames
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
    """0 for a zero page, otherwise equal for equal contents (`content_ids`)."""
    flags: NDArray[np.uint16]
    frame: NDArray[np.int64]
    """Equal for pages of this moment that map the same frame; -1 if unknown."""
    outside: NDArray[np.int64]
    """Mappings of the frame outside the captured processes; -1 if unknown."""
    huge: NDArray[np.int64]
    """Equal for the pages of one huge page; -1 for small pages."""
    node: NDArray[np.int64]
    """NUMA node of the frame; -1 if unknown."""

    @classmethod
    def empty(cls) -> Self:
        """Return an empty set of pages."""
        none = np.empty(0, np.int64)
        return cls(none, none.view(np.uint64), none.astype(np.uint16), none, none, none, none)

    @classmethod
    def joined(cls, parts: Sequence[SnapshotPages]) -> SnapshotPages:
        """Return the concatenated pages."""
        parts = parts or [cls.empty()]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))

    def part(self, start: int, end: int) -> SnapshotPages:
        """Return the pages with indices from `start` to before `end`."""
        return SnapshotPages(*(getattr(self, name)[start:end] for name in _NAMES))

    def where(self, chosen: NDArray[np.bool_]) -> SnapshotPages:
        """Return the chosen pages, bool[n]."""
        if chosen.all():
            return self
        columns = (getattr(self, name) for name in _NAMES)
        return SnapshotPages(*(column[chosen] if len(column) else column for column in columns))


_NAMES = ("vpn", "content", "flags", *OPTIONAL)
_REQUIRED = ("moment", "process", "vpn", "flags")


class Snapshot:
    """A snapshot that is open for reading; a context manager."""

    def __init__(self, path: Path, parquet: pq.ParquetFile, metadata: Metadata) -> None:
        self._path = path
        self._parquet = parquet
        self.metadata = metadata
        #: Names the contents of pages that are read.
        self.name_contents: ContentNames = content_ids
        self._edges_of: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._row_groups = [_ranges(parquet.metadata, i) for i in range(parquet.num_row_groups)]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a snapshot. Raises UserError if this version cannot read the file as a snapshot."""
        path = Path(path)
        try:
            _check_regular(path)
            parquet = pq.ParquetFile(
                path, page_checksum_verification=True, thrift_string_size_limit=MOST_METADATA
            )
        except UnicodeEncodeError as error:
            raise UserError(f"{str(path)!r}: give the snapshot a name in UTF-8") from error
        except FileNotFoundError as error:
            raise UserError(f"no snapshot {path}: check the name") from error
        except PermissionError as error:
            raise UserError(f"no permission to read {path}") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            if _is_of_the_system(error):
                raise
            what = "is not a snapshot, or not all of one"
            raise UserError(f"{path} {what}: copy it again, or make one with `ksmcluster capture`") from error
        try:
            _check_sizes(path, parquet)
            return cls(path, parquet, _read_metadata(path, parquet))
        except BaseException:
            parquet.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; no pages can be read afterwards."""
        self._parquet.close()

    @property
    def processes(self) -> tuple[SnapshotProcess, ...]:
        """The captured processes; their index is the `process_index` of `pages`."""
        return self.metadata.processes

    @property
    def moments(self) -> tuple[float, ...]:
        """Seconds since the first moment, by moment."""
        return self.metadata.moments

    @property
    def rows(self) -> int:
        """Number of pages of all processes and moments."""
        return int(self._parquet.metadata.num_rows)

    @property
    def order(self) -> NDArray[np.uint64]:
        """Return the contents in ascending memcmp order; empty if the snapshot has no order."""
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

        Content is 0 for a zero page, otherwise a nonzero number that is equal for equal contents
        (`content_ids`). Pages that KSM could not merge are included only with `all_pages`. Raises
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
        """Yield (moment, process, all its pages) in ascending order, without moments that have no pages.

        Raises UserError as `pieces` does.
        """
        for (moment, process), pieces in groupby(self.pieces(OPTIONAL), key=itemgetter(0, 1)):
            yield moment, process, SnapshotPages.joined([pages for _, _, pages in pieces])

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, int, SnapshotPages]]:
        """Yield (moment, process, some of its pages) in ascending order, so that little memory is needed.

        Of the arrays in OPTIONAL, only those in `columns` are read; the others are empty. Raises UserError if
        the file is damaged or breaks the rules of the format: order, duplicates, pages outside mappings.
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
        """Check some pages of a process, which come after the page `before`."""
        if moment >= len(self.moments) or process >= len(self.processes):
            raise self._breaks(
                f"there are pages of process {process} at moment {moment}, which does not exist"
            )
        if vpn[0] <= before or (vpn[1:] <= vpn[:-1]).any():
            raise self._breaks(f"pages of process {process} are repeated or not in ascending order")
        starts, ends = self._edges(process)
        at = np.searchsorted(starts, vpn, "right")
        inside = vpn < ends[at]
        if not inside.all():
            where = int(vpn[np.argmin(inside)])
            raise self._breaks(f"page {where:#x} of process {process} is in none of its mappings")

    def _edges(self, process: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first pages of a process's mappings, and 0 followed by the page after each mapping."""
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
        except (pa.ArrowException, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise UserError(f"{self._path} is damaged: {str(error).splitlines()[0]}") from error
        said = self._parquet.metadata.row_group(row_group).num_rows
        if len(table) != said or any(table[name].null_count for name in _REQUIRED):
            raise self._breaks("rows or values are missing")
        flags = table["flags"].to_numpy().astype(np.uint16)
        zero = (flags & ZERO) != 0
        if (table["digest"].is_valid().to_numpy() == zero).any():
            raise self._breaks("a page has both a digest and the zero flag, or neither")
        pages = SnapshotPages(
            table["vpn"].to_numpy().astype(np.int64),
            self.name_contents(_digests(table["digest"]), zero),
            flags,
            *(_optional(table, name) if name in optional else np.empty(0, np.int64) for name in OPTIONAL),
        )
        return table["moment"].to_numpy(), table["process"].to_numpy(), pages


def _check_regular(path: Path) -> None:
    """Raise OSError unless the file is regular: reading other files could block forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")


def _check_sizes(path: Path, parquet: pq.ParquetFile) -> None:
    """Raise UserError if the file declares more uncompressed data than its number of rows allows."""
    groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
    wrong = ""
    for number, group in enumerate(groups):
        most = group.num_rows * MOST_ROW + MOST_GROUP
        if not 0 <= group.num_rows <= MOST_GROUP_ROWS or not 0 <= group.total_byte_size <= most:
            wrong = "it has too much uncompressed data"
        elif group.num_rows == 0:
            continue  # Its columns are not looked at.
        elif not _has_good_columns(parquet, number):
            wrong = "a column is damaged"
        elif any(group.column(i).num_values != group.num_rows for i in range(group.num_columns)):
            wrong = "its columns differ in length"
    if sum(group.num_rows for group in groups) != parquet.metadata.num_rows:
        wrong = "rows are missing"
    if wrong:
        raise UserError(f"{path} breaks the snapshot format, {wrong}: capture it again")


def _has_good_columns(parquet: pq.ParquetFile, row_group: int) -> bool:
    """Return whether the columns of a row group can be read: of wrong metadata, pyarrow aborts the process.

    Reading a row checks them first.
    """
    try:
        next(parquet.iter_batches(1, row_groups=[row_group]), None)
    except (pa.ArrowException, OSError, ValueError) as error:
        if _is_of_the_system(error):
            raise
        return False
    return True


def is_snapshot(path: Path) -> bool:
    """Return whether a file is a readable snapshot."""
    try:
        Snapshot.open(path).close()
    except UserError:
        return False
    return True


def _is_of_the_system(error: Exception) -> bool:
    """Return whether the system failed, such as a disk; pyarrow also raises OSError for damaged files."""
    return isinstance(error, OSError) and error.errno is not None


def _optional(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Return a column that may be null or, in format 1, absent, with UNKNOWN for missing values."""
    if name not in table.column_names:
        return np.full(len(table), UNKNOWN, np.int64)
    column = table[name].cast(pa.int64()).fill_null(UNKNOWN)
    found: NDArray[np.int64] = column.to_numpy()
    return found


def _digests(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return digests as uint8[n, 16], undefined for nulls."""
    array = column.chunk(0)
    whole = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, DIGEST_SIZE)
    return whole[array.offset : array.offset + len(array)]


def _ranges(parquet: pq.FileMetaData, row_group: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the ranges of moments and processes of a row group; the widest ones without statistics."""
    group = parquet.row_group(row_group)
    moment, process = (group.column(i).statistics if group.num_rows else None for i in (0, 1))
    return _range(moment), _range(process)


def _range(statistics: pq.Statistics | None) -> tuple[int, int]:
    if statistics is None or not statistics.has_min_max:
        return 0, 2**32
    return statistics.min, statistics.max


def _read_metadata(path: Path, parquet: pq.ParquetFile) -> Metadata:
    text = (parquet.metadata.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise UserError(f"{path} is a Parquet file but not a snapshot: make one with `ksmcluster capture`")
    metadata = from_json(text, str(path))
    if parquet.schema_arrow != (SCHEMA_1 if metadata.version == 1 else SCHEMA):
        raise UserError(f"{path} does not have the columns of a snapshot: capture it again")
    return metadata
