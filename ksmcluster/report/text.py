"""Formats numbers and small pictures as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cluster.spec.limits import MOST_MESSAGE

#: Blocks from empty to full: for Unicode terminals, and for ASCII.
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " .:-=+*%#"
#: Parts of a block, from the left.
EIGHTHS = "▏▎▍▌▋▊▉█"


def size(count: float) -> str:
    """Format bytes in the unit that gives a number from 1 to 1023."""
    factor, unit = byte_unit(count)
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count / factor:.1f} {unit}"


def byte_unit(count: float) -> tuple[int, str]:
    """Return the unit in which `count` bytes are 1 to 1023: its bytes, and its name."""
    factor = 1
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 * factor:
            return factor, unit
        factor *= 1024
    return factor, "TiB"


def seconds(value: float) -> str:
    """Format a time with two or three significant digits."""
    if value >= 600:
        return f"{value / 60:.0f} min"
    if value >= 10:
        return f"{value:.0f} s"
    if value >= 1:
        return f"{value:.1f} s"
    if value >= 1e-3 or value == 0:
        return f"{_short(value * 1e3)} ms"
    return f"{_short(value * 1e6)} us"


def _short(number: float) -> str:
    return f"{number:.1f}" if 0 < number < 9.95 else f"{number:.0f}"


def percent(share: float) -> str:
    """Format a share, as in `62.5 %` for 0.625."""
    return f"{share:.1%}".replace("%", " %")


def counted(number: int, noun: str) -> str:
    """Format a count with its noun: `1 node`, `64 nodes`, `3 passes`."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def strip(values: Sequence[float], *, plain: bool = False) -> str:
    """Return a character per value, with heights relative to the largest; only 0 is blank."""
    blocks = ASCII_BLOCKS if plain else BLOCKS
    top = max(values, default=0) or 1
    return "".join(blocks[math.ceil(max(value, 0) / top * (len(blocks) - 1))] for value in values)


def bar(share: float, width: int, *, plain: bool = False) -> str:
    """Return a horizontal bar, `width` characters long for a share of 1."""
    if plain:
        return "#" * round(share * width)
    full, part = divmod(round(share * width * len(EIGHTHS)), len(EIGHTHS))
    return EIGHTHS[-1] * full + (EIGHTHS[part - 1] if part else "")


def shortened(label: str, width: int) -> str:
    """Shorten a label to `width` characters by cutting out its middle."""
    if len(label) <= width:
        return label
    kept = width - len("...")
    return label[: (kept + 1) // 2] + "..." + label[len(label) - kept // 2 :]


def message(text: str) -> str:
    """Return a message as one line of limited length, safe for a terminal."""
    return shortened(one_line(text), MOST_MESSAGE)


def one_line(text: str) -> str:
    """Return text of unknown origin as one line for a terminal, with unprintable characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
