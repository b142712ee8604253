"""The free memory of a machine: /proc/buddyinfo as keys of [machine] in a scenario of `compact`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_TEXT
from ksmcluster.system.errors import UserError

#: Orders 0 to 10, as of kernels with pages of 4 KiB.
_ORDERS = 11
#: The most characters of a line in a message.
_SHOWN = 60
_ZONE = re.compile(r"Node +(\d{1,4}), +zone +(\w+)((?: +\d{1,13})+)", re.ASCII)
T = TypeVar("T")


def start_keys(buddyinfo: Path) -> dict[str, Any]:
    """Return the keys of [machine] that a file says. Raises UserError if it is not such a file."""
    free = _parsed(buddyinfo, "--buddyinfo", free_blocks)
    return {"nodes": len(free), "free_blocks": [free[node] for node in sorted(free)]}


def free_blocks(text: str) -> dict[int, list[int]]:
    """Return the free blocks by order of each node in /proc/buddyinfo, with those of its zones added up.

    Raises ValueError, which says what is wrong with the text.
    """
    found: dict[int, list[int]] = {}
    zones: set[tuple[str, str]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if not (match := _ZONE.fullmatch(line.strip())):
            raise ValueError(f"line {number} is no line of /proc/buddyinfo: {line.strip()[:_SHOWN]!r}")
        node, zone, counts = match[1], match[2], [int(count) for count in match[3].split()]
        if len(counts) != _ORDERS:
            raise ValueError(
                f"line {number} has {len(counts)} orders; with pages of 4 KiB there are {_ORDERS}"
            )
        if (node, zone) in zones:
            raise ValueError(f"line {number} has zone {zone} of node {node} again; give one moment only")
        zones.add((node, zone))
        before = found.get(int(node), [0] * _ORDERS)
        found[int(node)] = [a + b for a, b in zip(before, counts, strict=True)]
    if not found:
        raise ValueError("is empty; give the text of /proc/buddyinfo")
    return found


def _parsed(file: Path, option: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(read_input(file, MOST_TEXT).decode())
    except OSError as error:
        raise UserError(f"{option} {file}: {error.strerror}; give a file that can be read") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {file}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise UserError(f"{option} {file}: {error}") from None
