"""Pictures of sweeps, of tables made by hand."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import ksmcluster
from ksmcluster.config import Overrides
from ksmcluster.experiments.sweeps.pareto import Objective
from ksmcluster.experiments.sweeps.sweep_result import load_sweep
from ksmcluster.report.plots.sweep import pareto, points, sensitivity
from ksmcluster.system.errors import UserError
from tests.ksmcluster.conftest import Run

OBJECTIVES = (Objective("saved_bytes", True), Objective("ksmd_cpu_seconds", False))
MIB = 2**20


def varied(table: pa.Table, *keys: str) -> pa.Table:
    """The table of a sweep over these keys."""
    return table.replace_schema_metadata({"keys": json.dumps(keys)})


def sweep() -> pa.Table:
    """Three points of two seeds: point 2 saves as much as point 1 and takes longer."""
    table = pa.table(
        {
            "point": [0, 0, 1, 1, 2, 2],
            "seed": [1, 2] * 3,
            "ksm.pages_to_scan": [100, 100, 1600, 1600, 6400, 6400],
            "ksm.threads": ["one", "one", "one", "one", "per-node", "per-node"],
            "saved_bytes": [n * MIB for n in (1, 3, 9, 11, 9, 11)],
            "ksmd_cpu_seconds": [1.0, 1.0, 4.0, 6.0, 7.0, 9.0],
        }
    )
    return varied(table, "ksm.pages_to_scan")


def test_pareto() -> None:
    (axes,) = pareto(sweep(), OBJECTIVES).axes
    others, front = (line for line in axes.lines if line.get_label() in ("other points", "Pareto front"))
    assert front.get_xydata().tolist() == [[2.0, 1.0], [10.0, 5.0]]
    assert others.get_xydata().tolist() == [[10.0, 8.0]]
    assert [text.get_text() for text in axes.texts] == ["0", "1"]
    assert axes.get_xlabel() == "saved (MiB),\nmore is better"
    assert axes.get_ylabel() == "ksmd_cpu (s),\nless is better"


def test_the_legend_tells_the_front_of_two_objectives_from_that_of_all() -> None:
    for whole, label in (([1, 0], "Pareto front"), ([0, 1, 2], "Pareto front of these two")):
        (axes,) = pareto(sweep(), OBJECTIVES, whole_front=whole).axes
        assert [line.get_label() for line in axes.lines][1] == label


def test_whole_numbers_of_a_key_have_no_fractions_between_them() -> None:
    table = varied(sweep().set_column(2, "ksm.smart_scan", pa.array([0, 0, 1, 1, 1, 1])), "ksm.smart_scan")
    (axes,) = sensitivity(table, "ksm.smart_scan", "saved_bytes").axes
    assert {0.0, 1.0} <= set(axes.get_xticks()) <= set(range(-2, 4))


def test_points_at_one_place_have_one_label() -> None:
    again = sweep().slice(0, 2).set_column(0, "point", pa.array([5, 5]))
    (axes,) = pareto(pa.concat_tables([sweep(), again]), OBJECTIVES).axes
    assert [text.get_text() for text in axes.texts] == ["0, 5", "1"]


def test_seeds_with_the_same_figure_are_at_its_place() -> None:
    """The mean of three numbers 0.1 is more than 0.1, as numpy rounds."""
    columns = {"point": [1] * 3, "seed": [1, 2, 3], "saved_bytes": [MIB] * 3, "ksmd_cpu_seconds": [0.1] * 3}
    (axes,) = pareto(varied(pa.table(columns)), OBJECTIVES).axes
    (front,) = (line for line in axes.lines if line.get_label() == "Pareto front")
    assert front.get_xydata().tolist() == [[1.0, 0.1]]


def test_the_legend_of_a_front_names_the_range_of_seeds_where_there_is_one() -> None:
    for table, named in ((sweep(), True), (sweep().slice(0, 1), False)):
        (axes,) = pareto(table, OBJECTIVES).axes
        assert ("range of the seeds" in axes.get_legend_handles_labels()[1]) == named


def test_the_recommended_point_is_pointed_out() -> None:
    (axes,) = pareto(sweep(), OBJECTIVES, recommended=1).axes
    (ring,) = (line for line in axes.lines if line.get_label() == "recommended")
    assert ring.get_xydata().tolist() == [[10.0, 5.0]]


def test_points_that_failed_are_left_out() -> None:
    table = sweep().slice(0, 4)
    failed = pa.Table.from_pylist([{"point": 7, "seed": 1, "ksm.pages_to_scan": 1, "ksm.threads": "one"}])
    (axes,) = pareto(pa.concat_tables([table, failed], promote_options="default"), OBJECTIVES).axes
    assert [text.get_text() for text in axes.texts] == ["0", "1"]


def test_sensitivity_has_seeds_as_a_band() -> None:
    (axes,) = sensitivity(sweep(), "ksm.pages_to_scan", "saved_bytes").axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[100, 2], [1600, 10], [6400, 10]]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert {tuple(corner) for corner in np.asarray(corners).tolist()} >= {
        (100, 1), (100, 3), (1600, 9), (1600, 11), (6400, 9), (6400, 11)
    }  # fmt: skip
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "saved (MiB)"
    assert axes.get_title(loc="left").endswith("mean of 2 seeds; band: smallest to largest")


def test_sensitivity_has_a_line_for_each_value_of_other_keys() -> None:
    made = sensitivity(
        varied(sweep(), "ksm.pages_to_scan", "ksm.threads"), "ksm.pages_to_scan", "ksmd_cpu_seconds"
    )
    lines = {line.get_label(): line.get_xydata().tolist() for line in made.axes[0].lines}
    assert lines == {
        "ksm.threads=one": [[100, 1], [1600, 5]],
        "ksm.threads=per-node": [[6400, 8]],
    }


def test_combinations_with_equal_results_share_a_line() -> None:
    figure_of = {"off": lambda a: a, "on": lambda a: a, "other": lambda a: 5 - a}
    rows = [
        {"point": n, "seed": 1, "a": a, "b": b, "figure": of(a)}
        for n, (b, of, a) in enumerate((b, of, a) for b, of in figure_of.items() for a in (1, 2))
    ]
    (axes,) = sensitivity(varied(pa.Table.from_pylist(rows), "a", "b"), "a", "figure").axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"b=off and b=on": [[1, 1], [2, 2]], "b=other": [[1, 4], [2, 3]]}
    (axes,) = sensitivity(varied(pa.Table.from_pylist(rows[:4]), "a", "b"), "a", "figure").axes
    assert axes.get_title(loc="left").endswith("the same with all values of the other keys")


def test_combinations_that_are_too_many_are_one_band() -> None:
    rows = [{"point": n, "seed": 1, "a": n % 2, "b": n, "figure": n} for n in range(20)]
    (axes,) = sensitivity(varied(pa.Table.from_pylist(rows), "a", "b"), "a", "figure").axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0, 9], [1, 10]]
    assert "mean of all values of the other keys;" in axes.get_title(loc="left")


def test_sensitivity_leaves_out_what_failed() -> None:
    failed = sweep().to_pylist()[:2]
    table = pa.Table.from_pylist(
        [*sweep().to_pylist()[2:], *({**row, "saved_bytes": None} for row in failed)]
    )
    (axes,) = sensitivity(varied(table, "ksm.pages_to_scan"), "ksm.pages_to_scan", "saved_bytes").axes
    assert axes.lines[0].get_xydata().tolist() == [[1600, 10], [6400, 10]]


def test_labels_cover_neither_each_other_nor_points() -> None:
    """Points as near as those of the sweep of docs/howto, along a curve and in a crowd."""
    near = np.geomspace(1, 1.6, 12).tolist()
    rows = [
        {"point": n, "seed": 1, "saved_bytes": x * MIB, "ksmd_cpu_seconds": x**2}
        for n, x in enumerate([*near, 40.0], 1)
    ]
    made = pareto(pa.Table.from_pylist(rows), OBJECTIVES)
    made.draw_without_rendering()
    (axes,) = made.axes
    boxes = [label.get_window_extent() for label in axes.texts]
    assert len(boxes) == len(rows)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    places = axes.transData.transform([(row["saved_bytes"] / MIB, row["ksmd_cpu_seconds"]) for row in rows])
    assert not any(box.contains(*place) for box in boxes for place in places)


def test_keys_of_words_are_in_places_of_their_own() -> None:
    backwards = varied(sweep().take([4, 5, 0, 1, 2, 3]), "ksm.threads")
    assert [
        label.get_text()
        for label in sensitivity(backwards, "ksm.threads", "saved_bytes").axes[0].get_xticklabels()
    ] == ["per-node", "one"]
    (axes,) = sensitivity(varied(sweep(), "ksm.threads"), "ksm.threads", "saved_bytes").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "per-node"]
    assert axes.lines[0].get_xydata().tolist() == [[0, 6], [1, 10]]
    assert axes.lines[0].get_linestyle() == "None"  # words have no order


def test_units_are_those_of_the_metadata() -> None:
    table = sweep()
    fields = [
        field.with_metadata({"unit": "pages"}) if field.name == "ksm.pages_to_scan" else field
        for field in table.schema
    ]
    (axes,) = sensitivity(
        table.cast(pa.schema(fields, table.schema.metadata)), "ksm.pages_to_scan", "ksmd_cpu_seconds"
    ).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("ksm.pages_to_scan (pages)", "ksmd_cpu (s)")


def test_mistakes_in_pictures_of_sweeps() -> None:
    with pytest.raises(UserError, match=r'^the sweep has no column "saved"; choose one of point, seed, '):
        sensitivity(sweep(), "ksm.threads", "saved")
    with pytest.raises(UserError, match=r"^a Pareto front needs two objectives"):
        pareto(sweep(), OBJECTIVES[:1])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of six real runs."""
    directory = tmp_path_factory.mktemp("sweep") / "swept"
    vary = {"ksm.pages_to_scan": "100,400", "ksm.merge_across_nodes": "0,1"}
    ksmcluster.sweep("tiny", vary, seeds=2, output=directory)
    return directory


