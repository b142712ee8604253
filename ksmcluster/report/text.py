"""Numbers and small pictures as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cluster.spec.limits import MOST_MESSAGE

#: From nothing to all: what a terminal can show, and what any can.
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " .:-=+*%#"
#: Parts of a block, from the left.
EIGHTHS = "▏▎▍▌▋▊▉█"


def size(count: float) -> str:
    """Bytes in the unit that gives 1 to 1023 of it."""
    factor, unit = byte_unit(count)
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count / factor:.1f} {unit}"


def byte_unit(count: float) -> tuple[int, str]:
    """The unit that gives 1 to 1023 of so many bytes: how many bytes it has, and its name."""
    factor = 1
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 * factor:
            return factor, unit
        factor *= 1024
    return factor, "TiB"


def seconds(value: float) -> str:
    """A time in two or three digits that matter."""
    if value >= 600:
        return f"{value / 60:.0f} min"
    if value >= 10:
        return f"{value:.0f} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def percent(share: float) -> str:
    """`62.5 %` for 0.625."""
    return f"{share:.1%}".replace("%", " %")


def counted(number: int, noun: str) -> str:
    """`1 node`, `64 nodes`, `3 passes`."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def strip(values: Sequence[float], *, plain: bool = False) -> str:
    """A character for each value, its height the share of the largest; nothing only for 0."""
    blocks = ASCII_BLOCKS if plain else BLOCKS
    top = max(values, default=0) or 1
    return "".join(blocks[math.ceil(max(value, 0) / top * (len(blocks) - 1))] for value in values)


def bar(share: float, width: int, *, plain: bool = False) -> str:
    """A horizontal bar, `width` long for a share of 1."""
    if plain:
        return "#" * round(share * width)
    full, part = divmod(round(share * width * len(EIGHTHS)), len(EIGHTHS))
    return EIGHTHS[-1] * full + (EIGHTHS[part - 1] if part else "")


def shortened(label: str, width: int) -> str:
    """The label, at most so wide: what is too much is left out of its middle."""
    if len(label) <= width:
        return label
    kept = width - len("...")
    return label[: (kept + 1) // 2] + "..." + label[len(label) - kept // 2 :]


def message(text: str) -> str:
    """Return a line for the terminal, of a bearable length, whatever was put into it."""
    return shortened(one_line(text), MOST_MESSAGE)


def one_line(text: str) -> str:
    """Text of unknown origin on one line of a terminal: characters that cannot be printed are escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
