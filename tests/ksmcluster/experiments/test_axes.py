"""What varies: values, ranges, combinations."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksmcluster.config import Overrides, load
from ksmcluster.experiments.sweeps.axes import axes_of, make_points, overrides_of, parse_axes, read_points
from ksmcluster.system.errors import UserError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("ksm.pages_to_scan=100,200", ["100", "200"]),
        ("ksm.pages_to_scan=100, 200 ", ["100", "200"]),
        ("ksm.pages_to_scan=1..16x2", ["1", "2", "4", "8", "16"]),
        ("ksm.pages_to_scan=1..20x3", ["1", "3", "9"]),
        ("ksm.pages_to_scan=1..16+5", ["1", "6", "11", "16"]),
        ("ksm.pages_to_scan=2..4", ["2", "3", "4"]),
        ("cost.visit_ns=0.1..0.4+0.1", ["0.1", "0.2", "0.3", "0.4"]),
        ("ksm.pages_to_scan=7,1..4x2,5..6", ["7", "1", "2", "4", "5", "6"]),
        ("machine.topology=ring,mesh", ["ring", "mesh"]),
        ("driver[0].x=[1, 2],[3]", ["[1, 2]", "[3]"]),
        ('simulation.title="a, b",c', ['"a, b"', "c"]),
        ("driver[0].x={a = 1, b = 2},3", ["{a = 1, b = 2}", "3"]),
    ],
)
def test_values(text: str, values: list[str]) -> None:
    assert list(parse_axes([text]).values()) == [values]


def test_options_are_keys_too() -> None:
    axes = parse_axes(["nodes=1,2", "--passes=3", "pages-per-node=64,128", "engine=ray,inline"])
    assert list(axes) == ["machine.nodes", "simulation.passes", "pages_per_node", "engine"]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["ksm.run"], "not of the form KEY=VALUE,VALUE"),
        (["ksm.run="], "not of the form KEY=VALUE,VALUE"),
        (["ksm.run=0,,1"], "a value is missing between two commas"),
        (["ksm.run=0,"], "a value is missing between two commas"),
        (["ksm.run=0", "ksm.run=1"], "ksm.run: given twice"),
        (["nodes=1", "machine.nodes=2"], "machine.nodes: given twice"),
        (["node=1"], 'no such key; did you mean "nodes"'),
        (["pages=1"], "no such key"),
        (["seed=1,2"], "use --seeds N"),
        (["simulation.seed=1,2"], "use --seeds N"),
        (["nodes=16..1"], "never reaches its end"),
        (["nodes=0..16x2"], "never reaches its end"),
        (["nodes=1..16x1"], "never reaches its end"),
        (["nodes=1..16+0"], "never reaches its end"),
        (["nodes=1..1000000"], "more than 100,000 values"),
    ],
)
def test_mistakes(texts: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        make_points(parse_axes(texts))
    assert str(error.value).startswith("--vary ")
    assert "\n" not in str(error.value)


def test_from_python() -> None:
    axes = axes_of(
        {"ksm.run": [0, 1], "nodes": "1..4x2", "machine.topology": ["ring"], "x.y": [True, [1, 2]]}
    )
    assert axes == {
        "ksm.run": ["0", "1"],
        "machine.nodes": ["1", "2", "4"],
        "machine.topology": ['"ring"'],
        "x.y": ["true", "[1, 2]"],
    }
    with pytest.raises(UserError, match="a value is a number, a text"):
        axes_of({"x.y": [object()]})


def test_all_combinations_with_the_last_key_fastest() -> None:
    points = make_points({"a.a": ["1", "2"], "b.b": ["3", "4", "5"]})
    assert [tuple(point.settings.values()) for point in points] == [
        *(("1", b) for b in "345"),
        *(("2", b) for b in "345"),
    ]
    assert [point.number for point in points] == [1, 2, 3, 4, 5, 6]
    assert points[3].label == "a.a=2, b.b=3"


def test_nothing_varies() -> None:
    (point,) = make_points({})
    assert (point.number, point.settings) == (1, {})
    assert make_points({}, zipped=True) == (point,)


def test_zipped() -> None:
    points = make_points({"a.a": ["1", "2"], "b.b": ["3", "4"]}, zipped=True)
    assert [tuple(point.settings.values()) for point in points] == [("1", "3"), ("2", "4")]
    with pytest.raises(
        UserError, match=r"--zip: all keys need the same number of values: a\.a has 1, b\.b has 2"
    ):
        make_points({"a.a": ["1"], "b.b": ["3", "4"]}, zipped=True)


def test_a_file_of_points(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text('ksm.pages_to_scan, nodes, simulation.title\n100, 2, "a, b"\n\n200, 4, c\n')
    assert [point.settings for point in read_points(file)] == [
        {"ksm.pages_to_scan": "100", "machine.nodes": "2", "simulation.title": "a, b"},
        {"ksm.pages_to_scan": "200", "machine.nodes": "4", "simulation.title": "c"},
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"", "needs a line of keys"),
        (b"ksm.run\n", "needs a line of keys"),
        (b"ksm.run,nodes\n1,2\n3\n", "line 3 does not have 2 values"),
        (b"\xff", "cannot be read"),
        (b"run\n1\n", "no such key"),
    ],
)
def test_a_wrong_file_of_points(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "points.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_points(file)


def test_what_varies_takes_precedence() -> None:
    base = Overrides(nodes=8, passes=2, seed=5, settings=("ksm.run=0",))
    changed = overrides_of({"machine.nodes": "2", "ksm.run": "1", "pages_per_node": "64"}, base)
    assert (changed.nodes, changed.passes, changed.seed, changed.pages_per_node) == (None, 2, 5, 64)
    assert changed.settings == ("ksm.run=0", "machine.nodes=2", "ksm.run=1")


def test_the_end_of_the_run_may_vary() -> None:
    """The file says `passes`; a time takes its place, also that of the command line."""
    points = make_points(parse_axes(["seconds=1,2.5"]))
    assert [point.settings for point in points] == [
        {"simulation.seconds": "1"},
        {"simulation.seconds": "2.5"},
    ]
    for base in (Overrides(), Overrides(seconds=9.0)):
        scenario = load("tiny", overrides_of(points[1].settings, base))
        assert (scenario.simulation.seconds, scenario.simulation.passes) == (2.5, None)
    (point,) = make_points(parse_axes(["until=converged"]))
    assert load("tiny", overrides_of(point.settings, Overrides())).simulation.until == "converged"