def test_pictures_of_a_real_sweep(swept: Path) -> None:
    found = load_sweep(swept)
    assert found.plot(objectives="saved_bytes:max,cow_ksm:min").axes[0].get_xlabel() == (
        "saved (MiB),\nmore is better"
    )
    axes = found.plot("sensitivity", figure="ksmd_cpu_percent").axes[0]
    assert axes.get_ylabel() == "ksmd_cpu (percent)"
    assert [line.get_label() for line in axes.lines] == [f"ksm.merge_across_nodes={n}" for n in (0, 1)]


@pytest.mark.parametrize("options", ["", "--kind sensitivity --key ksm.merge_across_nodes --figure cow_ksm"])
def test_sweeps_are_drawn_by_the_command(run: Run, swept: Path, tmp_path: Path, options: str) -> None:
    file = tmp_path / "picture.svg"
    assert run("plot", str(swept), "-o", str(file), *options.split()) == (0, "", "")
    assert b"<svg" in file.read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--kind obtained", 'a sweep of simulate has no picture "obtained"; use a sweep of compact'),
        (
            "--kind memory",
            'a sweep has no picture "memory"; choose one of pareto, points, sensitivity, ',
        ),
        ("--kind sensitivity --key ksm.run", 'the sweep has no column "ksm.run"; choose one of point, seed,'),
        ("--kind sensitivity --figure savd", "figure: there is no figure savd"),
        ("--objectives saved_bytes:max", "a Pareto front needs two objectives"),
    ],
)
def test_mistakes_of_the_command(run: Run, swept: Path, tmp_path: Path, options: str, says: str) -> None:
    ran = run("plot", str(swept), "-o", str(tmp_path / "x.svg"), *options.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {says}")
    assert len(ran.err.splitlines()) == 1


def test_the_picture_marks_the_point_that_the_table_recommends(tmp_path: Path) -> None:
    """All points save the same: the first two objectives that differ are drawn."""
    vary = {"ksm.pages_to_scan": "100..1600x4"}
    found = ksmcluster.sweep("tiny", vary, limits=["ksmd_cpu_percent<=2"], output=tmp_path / "swept")
    best = found.choose().recommended
    for one in (found, load_sweep(tmp_path / "swept")):
        assert one.choose().recommended == best
        (axes,) = one.plot().axes
        assert axes.get_xlabel() == "simulated (s),\nless is better"
        assert axes.get_ylabel() == "ksmd_cpu (percent),\nless is better"
        (ring,) = (line for line in axes.lines if line.get_label() == "recommended")
        ((x, y),) = ring.get_xydata().tolist()
        means = found.outcomes[best - 1].means
        assert (x, y) == (means["simulated_seconds"], means["ksmd_cpu_percent"])


def test_blocks_obtained_at_each_point() -> None:
    small = Overrides(2, settings=("machine.memory_per_node=16MiB",))
    found = ksmcluster.sweep("compaction-zram", {"migration.order": [3, 9]}, overrides=small)
    (axes,) = found.plot().axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "9"]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [
        [outcome.means[f"obtained.{state}"] for outcome in found.outcomes]
        for state in ("before", "movable_off", "movable_on")
    ]
    many = ksmcluster.sweep("compaction-zram", {"migration.order": "0..10"}, overrides=small)
    with pytest.raises(UserError, match=r"^11 points are too many for bars"):
        many.plot("obtained")


def test_points_are_bars() -> None:
    keys = "ksm.pages_to_scan", "ksm.threads"
    left, right = points(varied(sweep(), *keys), ["saved_bytes", "ksmd_cpu_seconds"]).axes
    assert [bar.get_width() for bar in left.containers[1]] == [2, 10, 10]
    assert [bar.get_width() for bar in right.containers[1]] == [1, 5, 8]
    assert left.get_yticklabels()[2].get_text() == "ksm.pages_to_scan=6400\nksm.threads=per-node"
    many = pa.table({"point": range(11), "seed": [1] * 11, "a": range(11), "figure": range(11)})
    with pytest.raises(UserError, match=r"^11 points are too many for bars"):
        points(varied(many, "a"), ["figure"])
