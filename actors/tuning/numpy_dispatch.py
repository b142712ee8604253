"""Choose the numpy sort that suits this processor, before numpy is imported."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: numpy reads this when it is imported.
_VARIABLE = "NPY_DISABLE_CPU_FEATURES"
_CPUINFO = Path("/proc/cpuinfo")


def choose_sort(cpuinfo: Path = _CPUINFO) -> None:
    """Keep numpy from its AVX-512 sort on AMD's Zen 4, which stores compressed vectors slowly.

    There the AVX2 sort takes 10 ns a word instead of 43; the order is the same. A value that the user has set
    stays. Call it before numpy is imported; the processes that this one starts inherit the choice.
    """
    if _is_zen4(cpuinfo):
        os.environ.setdefault(_VARIABLE, "X86_V4")


def _is_zen4(cpuinfo: Path) -> bool:
    """Tell Zen 4 from Zen 3, which has the same family, 25, but no AVX-512."""
    if not cpuinfo.exists():
        return False
    with cpuinfo.open() as file:
        first = file.read(4096).partition("\n\n")[0]
    return bool(
        re.search(r"^vendor_id\s*: AuthenticAMD$", first, re.MULTILINE)
        and re.search(r"^cpu family\s*: 25$", first, re.MULTILINE)
        and re.search(r"^flags\s*:.*\bavx512f\b", first, re.MULTILINE)
    )
