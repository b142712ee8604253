"""What a report says of one run: facts by name, and tables. Templates make HTML of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Names of facts, each with its value in words.
Facts = Mapping[str, str]


class HtmlTable(NamedTuple):
    """A table of texts; the first column names the row."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    #: Whether it becomes a list on narrow screens. Tables of many columns do in any case.
    stacked: bool = False


class Sections(NamedTuple):
    """What a report says of a run, but for its pictures."""

    #: What the run was to answer.
    question: str
    #: The machine, its load and the knobs.
    asked: Facts
    #: One sentence.
    answer: str
    #: The figures behind it.
    found: Facts
    time: Facts
    cost: Facts
    tables: Sequence[HtmlTable]
    #: What is not modelled.
    limits: Sequence[str]


def side_by_side(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """Return a row for each name that occurs, with the value of each run; empty where a run has none."""
    names = dict.fromkeys(name for of_run in facts for name in of_run)
    return [(name, [of_run.get(name, "") for of_run in facts]) for name in names]
