"""Writes to a path that the user named: to a temporary file first, and never over files that are not ours."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ksmcluster.system.errors import UserError

#: The most characters of a name that a temporary name repeats: names are limited in length.
_SHORT = 40


def real_path(path: Path) -> Path:
    """Return the path without `~`, `..` and links, so that the checked path is the one that is written."""
    home = os.path.expanduser(path)  # noqa: PTH111 (that of Path raises for users who are not there)
    try:
        return Path(os.path.realpath(home))
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "the working directory is gone") from None
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def check_file(path: Path, named: str, is_ours: Callable[[Path], bool]) -> Path:
    """Return the real path of a file that will be written.

    Raises UserError, which begins with `named`, if the file exists and is neither empty nor ours, or if its
    directory does not exist.
    """
    try:
        real = real_path(path)
        if not real.parent.is_dir():
            raise UserError(f"{named}: there is no directory {path.parent}; create it")
        if not os.path.lexists(real):
            return real
        if not real.is_file():
            raise UserError(f"{named}: it is not a regular file; choose another name")
        if real.stat().st_size and not is_ours(real):
            raise UserError(f"{named}: this command did not write the existing file; choose another name")
        return real
    except OSError as error:
        raise UserError(f"{named}: {error.strerror}; choose another name") from error


def why_not_writable(folder: Path, name: str) -> str:
    """Say why nothing can be written beside a file or directory of this name; "" if it can."""
    try:
        with sibling(folder / name):
            return ""
    except OSError as error:
        return f"{folder} is not writable: {os.strerror(error.errno or 0)}"


@contextmanager
def sibling(path: Path) -> Iterator[Path]:
    """Create a temporary directory beside a path; at the end it is removed unless it was renamed."""
    made = Path(tempfile.mkdtemp(prefix=f".{path.name[:_SHORT]}.", dir=path.parent))
    try:
        # mkdtemp allows only the owner; the final directory follows the umask.
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o777 & ~umask)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
