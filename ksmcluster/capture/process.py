"""Live processes: /proc/PID/smaps, pagemap and mem."""

import errno
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cluster.spec.content import PAGE_SIZE
from ksmcluster.capture import pagemap
from ksmcluster.capture.pagemap import Listing
from ksmcluster.capture.smaps import Area, parse_smaps
from ksmcluster.capture.source import CHUNK_PAGES, Chunk, SourceScan, page_buffer
from ksmcluster.snapshot import FILE, MERGEABLE, SHARED_ZERO
from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import parsed_ksm_stat

_STOP_SECONDS = 5.0
#: Flag of kernel threads (proc_pid_stat(5)). A process that is ending has no memory either.
_PF_KTHREAD = 0x00200000


class ProcessGoneError(UserError):
    """The process has ended or never existed."""


class ProcessSource:
    """A running process.

    Raises UserError, here or when scanned, if the process does not exist, has no memory of its own, or
    may not be read; ProcessGoneError if it has ended.
    """

    kind: Literal["process"] = "process"

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.vanished = 0
        try:
            # Refers to this process even if its PID is reused.
            self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise ProcessGoneError(f"there is no process {pid}: check the PID with ps") from error
        try:
            self.name = self._text("comm").rstrip("\n")
            self._areas()
            os.close(self._open("mem"))
        except BaseException:
            self.close()
            raise

    def expected_pages(self, all_pages: bool) -> int:
        """Return the number of pages in memory and swap; 0 if the process has ended."""
        try:
            status = self._text("status")
        except ProcessGoneError:
            return 0
        fields = ("VmRSS", "VmSwap") if all_pages else ("RssAnon", "VmSwap")
        kib = (re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE) for field in fields)
        return sum(int(found[1]) * 1024 for found in kib if found) // PAGE_SIZE

    def scan(self, all_pages: bool) -> SourceScan:
        """List the pages of this moment. Iterating over the chunks reads them."""
        areas = self._areas()
        wanted = [area for area in areas if area.wanted(all_pages)]
        listing = self._listing(wanted, all_pages)
        return SourceScan(tuple(area.mapping for area in areas), listing, self._chunks(listing))

    def clear_refs(self, what: bytes) -> None:
        """Write to /proc/PID/clear_refs (proc_pid_clear_refs(5))."""
        try:
            descriptor = os.open("clear_refs", os.O_WRONLY, dir_fd=self._folder)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise self._gone() from error
        try:
            os.write(descriptor, what)
        finally:
            os.close(descriptor)

    @property
    def pinned_pages(self) -> int | None:
        """Return the number of pinned pages, which cannot merge (`VmPin`)."""
        found = re.search(r"^VmPin:\s+(\d+) kB", self._text("status"), re.MULTILINE)
        return int(found[1]) * 1024 // PAGE_SIZE if found else None

    @property
    def ksm_stat(self) -> dict[str, int] | None:
        """Return /proc/PID/ksm_stat, with yes and no as 1 and 0; None before Linux 6.1."""
        try:
            stat = self._text("ksm_stat")
        except ProcessGoneError:
            if self.has_ended():
                raise
            return None
        words = {"yes": 1, "no": 0}
        fields = parsed_ksm_stat(stat).items()
        return {name: value if isinstance(value, int) else words[value] for name, value in fields}

    def close(self) -> None:
        """Close the files of the process."""
        os.close(self._folder)

    def _open(self, name: str) -> int:
        try:
            return os.open(name, os.O_RDONLY, dir_fd=self._folder)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise self._gone() from error
        except PermissionError as error:
            raise UserError(
                f"no permission to read process {self.pid}: run as root (CAP_SYS_PTRACE) or as its owner"
            ) from error

    def _gone(self) -> ProcessGoneError:
        return ProcessGoneError(f"process {self.pid} has ended: capture it while it runs")

    def _text(self, name: str) -> str:
        try:
            with os.fdopen(self._open(name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except ProcessLookupError as error:
            raise self._gone() from error

    def _areas(self) -> list[Area]:
        areas = parse_smaps(self._text("smaps"))
        if areas:
            return areas
        if int(self._stat()[6]) & _PF_KTHREAD:
            raise UserError(f"process {self.pid} has no memory of its own: it is a kernel thread")
        raise self._gone()

    def _stat(self, task: str = "") -> list[str]:
        """Return what follows the name of the process, or of one task: state, parent, ...

        See proc_pid_stat(5).
        """
        stat = self._text(f"task/{task}/stat" if task else "stat")
        return stat[stat.rindex(")") + 2 :].split()

    def _listing(self, areas: Sequence[Area], all_pages: bool) -> Listing:
        map_file = self._open("pagemap")
        parts = []
        try:
            for area in areas:
                for found in pagemap.windows(map_file, area.mapping.start_vpn, area.mapping.end_vpn):
                    if area.mergeable:
                        found.flags[found.flags & (FILE | SHARED_ZERO) == 0] |= MERGEABLE
                    # Pages that ksmd mapped to the shared zero page are included in this count.
                    wanted = found.flags & (MERGEABLE | SHARED_ZERO) != 0
                    parts.append(found if all_pages else found.where(wanted))
        finally:
            os.close(map_file)
        return pagemap.joined(parts)

    def _chunks(self, listing: Listing) -> Iterator[Chunk]:
        buffer = page_buffer()
        memory = self._open("mem")
        try:
            for first in range(0, len(listing.vpn), CHUNK_PAGES):
                at = np.arange(first, min(first + CHUNK_PAGES, len(listing.vpn)))
                there = _read_pages(memory, listing.vpn[at].astype(np.uint64), buffer)
                count = int(there.sum())
                self.vanished += len(at) - count
                if count:
                    at = at[there]
                    vpn = listing.vpn[at].astype(np.uint64)
                    yield Chunk(vpn, buffer[: count * PAGE_SIZE], listing.flags[at], at)
        finally:
            os.close(memory)

    def has_ended(self) -> bool:
        """Return whether the process has ended, even if its parent has not waited for it yet."""
        try:
            return self._stat()[0] in "ZX"
        except ProcessGoneError:
            return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Raises UserError if that is not permitted or the process has ended."""
        try:
            signal.pidfd_send_signal(self._folder, number)
        except ProcessLookupError as error:
            raise self._gone() from error
        except PermissionError as error:
            raise UserError(
                f"no permission to stop process {self.pid}: run as root or leave out --stop"
            ) from error

    def is_stopped(self) -> bool:
        """Return whether all threads of the process are stopped."""
        return self._stat()[0] == "T"

    def wait_stopped(self) -> None:
        """Wait until no thread runs. Raises UserError after 5 s."""
        deadline = time.monotonic() + _STOP_SECONDS
        while not self._is_still():
            if time.monotonic() > deadline:
                raise UserError(f"process {self.pid} did not stop in {_STOP_SECONDS:g} s: leave out --stop")
            time.sleep(0.001)

    def _is_still(self) -> bool:
        tasks = self._open("task")
        try:
            with os.scandir(tasks) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError as error:
            raise self._gone() from error
        finally:
            os.close(tasks)
        return not any(self._runs(task) for task in names)

    def _runs(self, task: str) -> bool:
        try:
            # A task in uninterruptible sleep (D) stops before it returns to its program.
            return self._stat(task)[0] in "RS"
        except ProcessGoneError:  # that thread has ended
            return False


@contextmanager
def stopped(sources: Sequence[ProcessSource]) -> Iterator[None]:
    """Stop all processes during the block. The processes stopped here always continue afterwards.

    A process that has ended is skipped: scanning it reports that.
    """
    with ExitStack() as stack:
        for source in sources:
            with suppress(ProcessGoneError):
                if not source.is_stopped():
                    stack.callback(_resume, source)
                    source.signal(signal.SIGSTOP)
        for source in sources:
            with suppress(ProcessGoneError):
                source.wait_stopped()
        yield


def _resume(source: ProcessSource) -> None:
    with suppress(ProcessGoneError):
        source.signal(signal.SIGCONT)


def _read_pages(memory: int, vpn: NDArray[np.uint64], buffer: memoryview) -> NDArray[np.bool_]:
    """Read pages into the buffer; return which of them were still there, bool[n]."""
    there = np.ones(len(vpn), np.bool_)
    edges = np.flatnonzero(np.diff(vpn) != 1) + 1
    filled = 0
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(vpn)], strict=True):
        at = start
        while at < end:
            size = (end - at) * PAGE_SIZE
            got = _read_some(memory, buffer[filled : filled + size], int(vpn[at]) * PAGE_SIZE) // PAGE_SIZE
            filled += got * PAGE_SIZE
            at += got
            if at < end and got == 0:
                there[at] = False
                at += 1
    return there


def _read_some(memory: int, target: memoryview, address: int) -> int:
    """Return the number of bytes read; 0 if the first page is gone."""
    try:
        return os.preadv(memory, [target], address)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EFAULT):
            return 0
        raise
