"""The figures of a run: all numbers of its summary, each with a name and a unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster.spec.statistics import UNITS
from ksmcluster.config.problems import did_you_mean
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.result import DERIVED, Result
from ksmcluster.system.errors import UserError

Figure = int | float | None
Figures = dict[str, Figure]

#: Parts of a summary whose figures keep their own names.
_UNNAMED = ("gauges", "counters", "derived")
#: Keys that describe the run and not its result, and lists by pass.
_LEFT_OUT = ("schema_version", "seed", "nodes", "order", "requested", "by_pass")
_UNITS = UNITS | {statistic.name: statistic.unit for statistic in DERIVED}
_UNITS_BY_ENDING = {
    "_percent": "percent",
    "_fraction": "",
    "_bytes": "bytes",
    "_seconds": "s",
    "_ns": "ns",
    ".bytes": "bytes",
}
BY_PASS = "by_pass."


def figures(result: Result | CompactionResult) -> Figures:
    """Return the figures of a whole run."""
    return figures_of(result.summary)


def figures_of(summary: Mapping[str, Any]) -> Figures:
    """Return the figures of a summary.json, and ksmd's share of a CPU."""
    found = dict(_flat("", summary))
    cpu, simulated = found.get("ksmd_cpu_seconds"), found.get("simulated_seconds")
    if cpu is not None and simulated is not None:
        found.setdefault("ksmd_cpu_percent", 100 * cpu / simulated if simulated else None)
    return found


def figures_by_pass(result: Result) -> list[Figures]:
    """Return the figures of each pass: statistics over all nodes, and `by_pass` of the summary."""
    passes = int(result.summary["passes"])
    by_pass = dict(_lists("", result.summary["by_pass"], passes))
    by_pass |= _lists("migration.", result.summary.get("migration", {}).get("by_pass", {}), passes)
    for name, column in result.passes.items():
        if name not in ("pass", "node"):
            by_pass.setdefault(name, column.reshape(passes, -1).sum(axis=1).tolist())
    return [
        {
            f"{BY_PASS}{flat}": value
            for name, row in by_pass.items()
            for flat, value in _flat(name, row[index])
        }
        for index in range(passes)
    ]


def unit_of(name: str) -> str:
    """Return the unit of a figure; empty for a ratio or an unknown unit."""
    name = name.removeprefix(BY_PASS)
    if name in _UNITS:
        return _UNITS[name]
    if name.rpartition(".")[2].startswith("bytes_"):
        return "bytes"
    return next((unit for ending, unit in _UNITS_BY_ENDING.items() if name.endswith(ending)), "")


def full_name(name: str, names: Sequence[str], option: str) -> str:
    """Return the figure with this name, or the only one that ends with it: remote_fraction."""
    if name in names:
        return name
    ending = [known for known in names if known.endswith((f"_{name}", f".{name}"))]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UserError(f"{option}: {name} could be {' or '.join(ending[:4])}; give the full name")
    hint = did_you_mean(name, names) or "; see the columns of sweep.parquet"
    raise UserError(f"{option}: there is no figure {name}{hint}")


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Figure]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            if name not in _LEFT_OUT:
                yield from _flat(_joined(prefix, name), part)
    elif isinstance(value, list):
        yield from _flat_list(prefix, value)
    elif isinstance(value, bool):
        yield prefix, int(value)
    elif value is None or isinstance(value, int | float):
        yield prefix, value


def _flat_list(prefix: str, values: list[Any]) -> Iterator[tuple[str, Figure]]:
    for index, part in enumerate(values):
        if not isinstance(part, Mapping):
            yield from _flat(f"{prefix}[{index}]", part)
        elif "frames" in part and "from" in part:  # a histogram
            yield f"{prefix}.{part['from']}", part["frames"]
        else:
            scalars = {name: number for name, number in part.items() if not isinstance(number, list)}
            yield from _flat(f"{prefix}[{index}]", scalars)


def _joined(prefix: str, name: str) -> str:
    return name if prefix in ("", *_UNNAMED) else f"{prefix}.{name}"


def _lists(prefix: str, part: Mapping[str, Any], passes: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the lists with an element for each pass."""
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _lists(f"{prefix}{name}.", value, passes)
        elif isinstance(value, list) and len(value) == passes:
            yield f"{prefix}{name}", value
