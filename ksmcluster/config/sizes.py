"""Sizes of memory as text, such as "64MiB" and "512 pages"."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from cluster.spec.content import PAGE_SIZE
from cluster.spec.limits import MOST_MEMORY, MOST_PAGES

UNITS = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "pages": PAGE_SIZE,
}

#: Other spellings of our units.
NEAR_UNITS = {
    "page": "pages",
    "k": "KiB",
    "kb": "KiB",
    "kib": "KiB",
    "m": "MiB",
    "mb": "MiB",
    "mib": "MiB",
    "g": "GiB",
    "gb": "GiB",
    "gib": "GiB",
    "t": "TiB",
    "tb": "TiB",
    "tib": "TiB",
    "b": "B",
    "bytes": "B",
}


def parse_size(value: object) -> int:
    """Return the pages of a size. Raises ValueError, which says what is wrong with it."""
    if not isinstance(value, str):
        example = f'"{value} pages" or "{value}MiB"' if isinstance(value, int) else '"64MiB" or "512 pages"'
        raise ValueError(f"a size is text with a unit: {example}")
    match = re.fullmatch(r"(\d{1,25}) ?([A-Za-z]{0,25})", value.strip(), re.ASCII)
    if not match:
        raise ValueError(f'"{value[:40]}" is not a size: write a whole number and a unit, as in "64MiB"')
    number, unit = match.groups()
    if unit not in UNITS:
        raise ValueError(_wrong_unit(number, unit))
    pages, rest = divmod(int(number) * UNITS[unit], PAGE_SIZE)
    if rest:
        raise ValueError(f'"{value}" is not a whole number of pages of {PAGE_SIZE} bytes')
    if not 1 <= pages <= MOST_PAGES:
        raise ValueError(f'"{value}" is out of range: from 1 page to {format_size(MOST_PAGES)}')
    return pages


def format_size(pages: int) -> str:
    """Return the shortest exact text for a number of pages."""
    size = pages * PAGE_SIZE
    unit = next(u for u in ("TiB", "GiB", "MiB", "KiB") if size % UNITS[u] == 0)
    return f"{size // UNITS[unit]}{unit}"


def _wrong_unit(number: str, unit: str) -> str:
    if not unit:
        return f'a size needs a unit: "{number} pages" or "{number}MiB"'
    near = NEAR_UNITS.get(unit.lower())
    hint = f'; did you mean "{number}{near}"?' if near else ""
    return f'unknown unit "{unit}" (the units are {", ".join(UNITS)}){hint}'


def _of_a_node(pages: int) -> int:
    if pages > MOST_MEMORY:
        raise ValueError(
            f'"{format_size(pages)}" is out of range: a node has at most {format_size(MOST_MEMORY)}'
        )
    return pages


#: A size in a scenario: text outside, pages inside.
Pages = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, return_type=str)]
#: Physical memory of a node.
MemoryPages = Annotated[Pages, AfterValidator(_of_a_node)]
