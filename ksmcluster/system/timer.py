"""The tick rate of this host's kernel."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path

_CLOCK_MONOTONIC_COARSE = 6
"""Its resolution is one timer tick."""


def kernel_hz(release: str) -> int | None:
    """Return CONFIG_HZ, from the kernel's configuration or the resolution of the coarse clock."""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{release}")):
        try:
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except OSError:
            continue
        if found := re.search(rb"^CONFIG_HZ=(\d+)$", text, re.MULTILINE):
            return int(found[1])
    tick = time.clock_getres(_CLOCK_MONOTONIC_COARSE)
    return round(1 / tick) if tick >= 1e-4 else None
