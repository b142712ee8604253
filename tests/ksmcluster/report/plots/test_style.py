"""Labels below groups of bars."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ksmcluster.report.plots.style import line_style, name_ticks


@pytest.mark.parametrize(
    ("labels", "slanting"),
    [
        (["before"], False),
        (["a", "b", "c", "d", "e", "f"], False),
        (
            [f"6.{minor}\n{name}" for minor in (1, 18) for name in ("direct", "compact_memory", "proactive")],
            True,
        ),
        (["compaction of a machine", "the same without drivers", "another"], True),
    ],
)
def test_labels_do_not_touch(labels: list[str], slanting: bool) -> None:
    check(Figure(figsize=(6.4, 4)).add_subplot(), labels, slanting=slanting)


def test_a_panel_has_less_room_than_the_figure() -> None:
    labels = [
        "1",
        "2",
        "3\u20134",
        "5\u20138",
        "9\u201316",
        "17\u201332",
        "33\u201364",
        "65\u2013128",
        "129\u2013256",
    ]
    check(Figure(figsize=(9.6, 3.2)).add_subplot(), labels, slanting=False)
    check(Figure(figsize=(9.6, 3.2)).subplots(1, 2)[0], labels, slanting=True)


def check(axes: Axes, labels: list[str], *, slanting: bool) -> None:
    figure = axes.get_figure()
    assert figure is not None
    axes.bar(range(len(labels)), 1)
    name_ticks(axes, labels)
    figure.draw_without_rendering()
    ticks = axes.get_xticklabels()
    assert [tick.get_text() for tick in ticks] == [
        label.replace("\n", ", ") if slanting else label for label in labels
    ]
    assert all((tick.get_rotation() != 0) == slanting for tick in ticks)
    if not slanting:
        boxes = [tick.get_window_extent() for tick in ticks]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_lines_of_one_colour_have_other_markers() -> None:
    styles = [tuple(line_style(index).values()) for index in range(49)]
    assert len(set(styles)) == 49
