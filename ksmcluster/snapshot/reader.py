"""Reading snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ksmcluster.errors import UserError
from ksmcluster.snapshot.metadata import Mapping, Metadata, SnapshotProcess, from_json
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

_Columns = dict[str, NDArray[np.generic]]


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

    def where(self, chosen: NDArray[np.bool_]) -> SnapshotPages:
        """Return the chosen pages, bool[n]."""
        return self if chosen.all() else SnapshotPages(*(getattr(self, name)[chosen] for name in _NAMES))


_NAMES = ("vpn", "content", "flags", "frame", "outside", "huge", "node")


class Snapshot:
    """A snapshot opened for reading; a context manager."""

    def __init__(self, path: Path, parquet: pq.ParquetFile, metadata: Metadata) -> None:
        self._path = path
        self._parquet = parquet
        self.metadata = metadata
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
        for found in self._blocks(wanted):
            if found[:2] == (moment, process_index):
                pages = found[2] if all_pages else found[2].where((found[2].flags & MERGEABLE) != 0)
                return pages.vpn.astype(np.uint64), pages.content
        return np.empty(0, np.uint64), np.empty(0, np.uint64)

    def blocks(self) -> Iterator[tuple[int, int, SnapshotPages]]:
        """Yield (moment, process, all its pages) in ascending order; each row group is read once.

        Moments of a process without pages are left out. Raises UserError for a damaged file, or one
        that breaks the rules of the format: order, duplicates, pages outside mappings.
        """
        return self._blocks(range(len(self._row_groups)))

    def _blocks(self, groups: Sequence[int]) -> Iterator[tuple[int, int, SnapshotPages]]:
        last: tuple[int, int] | None = None
        parts: list[_Columns] = []
        for group in groups:
            columns = self._read(group)
            moment, process = columns["moment"], columns["process"]
            changes = np.flatnonzero((moment[1:] != moment[:-1]) | (process[1:] != process[:-1])) + 1
            edges = [0, *changes.tolist(), len(moment)]
            for start, end in pairwise(edges):
                if start == end:
                    continue
                key = int(moment[start]), int(process[start])
                if last is not None and key != last:
                    yield *last, self._pages(*last, parts)
                    parts = []
                    if key < last:
                        raise self._breaks("rows are not in ascending order of moment and process")
                last = key
                parts.append({name: column[start:end] for name, column in columns.items()})
        if last is not None:
            yield *last, self._pages(*last, parts)

    def _pages(self, moment: int, process: int, parts: list[_Columns]) -> SnapshotPages:
        """Return one block, put together and checked."""
        if moment >= len(self.moments) or process >= len(self.processes):
            raise self._breaks(f"there are pages of process {process} at moment {moment}")
        pages = SnapshotPages(*(np.concatenate([part[name] for part in parts]) for name in _NAMES))
        vpn = pages.vpn
        if (vpn[1:] <= vpn[:-1]).any():
            raise self._breaks(f"pages of process {process} do not ascend, or come twice")
        outside = ~_inside(vpn, self.processes[process].mappings)
        if outside.any():
            where = int(vpn[np.argmax(outside)])
            raise self._breaks(f"page {where:#x} of process {process} is in none of its mappings")
        return pages

    def _breaks(self, what: str) -> UserError:
        return UserError(f"{self._path} breaks the snapshot format, {what}: capture it again")

    def _read(self, row_group: int) -> _Columns:
        """Return the columns of a row group as arrays."""
        try:
            table = self._parquet.read_row_group(row_group).combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise UserError(f"{self._path} is damaged: {str(error).splitlines()[0]}") from error
        flags = table["flags"].to_numpy().astype(np.uint16)
        zero = (flags & ZERO) != 0
        if (table["digest"].is_valid().to_numpy() == zero).any():
            raise self._breaks("a page has a digest and the flag of zeros, or neither")
        return {
            "moment": table["moment"].to_numpy(),
            "process": table["process"].to_numpy(),
            "vpn": table["vpn"].to_numpy().astype(np.int64),
            "content": content_ids(_digests(table["digest"]), zero),
            "flags": flags,
            **{name: _optional(table, name) for name in OPTIONAL},
        }


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


def _inside(vpn: NDArray[np.int64], mappings: Sequence[Mapping]) -> NDArray[np.bool_]:
    """Return which pages are in one of the mappings, bool[n]."""
    starts = np.array([mapping.start_vpn for mapping in mappings], np.int64)
    ends = np.array([mapping.end_vpn for mapping in mappings], np.int64)
    if not len(starts):
        return np.zeros(len(vpn), np.bool_)
    at = np.searchsorted(starts, vpn, "right") - 1
    inside: NDArray[np.bool_] = (at >= 0) & (vpn < ends[at])
    return inside


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
