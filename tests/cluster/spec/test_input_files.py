"""Files that are no regular ones, or too large, are refused and never waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cluster.spec.input_files import read_input


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_input(file, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes are too many; 4 at most"):
        read_input(file, 4)


def test_a_file_that_does_not_say_how_long_it_is() -> None:
    assert read_input(Path("/proc/self/status"), 1 << 20).startswith(b"Name:")
    with pytest.raises(OSError, match="too large; 10 bytes at most"):
        read_input(Path("/proc/self/status"), 10)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe, listening, loop = (tmp_path / name for name in ("pipe", "socket", "loop"))
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        refused = {
            pipe: "not a regular file",
            listening: "No such device",
            loop: "symbolic links",
            tmp_path: "Is a directory",
            Path("/dev/zero"): "not a regular file",
            tmp_path / ("n" * 300): "too long",
            Path("a\0b"): "Invalid argument",
            tmp_path / "absent": "No such file",
        }
        for path, reason in refused.items():
            with pytest.raises(OSError, match=reason) as raised:
                read_input(path, 1000)
            assert raised.value.strerror
