"""Parses TOML of unknown origin: refuses deep nesting and numbers beyond 64 bits."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from cluster.spec.limits import MOST_DEPTH, MOST_INTEGER

#: Matches dotted keys with too many parts: tomllib's time grows with the square of their number.
_LONG_KEY = re.compile(rf"""\.(?:[ \t]*(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.){{{MOST_DEPTH}}}""", re.ASCII)


def parse_toml(text: str) -> dict[str, Any]:
    """Return the data of a TOML text. Raises ValueError, which says what is wrong with it."""
    if _LONG_KEY.search(text):
        raise ValueError(f"a key of more than {MOST_DEPTH} parts")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # from int(), for thousands of digits, and from dates
        raise ValueError("a number or date is out of range") from None
    check_values(data)
    return data


def check_values(data: object) -> None:
    """Raise ValueError if data are nested too deeply or have integers beyond 64 bits."""
    level = [data]
    for _ in range(MOST_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list | tuple):
                inner += value
            elif isinstance(value, int) and abs(value) > MOST_INTEGER:
                raise ValueError("a whole number is beyond 64 bits")
        if not inner:
            return
        level = inner
    raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"tables or lists are nested more than {MOST_DEPTH} deep"
