"""The sections of a report about one run: facts by name, and tables. Templates turn them into HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Facts by name, with their values as text.
Facts = Mapping[str, str]


class HtmlTable(NamedTuple):
    """A table of texts. The first column names the row."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    #: Whether it becomes a list on narrow screens. Tables with many columns always do.
    stacked: bool = False


class Sections(NamedTuple):
    """The sections of a report about a run, without pictures."""

    #: The question that the run answers.
    question: str
    #: The machine, its load and the settings.
    asked: Facts
    #: The answer, in one sentence.
    answer: str
    #: The figures of the answer.
    found: Facts
    time: Facts
    cost: Facts
    tables: Sequence[HtmlTable]
    #: The limits of the model.
    limits: Sequence[str]


def side_by_side(facts: Sequence[Facts]) -> list[tuple[str, list[str]]]:
    """Return a row for each name, with the value of each run; empty if a run has none."""
    names = dict.fromkeys(name for of_run in facts for name in of_run)
    return [(name, [of_run.get(name, "") for of_run in facts]) for name in names]
