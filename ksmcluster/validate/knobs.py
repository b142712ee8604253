"""The files of /sys/kernel/mm/ksm: read, written, and put back as they were."""

from __future__ import annotations

import errno
import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import KSM

#: put back last, in this order: the advisor owns pages_to_scan, and ksmd is to start when all is as it was
_LAST = ("advisor_mode", "run")


class Knobs:
    """The folder of files."""

    def __init__(self, folder: Path = KSM) -> None:
        self._folder = folder

    def exists(self, name: str) -> bool:
        """Whether this kernel has such a file."""
        return (self._folder / name).exists()

    def get(self, name: str) -> str:
        """What a file says; of a choice such as `[none] scan-time` the word that is chosen."""
        text = (self._folder / name).read_text().strip()
        chosen = re.search(r"\[([\w-]+)\]", text)
        return chosen[1] if chosen else text

    def number(self, name: str) -> int:
        """What a file with a number says."""
        return int(self.get(name))

    def set(self, name: str, value: object) -> str:
        """Write a file; the name of the error (`EBUSY`), or nothing."""
        if not self.exists(name):
            return "ENOENT"
        try:
            (self._folder / name).write_text(str(value))
        except OSError as error:
            return errno.errorcode[error.errno or errno.EIO]
        return ""

    def must_set(self, name: str, value: object) -> None:
        """Write a file. Raises UserError if the kernel does not take it."""
        if error := self.set(name, value):
            raise UserError(f"{self._folder / name} does not take {value}: {error}; set it by hand")

    def forget_all(self) -> None:
        """Unmerge all there is; ksmd starts anew."""
        self.must_set("run", 2)
        self.must_set("run", 0)

    def saved(self) -> dict[str, str]:
        """All files that can be written, in the order in which to put them back."""
        writable = [path.name for path in self._folder.iterdir() if path.stat().st_mode & 0o200]
        order = sorted(writable, key=lambda name: (_LAST.index(name) if name in _LAST else -1, name))
        return {name: self.get(name) for name in order}

    def put_back(self, saved: dict[str, str]) -> None:
        """Have all files say what they said. Raises UserError at the end, naming those that do not."""
        self.set("run", 2)  # some knobs do not change while pages are merged
        self.set("run", 0)
        self.set("advisor_mode", "none")  # under it pages_to_scan does not change
        wrong = []
        for name, value in saved.items():
            if self.get(name) != value and self.set(name, value):
                wrong.append(f"{name}={value}")
        if wrong:
            raise UserError(f"{self._folder}: could not put back {', '.join(wrong)}; do it by hand")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out others that do as we do. Raises UserError if one is at it."""
        with (self._folder / "run").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError("another ksmcluster drives ksmd on this host: wait for it") from error
            yield
