"""ELF core files as the kernel and gcore write them."""

import io
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from cluster.spec.content import PAGE_SIZE
from cluster.spec.limits import MOST_NOTES, MOST_SEGMENTS
from ksmcluster.capture.source import CHUNK_PAGES, Chunk, SourceScan, open_file, page_buffer, stored_pages
from ksmcluster.snapshot import FILE, MERGEABLE, Mapping
from ksmcluster.system.errors import UserError

_AT_RANDOM = 25
"""Auxiliary vector: address of bytes that the kernel put on the stack."""
_AT_SYSINFO_EHDR = 33
"""Auxiliary vector: address of the vDSO."""
_HEADER_SIZE = 56
"""Bytes of a program header of 64 bits."""
_DAMAGES = (
    *(ELFError, ConstructError, struct.error, ArithmeticError, AssertionError, AttributeError),
    *(LookupError, TypeError, ValueError, RecursionError),
)
"""Exceptions raised by reading the headers of a file that is not a core."""
_USER_END = 1 << 63
"""Addresses from here on are the kernel's, such as [vsyscall]."""


@dataclass(slots=True)
class _Notes:
    """Facts about the process from the notes of a core."""

    pid: int | None = None
    name: str | None = None
    auxiliary: dict[int, int] = field(default_factory=dict)
    files: list[tuple[int, int, str]] = field(default_factory=list)
    """Start address, end address and name of the mapped files."""
    page_size: int | None = None
    """Bytes in a page when the kernel wrote the core; 1 when gcore did."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """Memory of a PT_LOAD header; the file has its first `stored` bytes, from `offset` on."""

    mapping: Mapping
    offset: int
    stored: int
    flags: int

    @property
    def stored_pages(self) -> int:
        return -(-self.stored // PAGE_SIZE)


class CoreSource:
    """A core file.

    A core does not tell whether a page of a file mapping was copied on write, so these pages are
    captured only with `all_pages`. The kernel leaves holes in the file for absent pages; in cores of
    gcore, and in copies without holes, they look like zero pages. Raises UserError if the file is
    absent, unreadable, not a 64-bit ELF core, or truncated.
    """

    kind: Literal["core"] = "core"
    vanished = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_file(path, "core file")
        try:
            notes, headers = self._parse()
            self.pid = notes.pid
            self.name = notes.name or path.name
            if notes.page_size not in (None, 1, PAGE_SIZE):
                raise UserError(f"core file {path} has pages of {notes.page_size} bytes, not {PAGE_SIZE}")
            self._holes_absent = notes.page_size == PAGE_SIZE
            self._segments = [_segment(header, notes) for header in headers]
        except BaseException:
            self.close()
            raise

    def _parse(self) -> tuple[_Notes, list[Any]]:
        """Notes and PT_LOAD headers in order of address."""
        with io.FileIO(self._file, closefd=False) as raw, io.BufferedReader(raw) as stream:
            try:
                elf = ELFFile(stream)
            except _DAMAGES as error:
                raise UserError(f"{self._path} is not an ELF file: give --core a core file") from error
            self._check_kind(elf)
            try:
                self._check_headers(elf)
                segments = list(elf.iter_segments())
                self._check_complete(segments)
                return _read_notes(segments, elf.little_endian), self._loads(segments)
            except _DAMAGES as error:
                raise self._damaged("its headers cannot be read") from error

    def _check_kind(self, elf: Any) -> None:
        if elf.header["e_type"] != "ET_CORE":
            raise UserError(f"{self._path} is an ELF file but not a core: make one with gcore PID")
        if elf.elfclass != 64:
            raise UserError(f"{self._path} is a {elf.elfclass}-bit core: only 64-bit ones can be captured")

    def _check_headers(self, elf: Any) -> None:
        count, size = elf.num_segments(), elf.header["e_phentsize"]
        if size != _HEADER_SIZE or count > MOST_SEGMENTS:
            raise self._damaged(f"it has {count} headers of {size} bytes, unlike a core")
        end = elf.header["e_phoff"] + count * size
        if end > os.fstat(self._file).st_size:
            raise self._damaged("its headers are cut off")

    def _check_complete(self, segments: list[Any]) -> None:
        notes = sum(segment["p_filesz"] for segment in segments if segment["p_type"] == "PT_NOTE")
        if notes > MOST_NOTES:
            raise self._damaged(f"it has notes of {notes:,} bytes; {MOST_NOTES:,} at most")
        size = os.fstat(self._file).st_size
        needed = max((segment["p_offset"] + segment["p_filesz"] for segment in segments), default=0)
        if needed > size:
            raise UserError(
                f"core file {self._path} is truncated to {size} of {needed} bytes: "
                "write it again with enough disk space and `ulimit -c unlimited`"
            )

    def _loads(self, segments: list[Any]) -> list[Any]:
        loads = [segment for segment in segments if segment["p_type"] == "PT_LOAD" and segment["p_memsz"]]
        loads.sort(key=lambda segment: int(segment["p_vaddr"]))
        end = 0
        for load in loads:
            if load["p_vaddr"] % PAGE_SIZE or load["p_vaddr"] < end or load["p_filesz"] > load["p_memsz"]:
                raise self._damaged(f"the segment at {load['p_vaddr']:#x} is not a range of whole pages")
            end = load["p_vaddr"] + -(-load["p_memsz"] // PAGE_SIZE) * PAGE_SIZE
            if end > 1 << 64:
                raise self._damaged(f"the segment at {load['p_vaddr']:#x} ends beyond the address space")
        if not loads:
            raise self._damaged("it holds no memory")
        return loads

    def _damaged(self, why: str) -> UserError:
        return UserError(f"core file {self._path} is damaged, {why}: write it again")

    def expected_pages(self, all_pages: bool) -> int:
        """Return the number of pages that the file can hold, holes included."""
        return sum(segment.stored_pages for segment in self._wanted(all_pages))

    def scan(self, all_pages: bool) -> SourceScan:
        """Return all segments and their pages in the file."""
        return SourceScan(tuple(segment.mapping for segment in self._segments), None, self._chunks(all_pages))

    def _wanted(self, all_pages: bool) -> list[_Segment]:
        return [segment for segment in self._segments if all_pages or segment.flags & MERGEABLE]

    def _chunks(self, all_pages: bool) -> Iterator[Chunk]:
        buffer = page_buffer()
        for segment in self._wanted(all_pages):
            for start, end in self._present(segment):
                for first in range(start, end, CHUNK_PAGES):
                    yield self._read(segment, first, min(first + CHUNK_PAGES, end), buffer)

    def _present(self, segment: _Segment) -> Iterator[tuple[int, int]]:
        """Yield ranges of a segment's pages that the process had in memory, as far as the file tells."""
        if not self._holes_absent:
            yield 0, segment.stored_pages
            return
        yield from stored_pages(self._file, segment.offset, segment.stored)

    def _read(self, segment: _Segment, first: int, last: int, buffer: memoryview) -> Chunk:
        offset = first * PAGE_SIZE
        size = min(last * PAGE_SIZE, segment.stored) - offset
        data = buffer[: (last - first) * PAGE_SIZE]
        if os.preadv(self._file, [data[:size]], segment.offset + offset) < size:
            raise UserError(f"core file {self._path} shrank while it was read: capture it again")
        data[size:] = bytes(len(data) - size)
        vpn = segment.mapping.start_vpn + np.arange(first, last, dtype=np.uint64)
        return Chunk(vpn, data, np.full(last - first, segment.flags, np.uint16))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _segment(header: Any, notes: _Notes) -> _Segment:
    start = int(header["p_vaddr"])
    end = start + int(header["p_memsz"])
    file = _file_at(notes.files, start, end)
    name = file if file is not None else _special_name(start, end, notes)
    anonymous = file is None and name in ("", "[stack]")
    access = "".join(
        letter if header["p_flags"] & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
    )
    mapping = Mapping(
        start // PAGE_SIZE,
        -(-(end - start) // PAGE_SIZE),
        access + ("p" if file is None else "?"),
        name,
        anonymous,
    )
    flags = MERGEABLE if anonymous else FILE if file is not None else 0
    return _Segment(mapping, int(header["p_offset"]), int(header["p_filesz"]), flags)


def _file_at(files: list[tuple[int, int, str]], start: int, end: int) -> str | None:
    """Return the file that is mapped between two addresses; `files` is in ascending order."""
    at = bisect_right(files, start, key=lambda file: file[1])
    return files[at][2] if at < len(files) and files[at][0] < end else None


def _special_name(start: int, end: int, notes: _Notes) -> str:
    """Return the name of a segment without a file, as in /proc/PID/maps."""
    if start >= _USER_END:
        return "[vsyscall]"
    if notes.auxiliary.get(_AT_SYSINFO_EHDR) == start:
        return "[vdso]"
    if start <= notes.auxiliary.get(_AT_RANDOM, -1) < end:
        return "[stack]"
    return ""


def _read_notes(segments: list[Any], little_endian: bool) -> _Notes:
    notes = _Notes()
    for segment in segments:
        if segment["p_type"] == "PT_NOTE":
            for note in segment.iter_notes():
                _add_note(notes, note, little_endian)
    return notes


def _add_note(notes: _Notes, note: Any, little_endian: bool) -> None:
    description = note["n_desc"]
    if note["n_type"] == "NT_PRPSINFO":
        notes.pid = int(description["pr_pid"])
        notes.name = description["pr_fname"].split(b"\0")[0].decode(errors="replace")
    elif note["n_type"] == "NT_AUXV":
        pairs = struct.iter_unpack("<QQ" if little_endian else ">QQ", description)
        notes.auxiliary = dict(pairs)
    elif note["n_type"] == "NT_FILE":
        notes.page_size = int(description["page_size"])
        notes.files = sorted(
            (entry["vm_start"], entry["vm_end"], name.decode(errors="replace"))
            for entry, name in zip(description["Elf_Nt_File_Entry"], description["filename"], strict=True)
        )
