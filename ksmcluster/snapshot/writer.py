"""Writing a snapshot as a stream."""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actors.disk import sync
from ksmcluster.snapshot.metadata import Metadata, to_json
from ksmcluster.snapshot.order import ORDER_KEY
from ksmcluster.snapshot.reader import is_snapshot
from ksmcluster.snapshot.schema import (
    DIGEST_SIZE,
    METADATA_KEY,
    OPTIONAL,
    ROW_GROUP_ROWS,
    SCHEMA,
    UNKNOWN,
    ZERO,
)
from ksmcluster.system.errors import UserError
from ksmcluster.system.replacing import check_file


@dataclass(frozen=True, slots=True, eq=False)
class PageRows:
    """Pages of one process at one moment, ascending by page number."""

    vpn: NDArray[np.uint64]
    digests: NDArray[np.uint8]
    """uint8[n, 16]; arbitrary for zero pages."""
    flags: NDArray[np.uint16]
    frame: NDArray[np.int64] | None = None
    """A number per frame of the moment; UNKNOWN for pages without a frame. None if frames are unknown."""
    outside: NDArray[np.int64] | None = None
    """Page table entries outside the captured processes that map the frame."""
    huge: NDArray[np.int64] | None = None
    """A number per huge page of the moment; UNKNOWN for small pages."""
    node: NDArray[np.int64] | None = None
    """NUMA node of the frame."""


class SnapshotWriter:
    """Streams a snapshot to a temporary file beside `path`; `finish` moves it into place.

    A context manager: without `finish`, it leaves no file behind. Only the owner can read the file, as for
    core files. Raises UserError if the folder is not writable, or if `path` exists and is not a snapshot.
    Every method that writes may raise OSError, for example if the disk is full.
    """

    def __init__(self, path: Path, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._row_group_rows = row_group_rows
        if os.path.isdir(path):  # noqa: PTH112 (that of Path raises for long names)
            raise UserError(f"{path} is a folder: give --output the name of a file")
        try:
            os.fspath(path).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{os.fspath(path)!r}: give --output a name in UTF-8") from error
        self._path = path = check_file(path, str(path), is_snapshot)
        self._temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
        self._sink: pa.OSFile | None = None
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._last = (-1, -1, -1)

    def __enter__(self) -> Self:
        # All in one block: a signal may arrive at any time.
        try:
            os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._sink = pa.OSFile(os.fspath(self._temporary), "w")
            self._parquet = _parquet(self._sink)
        except PermissionError as error:
            folder = self._path.parent
            raise UserError(f"no permission to write in {folder}: choose another output") from error
        except FileNotFoundError as error:
            raise UserError(f"{self._path.parent} takes no files: choose another output") from error
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        # An open ParquetWriter would try to write its footer again when it is garbage-collected.
        self._parquet.is_open = False
        self._discard()

    def _discard(self) -> None:
        if self._sink is not None:
            self._sink.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, process: int, moment: int, pages: PageRows) -> None:
        """Add pages in ascending order of moment, process and vpn; otherwise raise ValueError."""
        vpn, rows = pages.vpn, len(pages.vpn)
        if not rows:
            return
        if (moment, process, int(vpn[0])) <= self._last or not bool(np.all(vpn[1:] > vpn[:-1])):
            raise ValueError("pages must be written in ascending order of moment, process and vpn")
        self._last = (moment, process, int(vpn[-1]))
        valid = np.packbits((pages.flags & ZERO) == 0, bitorder="little")
        buffers = [pa.py_buffer(valid), pa.py_buffer(pages.digests.tobytes())]
        columns = [
            np.full(rows, moment, np.uint16),
            np.full(rows, process, np.uint32),
            vpn,
            pa.Array.from_buffers(pa.binary(DIGEST_SIZE), rows, buffers),
            pages.flags,
            *(_nullable(getattr(pages, name), rows, SCHEMA.field(name).type) for name in OPTIONAL),
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

    def finish(self, metadata: Metadata, order: NDArray[np.uint64] | None = None) -> int:
        """Complete the file, sync it to disk, rename it to `path`; return its size in bytes.

        `order`: contents in ascending memcmp order.
        """
        self._flush()
        if order is not None:
            self._parquet.add_key_value_metadata({ORDER_KEY: b64encode(order.astype("<u8").tobytes())})
        self._parquet.add_key_value_metadata({METADATA_KEY: to_json(metadata)})
        self._parquet.close()
        assert self._sink is not None
        size = int(self._sink.tell())
        self._sink.close()
        # By its path: many versions of pyarrow do not tell the descriptor of an open file.
        sync(self._temporary)
        check_file(self._path, str(self._path), is_snapshot)  # again: it may have changed meanwhile
        self._temporary.replace(self._path)
        sync(self._path.parent)
        return size


def _parquet(sink: pa.OSFile) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        use_dictionary=["moment", "process", "flags", "outside", "huge", "node"],
        column_encoding={"vpn": "DELTA_BINARY_PACKED", "frame": "DELTA_BINARY_PACKED"},
        write_statistics=["moment", "process", "vpn"],
        write_page_checksum=True,
    )


def _nullable(values: NDArray[np.int64] | None, rows: int, kind: pa.DataType) -> pa.Array:
    """Return a column in which UNKNOWN is null."""
    if values is None:
        return pa.nulls(rows, kind)
    return pa.array(values, mask=values == UNKNOWN).cast(kind)
