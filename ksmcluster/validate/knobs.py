"""Reads, writes and restores the files of /sys/kernel/mm/ksm."""

from __future__ import annotations

import errno
import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import KSM

#: restored last, in this order: the advisor owns pages_to_scan, and ksmd must start after everything else
_LAST = ("advisor_mode", "run")


class Knobs:
    """The folder of files."""

    def __init__(self, folder: Path = KSM) -> None:
        self._folder = folder

    def exists(self, name: str) -> bool:
        """Return whether this kernel has the file."""
        return (self._folder / name).exists()

    def get(self, name: str) -> str:
        """Return the value of a file; for a choice such as `[none] scan-time`, the chosen word."""
        text = (self._folder / name).read_text().strip()
        chosen = re.search(r"\[([\w-]+)\]", text)
        return chosen[1] if chosen else text

    def number(self, name: str) -> int:
        """Return the number in a file."""
        return int(self.get(name))

    def set(self, name: str, value: object) -> str:
        """Write a file; return the name of the error (`EBUSY`), or an empty text."""
        if not self.exists(name):
            return "ENOENT"
        try:
            (self._folder / name).write_text(str(value))
        except OSError as error:
            return errno.errorcode[error.errno or errno.EIO]
        return ""

    def must_set(self, name: str, value: object) -> None:
        """Write a file. Raises UserError if the kernel refuses the value."""
        if error := self.set(name, value):
            raise UserError(f"the kernel refuses {value} for {self._folder / name} ({error}); set it by hand")

    def forget_all(self) -> None:
        """Unmerge all pages; ksmd starts again."""
        self.must_set("run", 2)
        self.must_set("run", 0)

    def saved(self) -> dict[str, str]:
        """Return all writable files, in the order in which to restore them."""
        writable = [path.name for path in self._folder.iterdir() if path.stat().st_mode & 0o200]
        order = sorted(writable, key=lambda name: (_LAST.index(name) if name in _LAST else -1, name))
        return {name: self.get(name) for name in order}

    def put_back(self, saved: dict[str, str]) -> None:
        """Restore all files. Raises UserError at the end if some could not be restored, and names them."""
        self.set("run", 2)  # some knobs do not change while pages are merged
        self.set("run", 0)
        self.set("advisor_mode", "none")  # under it pages_to_scan does not change
        wrong = []
        for name, value in saved.items():
            if self.get(name) != value and self.set(name, value):
                wrong.append(f"{name}={value}")
        if wrong:
            raise UserError(f"{self._folder}: could not restore {', '.join(wrong)}; set them manually")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock KSM against other ksmcluster processes. Raises UserError if one holds the lock."""
        with (self._folder / "run").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError("another ksmcluster process drives ksmd on this host: wait for it") from error
            yield
