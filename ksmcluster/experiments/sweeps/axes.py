"""The axes of a sweep: keys with their values, and the points that they form."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import NamedTuple

from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_POINTS, MOST_TEXT
from ksmcluster.config.overrides import Overrides, parse_value, toml_value
from ksmcluster.config.problems import did_you_mean
from ksmcluster.system.errors import UserError

#: Options that may also vary. Each maps to a key of the scenario, or "" if it has none.
OPTIONS = {
    "nodes": "machine.nodes",
    "passes": "simulation.passes",
    "seconds": "simulation.seconds",
    "until": "simulation.until",
    "pages_per_node": "",
    "count": "",
    "advice": "",
    "engine": "",
    "nodes_per_actor": "",
    "migration_actors": "",
}
_SEED = "simulation.seed"
_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?:([x+])({_NUMBER}))?")
#: The most values of a range: more are probably a typing error.
_MOST_VALUES = 100_000

#: The values of each key at one point, as TOML.
Settings = dict[str, str]


class SweepPoint(NamedTuple):
    """One combination of values; its number counts from 1."""

    number: int
    settings: Settings

    @property
    def label(self) -> str:
        """Return the settings in one line."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items()) or "the scenario"


def parse_axes(texts: Iterable[str]) -> dict[str, list[str]]:
    """Return the values by key of texts such as `ksm.pages_to_scan=100,200` or `nodes=1..16x2`."""
    axes: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values.strip():
            raise UserError(f"--vary {text}: not of the form KEY=VALUE,VALUE,...")
        _add(axes, name, list(_values(values, text)))
    return axes


def axes_of(vary: Mapping[str, str | Iterable[object]]) -> dict[str, list[str]]:
    """Return the values by key from Python: texts are parsed as on the command line, others are kept."""
    axes: dict[str, list[str]] = {}
    for name, values in vary.items():
        if isinstance(values, str):
            _add(axes, name, list(_values(values, f"{name}={values}")))
        elif isinstance(values, Iterable):
            _add(axes, name, [toml_value(f"vary {name!r}", value) for value in values])
        else:
            raise UserError(
                f'vary {name!r}: give a list of values, or a text such as "1..16x2", not {values}'
            )
    return axes


def make_points(axes: Mapping[str, list[str]], *, zipped: bool = False) -> tuple[SweepPoint, ...]:
    """Return all combinations of the values, the last key fastest; with `zipped`, pair them by position."""
    lengths = {name: len(values) for name, values in axes.items()}
    if zipped and len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise UserError(f"--zip: all keys need the same number of values: {counts}")
    if not zipped and math.prod(map(len, axes.values())) > MOST_POINTS:
        raise UserError(f"--vary: there are more than {MOST_POINTS:,} combinations; give fewer values")
    rows = zip(*axes.values(), strict=True) if zipped and axes else product(*axes.values())
    return tuple(SweepPoint(number, dict(zip(axes, row, strict=True))) for number, row in enumerate(rows, 1))


def read_points(path: Path) -> tuple[SweepPoint, ...]:
    """Return the points of a CSV file: keys in the first line, one point in each further line."""
    try:
        text = read_input(path, MOST_TEXT).decode()
        lines = io.StringIO(text, newline="")
        heads, *rows = [row for row in csv.reader(lines, skipinitialspace=True) if row] or [[]]
    except OSError as error:
        raise UserError(f"--points {path}: cannot be read: {error.strerror}; check the name") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--points {path}: cannot be read: {error}") from None
    if not rows:
        raise UserError(f"--points {path}: needs a line of keys and a line per point")
    if wrong := [number for number, row in enumerate(rows, 2) if len(row) != len(heads)]:
        raise UserError(f"--points {path}: line {wrong[0]} does not have {len(heads)} values")
    axes: dict[str, list[str]] = {}
    for head, column in zip(heads, zip(*rows, strict=True), strict=True):
        _add(axes, head, [value.strip() for value in column])
    return make_points(axes, zipped=True)


def overrides_of(settings: Settings, base: Overrides) -> Overrides:
    """Return the changes of a point, on top of the common ones."""
    try:
        changes = {name: parse_value(value) for name, value in settings.items() if name in OPTIONS}
    except ValueError as error:
        raise UserError(f"--vary: {error}") from None
    own = tuple(f"{key}={value}" for key, value in settings.items() if key not in OPTIONS)
    return replace(
        base,
        # These would take precedence over settings.
        nodes=base.nodes if "machine.nodes" not in settings else None,
        passes=base.passes if "simulation.passes" not in settings else None,
        seconds=base.seconds if "simulation.seconds" not in settings else None,
        until=base.until if "simulation.until" not in settings else None,
        settings=base.lines + own,
        pages_per_node=changes.get("pages_per_node", base.pages_per_node),
        count=changes.get("count", base.count),
        advice=changes.get("advice", base.advice),
    )


def _add(axes: dict[str, list[str]], name: str, values: list[str]) -> None:
    key = _key(name.strip())
    if key in axes:
        raise UserError(f"--vary {key}: given twice; give all its values at once")
    if not values:
        raise UserError(f"--vary {key}: has no values")
    if wrong := [text for text in (key, *values) if not _is_unicode(text)]:
        raise UserError(f"--vary {key}: {wrong[0]!r} is not UTF-8")
    axes[key] = values


def _is_unicode(text: str) -> bool:
    """Return whether a text can be written; arguments may have bytes that are none."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _key(name: str) -> str:
    option = name.lstrip("-").replace("-", "_")
    if option in OPTIONS:
        return OPTIONS[option] or option
    if name in ("seed", "seeds", _SEED):
        raise UserError(f"--vary {name}: use --seeds N, which runs each point with N seeds")
    if "." not in name:
        hint = did_you_mean(option, OPTIONS) or "; give a key of a table, as in ksm.pages_to_scan=100,200"
        raise UserError(f"--vary {name}: no such key{hint}")
    return name


def _values(text: str, whole: str) -> Iterator[str]:
    for part in _split(text):
        if found := _RANGE.fullmatch(part):
            yield from _range(found, whole)
        elif part:
            yield part
        else:
            raise UserError(f"--vary {whole}: a value is missing between two commas")


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    parts = re.findall(r"""(?:"[^"]*"|'[^']*'|\[[^\]]*\]|\{[^}]*\}|[^,])+|(?<=,)(?=,|$)|^(?=,)""", text)
    return [part.strip() for part in parts]


def _range(found: re.Match[str], whole: str) -> Iterator[str]:
    low, high, step, by = found.groups()
    value, last, change = Decimal(low), Decimal(high), Decimal(by or 1)
    grows = change > 1 and value > 0 if step == "x" else change > 0
    if not grows or value > last:
        raise UserError(
            f"--vary {whole}: {low}..{high} never reaches its end; use a range such as 1..16x2 or 1..16+5"
        )
    for _ in range(_MOST_VALUES):
        if value > last:
            return
        yield f"{value:f}"
        value = value * change if step == "x" else value + change
    raise UserError(f"--vary {whole}: the range has more than {_MOST_VALUES:,} values")
