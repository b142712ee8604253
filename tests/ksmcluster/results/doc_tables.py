"""The tables that the pages of docs/ have between markers, made from what the code says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cluster.compaction import kernel_rules
from cluster.spec import limits, profile
from cluster.spec.statistics import COUNTERS, GAUGES, OF_PAIR, OF_PROCESS, Statistic
from ksmcluster.config import Scenario
from ksmcluster.config.compaction import CompactionScenario
from ksmcluster.config.problems import several_tables, shown, table_of, tables
from ksmcluster.config.tables import Switched
from ksmcluster.results.huge_pages import HUGE_PAGES
from ksmcluster.results.result import DERIVED, TIMING
from tests.ksmcluster.results.doc_commands import commands

Rows = Iterable[tuple[str, ...]]


def sections() -> dict[str, str]:
    """Markdown of each generated part, by the name in its markers."""
    keys = {name: keys_of(model) for name, model in tables(Scenario).items() if name}
    keys |= {f"compact.{name}": keys_of(model) for name, model in tables(CompactionScenario).items() if name}
    return keys | {
        "gauges": statistics(GAUGES),
        "counters": statistics(COUNTERS),
        "of_process": statistics(OF_PROCESS),
        "of_pair": statistics(OF_PAIR),
        "derived": statistics(DERIVED),
        "huge_pages": statistics(HUGE_PAGES),
        "timing": statistics(TIMING),
        "kernels": _kernels(profile.KERNELS),
        "kernel_rules": _table(
            ("rule", "begins with", "ends with", "meaning"),
            ((f"`{r.name}`", r.begins, r.ends or "", r.meaning) for r in profile.RULES),
        ),
        "compaction_kernels": _kernels(kernel_rules.KERNELS),
        "compaction_rules": _table(
            ("rule", "begins with", "ends with", "known from", "meaning"),
            map(_compaction_rule, kernel_rules.RULES),
        ),
        "limits": _table(("limit", "value"), limits_of(Path(limits.__file__).read_text())),
        "commands": commands(),
    }


def _kernels(kernels: Iterable[profile.Kernel]) -> str:
    return _table(
        ("kernel", "releases from", "known from"),
        ((f"`{k.name}`", ".".join(map(str, k.since)), k.source) for k in kernels),
    )


def _compaction_rule(rule: profile.KernelRule) -> tuple[str, ...]:
    known = ["records"] if rule.observed(kernel_rules.KERNELS) else []
    if rule.read or not known:
        known.append(f"source: {rule.read}" if rule.read else "source")
    return f"`{rule.name}`", rule.begins, rule.ends or "", ", ".join(known), rule.meaning


def limits_of(source: str) -> Rows:
    """What the comments of cluster/spec/limits.py say, and the numbers."""
    for meaning, name in re.findall(r"^#: (.*)\n(\w+): Final", source, re.MULTILINE):
        value = getattr(limits, name)
        yield meaning, f"{value:,}" if isinstance(value, int) else f"{value:g}"


def filled(document: str) -> str:
    """The document with each part between its markers made anew."""
    made = sections()

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n{made[match[2]]}\n{match[3]}"

    return re.sub(r"(<!-- made: (\S+) -->)\n.*?(<!-- end -->)", part, document, flags=re.DOTALL)


def markers(document: str) -> list[str]:
    return re.findall(r"<!-- made: (\S+) -->", document)


def statistics(group: Iterable[Statistic]) -> str:
    return _table(("name", "unit", "meaning"), ((f"`{s.name}`", s.unit, s.meaning) for s in group))


def keys_of(model: type[BaseModel]) -> str:
    switched: Switched = getattr(model, "KEYS", {}) | getattr(model, "LAW_KEYS", {})
    rows = (
        (f"`{name}`", _value(field), _default(name, field, switched), field.description or "")
        for name, field in model.model_fields.items()
    )
    return _table(("key", "value", "default", "meaning"), rows)


def _table(heads: tuple[str, ...], rows: Rows) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _value(field: FieldInfo) -> str:
    unit = str((field.json_schema_extra or {}).get("unit", ""))  # type: ignore[union-attr]
    if unit == "size":
        return "size"
    kind = _kind(field.annotation)
    return ", ".join(filter(None, (kind, _range(field), unit)))


def _kind(annotation: Any) -> str:
    bare = [arg for arg in get_args(annotation) if arg is not type(None)]
    if get_origin(annotation) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in bare)
    if table_of(annotation):
        return "tables" if several_tables(annotation) else "table"
    if get_origin(annotation) is tuple:
        return "list"
    if get_origin(annotation) is dict:
        return "table"
    if bare and type(None) in get_args(annotation):
        return _kind(bare[0])
    if get_origin(annotation) is not None:
        return _kind(bare[0])
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names[annotation]


def _limits(annotation: Any) -> list[Any]:
    """Constraints anywhere in an annotation such as `Annotated[int, Ge(1)] | None`."""
    own = [
        item for data in getattr(annotation, "__metadata__", ()) for item in getattr(data, "metadata", [data])
    ]
    if get_origin(annotation) is tuple:
        return own
    return own + [limit for arg in get_args(annotation) for limit in _limits(arg)]


def _range(field: FieldInfo) -> str:
    limits = [*field.metadata, *_limits(field.annotation)]
    least = next((limit.ge for limit in limits if isinstance(limit, Ge)), None)
    above = next((limit.gt for limit in limits if isinstance(limit, Gt)), None)
    most = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    if (least, most) == (0, 1) and field.annotation is not float:
        return "0 or 1"
    low = f"above {above}" if above is not None else f"from {least}" if least is not None else ""
    return f"{low} to {most}" if most is not None else low


def _default(name: str, field: FieldInfo, switched: Switched) -> str:
    if name in switched:
        choices, default = switched[name]
        only = ", ".join(f"`{choice}`" for choice in choices)
        return f"{_literal(default)} (with {only} only)".removeprefix(" ")
    if field.is_required():
        return "must be given"
    default = field.default
    return "" if default is PydanticUndefined else _literal(default)


def _literal(default: object) -> str:
    if default is ...:
        return "must be given"
    if default is None:
        return ""
    if isinstance(default, dict):
        return "`{}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(shown, default))}]`"
    return f"`{shown(default)}`"
