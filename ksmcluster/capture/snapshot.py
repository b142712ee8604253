"""Memory snapshots: one row for every captured page, in a Parquet file (docs/snapshot.md).

`SnapshotWriter` writes a snapshot as a stream, `Snapshot` reads it for the simulator.
"""

import json
import os
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ksmcluster.errors import UserError
from ksmcluster.replacing import check_file

FORMAT_VERSION = 1
METADATA_KEY = b"ksmcluster"
"""Bytes in a page; snapshots of other page sizes are not written."""
DIGEST_SIZE = 16
"""Bytes of the BLAKE3 digest that are kept."""
MAX_MOMENTS = 1 << 16

ZERO = 1
"""Flag: every byte of the page is zero; its digest is null."""
FILE = 2
"""Flag: page of a file or of shared memory, not an anonymous one."""
SWAPPED = 4
"""Flag: the page was in swap when it was captured."""
SHARED_ZERO = 8
"""Flag: the kernel's shared zero page was mapped here, which takes up no memory."""
MERGEABLE = 16
"""Flag: a page that KSM could merge (given madvise or prctl)."""

ROW_GROUP_ROWS = 1 << 18

SCHEMA = pa.schema(
    [
        pa.field("moment", pa.uint16(), nullable=False),
        pa.field("process", pa.uint32(), nullable=False),
        pa.field("vpn", pa.uint64(), nullable=False),
        pa.field("digest", pa.binary(DIGEST_SIZE)),
        pa.field("flags", pa.uint8(), nullable=False),
    ]
)


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

    @property
    def end_vpn(self) -> int:
        """Virtual page number after the last one."""
        return self.start_vpn + self.pages


@dataclass(frozen=True, slots=True)
class SnapshotProcess:
    """A captured process."""

    pid: int | None
    """Its PID when captured or dumped; None for a raw memory image."""
    name: str
    """Command name, or the file's name for a raw memory image."""
    source: Literal["process", "core", "image"]
    mappings: tuple[Mapping, ...]
    """Disjoint, ascending; they cover the pages of every moment."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a snapshot tells about the key of its digests."""

    mode: Literal["random", "file", "none"]
    fingerprint: str | None
    """Equal for equal keys, tells nothing else about them; None for unkeyed digests."""


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


_METADATA: TypeAdapter[Metadata] = TypeAdapter(Metadata)


