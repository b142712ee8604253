"""The best of many points: the Pareto front, and one recommended point."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ksmcluster.experiments.figures import Figure, full_name
from ksmcluster.system.errors import UserError

#: Objectives by command. For equally many passes, less simulated time means a faster ksmd.
OBJECTIVES = {
    "simulate": (
        "saved_bytes_mean:max,simulated_seconds:min,ksmd_cpu_percent:min,ksm_mappings_remote_fraction:min"
    ),
    "compact": "obtained.movable_on:max,simulated_seconds:min",
}
#: Values of an objective within this relative distance of the best count as equal to it.
NEAR = 0.01
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class Objective(NamedTuple):
    """A figure to maximize (`most`) or to minimize."""

    name: str
    most: bool

    def __str__(self) -> str:
        return f"{self.name}:{'max' if self.most else 'min'}"

    def score(self, value: Figure) -> float:
        """Return a score: larger is better, and a missing value is the worst."""
        if value is None:
            return -math.inf
        return value if self.most else -value


class Limit(NamedTuple):
    """An upper or lower bound of a figure."""

    name: str
    compare: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.compare}{self.bound:g}"

    def is_kept(self, value: Figure) -> bool:
        """Return whether a value is within the bound; a missing value is not."""
        return value is not None and _COMPARE[self.compare](value, self.bound)


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Parse `saved_bytes:max,ksmd_cpu_seconds:min`."""
    found = []
    for part in text.split(","):
        name, _, way = part.strip().partition(":")
        if not name or way not in ("max", "min"):
            raise UserError(f"--objectives {part.strip()}: not of the form FIGURE:max or FIGURE:min")
        found.append(Objective(name, way == "max"))
    return tuple(found)


def parse_limits(texts: Iterable[str]) -> tuple[Limit, ...]:
    """Parse texts such as `ksmd_cpu_percent<=5`, or a single one."""
    return tuple(map(_limit, [texts] if isinstance(texts, str) else texts))


def _limit(text: str) -> Limit:
    found = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=|<|>)\s*(\S+)\s*", text)
    try:
        if found is None:
            raise ValueError
        return Limit(found[1], found[2], float(found[3]))
    except ValueError:
        raise UserError(
            f"--limit {text}: not of the form FIGURE<=NUMBER, as in ksmd_cpu_percent<=5"
        ) from None


def named(
    objectives: Sequence[Objective], limits: Sequence[Limit], names: Sequence[str]
) -> tuple[tuple[Objective, ...], tuple[Limit, ...]]:
    """Return objectives and limits with full names of figures. Raises UserError for unknown names."""
    return (
        tuple(o._replace(name=full_name(o.name, names, f"--objectives {o}")) for o in objectives),
        tuple(limit._replace(name=full_name(limit.name, names, f"--limit {limit}")) for limit in limits),
    )


def front(points: Mapping[int, Sequence[float]]) -> list[int]:
    """Return the points that no other point dominates, in the given order; larger scores are better.

    A point dominates another if it is worse in no objective and better in at least one.
    """
    return [
        number
        for number, scores in points.items()
        if not any(_dominates(other, scores) for other in points.values())
    ]


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def best(points: Mapping[int, Sequence[float]]) -> int | None:
    """Return the point that is best in the first objective; the next objectives decide between equals.

    Scores that are within NEAR of the best one count as equal. None if there are no points.
    """
    left = {number: points[number] for number in front(points)}
    if not left:
        return None
    for objective in range(len(next(iter(left.values())))):
        top = max(scores[objective] for scores in left.values())
        near = top - NEAR * abs(top)
        left = {number: scores for number, scores in left.items() if scores[objective] >= near}
    return max(left, key=lambda number: tuple(left[number]))
