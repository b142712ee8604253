"""What the report shows of processes and mappings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.machine.census import Census
from cluster.spec.captured_pages import CapturedProcess
from cluster.wire.commands import MappingName
from ksmcluster.report.console import as_text
from ksmcluster.results.processes import frame_mappings, mappings, processes, report

PAGES = [100, 90, 50, 4, 30, 0, 0]


def sections(
    kinds: list[str],
    captured: list[list[CapturedProcess]],
    names: list[MappingName],
    of_each: int = 1,
    *,
    pages: Sequence[int] = PAGES,
) -> dict[str, str]:
    """Sections by title, if row i has i + 1 times as many of all pages."""
    of_kind, numbers = np.repeat(np.arange(len(kinds)), of_each), np.tile(np.arange(of_each), len(kinds))
    times = np.arange(1, max(len(of_kind), len(names)) + 1)
    counts = np.array(pages) * times[:, None]
    frames = np.array([0, 2, 1])
    counts_of = counts[: len(of_kind)], tuple(names), counts[: len(names)]
    census = Census(of_kind, numbers, numbers, *counts_of, frames, np.zeros((1, 1), np.int64))
    tables = processes(kinds, captured, census), mappings(kinds, captured, census)
    made = report(*tables, frame_mappings(census), plain=True)
    return {title: as_text(table) for title, table in made.items()}


def test_names_of_captured_mappings() -> None:
    """A name may look like markup, hold what a terminal would act on, or be a path or empty."""
    names = ["", "[heap]", "/usr/lib/libc.so.6", "a\x1b[2J"]
    captured = [[CapturedProcess("[red]", (), (), 0, pid=5)]]
    shown = sections(["job"], captured, [MappingName(0, "[red]", name) for name in names], of_each=2)
    assert shown["What merges, in pages"] == (
        "  mapping      mapped  merging  zero  unshared  volatile     profit\n"
        "  a\\x1b[2J        400      200    16       120        40  841.5 KiB\n"
        "  libc.so.6       300      150    12        90        30  631.1 KiB\n"
        "  [heap]          200      100     8        60        20  420.8 KiB\n"
        "  (anonymous)     100       50     4        30        10  210.4 KiB"
    )
    assert [line.split()[:3] for line in shown["Processes that save most, in pages"].splitlines()[1:]] == [
        ["job[1]", "[red]", "200"],
        ["job[0]", "[red]", "100"],
    ]


def test_only_the_first_ten() -> None:
    names = [MappingName(0, "", f"r{i}") for i in range(12)]
    lines = sections(["a"], [[]], names)["What merges, in pages"].splitlines()
    assert [line.split()[0] for line in lines[1:]] == [f"r{i}" for i in range(11, 1, -1)] + ["2"]
    assert lines[-1] == "  2 more"


def test_long_names_give_way_to_numbers_that_are_wide() -> None:
    names = [MappingName(0, "", "a" * 60), MappingName(0, "", "b" * 60)]
    shown = sections(["a"], [[]], names, pages=[1_000_000] * len(PAGES))["What merges, in pages"]
    _, *rows = shown.splitlines()
    assert [row.split()[0][:2] for row in rows] == ["bb", "aa"]  # no name goes on in a second line
    assert {row.split()[1] for row in rows} == {"2,000,000", "1,000,000"}
    assert max(map(len, rows)) <= 80


def test_kinds_are_named_where_there_are_several() -> None:
    names = [MappingName(0, "", "heap"), MappingName(1, "", "heap")]
    shown = sections(["a", "b"], [[], []], names)
    assert [line.split()[:2] for line in shown["What merges, in pages"].splitlines()[1:]] == [
        ["b:", "heap"],
        ["a:", "heap"],
    ]
    assert "b[0]" in shown["Processes that save most, in pages"]


def test_processes_of_one_kind_that_were_not_captured_are_much_the_same() -> None:
    assert list(sections(["a"], [[]], [MappingName(0, "", "heap")], of_each=5)) == [
        "KSM frames by the number of their mappings"
    ]