def content_ids(digests: NDArray[np.uint8], zero: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The simulator's page contents: uint64[n] from digests uint8[n, 16] and zero flags bool[n].

    The first 8 bytes of the digest, little-endian; 0 stands for zero pages alone, so a digest that
    begins with eight zero bytes becomes 1.
    """
    ids = digests.view("<u8")[:, 0].astype(np.uint64)
    ids[ids == 0] = 1
    ids[zero] = 0
    return ids


def cover(earlier: Sequence[Mapping], later: Sequence[Mapping]) -> tuple[Mapping, ...]:
    """Disjoint ascending mappings over all pages of both; where they overlap the earlier ones stay.

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


class SnapshotWriter:
    """Streams a snapshot into a temporary file beside `path`; `finish` puts it in place.

    A context manager: left without `finish`, it leaves nothing behind. The file is readable by its
    owner alone, as core files are. Raises UserError when the folder cannot take the file, or when a
    file is there that is no snapshot, and OSError, such as for a full disk, from every method that writes.
    """

    def __init__(self, path: Path, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._row_group_rows = row_group_rows
        if path.is_dir():
            raise UserError(f"{path} is a folder: give --output the name of a file")
        self._path = path = check_file(path, str(path), _is_snapshot)
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except PermissionError as error:
            raise UserError(f"no permission to write in {path.parent}: choose another output") from error
        self._sink = pa.OSFile(os.fspath(self._temporary), "w")
        try:
            self._parquet = pq.ParquetWriter(
                self._sink,
                SCHEMA,
                compression="zstd",
                use_dictionary=["moment", "process", "flags"],
                column_encoding={"vpn": "DELTA_BINARY_PACKED"},
                write_statistics=["moment", "process", "vpn"],
            )
        except BaseException:
            self._discard()
            raise
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._last = (-1, -1, -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # An open ParquetWriter would try to write its footer once more when it is collected.
        self._parquet.is_open = False
        self._discard()

    def _discard(self) -> None:
        self._sink.close()
        self._temporary.unlink(missing_ok=True)

    def write(
        self,
        process: int,
        moment: int,
        vpn: NDArray[np.uint64],
        digests: NDArray[np.uint8],
        flags: NDArray[np.uint8],
    ) -> None:
        """Add pages: vpn uint64[n], digests uint8[n, 16] (any value for zero pages), flags uint8[n].

        Rows must come in ascending order of moment, process and vpn, else ValueError.
        """
        rows = len(vpn)
        if not rows:
            return
        if (moment, process, int(vpn[0])) <= self._last or not bool(np.all(vpn[1:] > vpn[:-1])):
            raise ValueError("pages must be written in ascending order of moment, process and vpn")
        self._last = (moment, process, int(vpn[-1]))
        valid = np.packbits((flags & ZERO) == 0, bitorder="little")
        buffers = [pa.py_buffer(valid), pa.py_buffer(digests.tobytes())]
        columns = [
            np.full(rows, moment, np.uint16),
            np.full(rows, process, np.uint32),
            vpn,
            pa.Array.from_buffers(pa.binary(DIGEST_SIZE), rows, buffers),
            flags,
        ]
        self._batches.append(pa.record_batch(columns, schema=SCHEMA))
        self._rows += rows
        if self._rows >= self._row_group_rows:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_batches(self._batches, schema=SCHEMA)
        self._parquet.write_table(table, row_group_size=self._rows)
        self._batches, self._rows = [], 0

    def finish(self, metadata: Metadata) -> int:
        """Complete the file, make it durable, move it to its name; returns its size in bytes."""
        self._flush()
        self._parquet.add_key_value_metadata({METADATA_KEY: _METADATA.dump_json(metadata)})
        self._parquet.close()
        size = int(self._sink.tell())
        os.fsync(self._sink.fileno())
        self._sink.close()
        check_file(self._path, str(self._path), _is_snapshot)  # once more, after all this time
        self._temporary.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size


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
            parquet = pq.ParquetFile(path)
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
        except UserError:
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

    def comparable(self, other: "Snapshot") -> bool:
        """Whether equal pages have equal contents in both: the same key, or none in either."""
        return self.metadata.key.fingerprint == other.metadata.key.fingerprint

    def pages(
        self, process_index: int, moment: int = 0, *, all_pages: bool = False
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """A process's pages at a moment: (vpn uint64[n] ascending, content uint64[n]).

        Content is 0 for a zero page, else a nonzero number that is equal for equal contents
        (`content_ids`). Pages that KSM could not merge are left out unless `all_pages`. Raises
        IndexError for an unknown process or moment, UserError for a damaged file.
        """
        if not (0 <= process_index < len(self.processes) and 0 <= moment < len(self.moments)):
            raise IndexError(f"no process {process_index} at moment {moment} in {self._path}")
        wanted = [
            index
            for index, (moments, processes) in enumerate(self._row_groups)
            if moments[0] <= moment <= moments[1] and processes[0] <= process_index <= processes[1]
        ]
        parts = [self._read(group, process_index, moment, all_pages) for group in wanted]
        if not parts:
            return np.empty(0, np.uint64), np.empty(0, np.uint64)
        return np.concatenate([vpn for vpn, _ in parts]), np.concatenate([content for _, content in parts])

    def _read(
        self, row_group: int, process: int, moment: int, all_pages: bool
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        try:
            table = self._parquet.read_row_group(row_group).combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise UserError(f"{self._path} is damaged: {str(error).splitlines()[0]}") from error
        flags = table["flags"].to_numpy()
        keep = (table["process"].to_numpy() == process) & (table["moment"].to_numpy() == moment)
        if not all_pages:
            keep &= (flags & MERGEABLE) != 0
        digests = _digests(table["digest"])[keep]
        return table["vpn"].to_numpy()[keep], content_ids(digests, (flags[keep] & ZERO) != 0)


def _is_snapshot(path: Path) -> bool:
    try:
        Snapshot.open(path).close()
    except UserError:
        return False
    return True


def _is_of_the_system(error: Exception) -> bool:
    """Whether reading failed, such as a broken disk; pyarrow has OSErrors for damaged files as well."""
    return isinstance(error, OSError) and error.errno is not None


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
    try:
        found: Any = json.loads(text)
        version = int(found["version"])
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path} has snapshot format {version}, newer than {FORMAT_VERSION}: upgrade ksmcluster"
            )
        metadata = _METADATA.validate_python(found)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path} has damaged snapshot metadata: capture it again") from error
    if parquet.schema_arrow != SCHEMA:
        raise UserError(f"{path} has other columns than a snapshot: capture it again")
    return metadata
