"""Pictures of sweeps, of tables made by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ksmcluster.errors import UserError
from ksmcluster.report.plots.sweep import on_front, pareto, sensitivity

OBJECTIVES = {"saved_bytes": "max", "ksmd_cpu_seconds": "min"}
MIB = 2**20


def sweep() -> pa.Table:
    """Three points of two seeds: point 2 saves as much as point 1 and takes longer."""
    return pa.table(
        {
            "point": [0, 0, 1, 1, 2, 2],
            "seed": [1, 2] * 3,
            "ksm.pages_to_scan": [100, 100, 1600, 1600, 6400, 6400],
            "ksm.threads": ["one", "one", "one", "one", "per-node", "per-node"],
            "saved_bytes": [n * MIB for n in (1, 3, 9, 11, 9, 11)],
            "ksmd_cpu_seconds": [1.0, 1.0, 4.0, 6.0, 7.0, 9.0],
        }
    )


def test_front_has_what_no_point_beats() -> None:
    values = np.array([[1.0, 2.0, 3.0, 3.0, 0.0], [3.0, 2.0, 1.0, 0.5, 3.0]])
    assert on_front(values).tolist() == [True, True, True, False, False]
    assert on_front(np.array([[1.0, 1.0], [2.0, 2.0]])).tolist() == [True, True]


def test_pareto() -> None:
    (axes,) = pareto(sweep(), OBJECTIVES).axes
    others, front = (line for line in axes.lines if line.get_label() in ("other points", "Pareto front"))
    assert front.get_xydata().tolist() == [[2.0, 1.0], [10.0, 5.0]]
    assert others.get_xydata().tolist() == [[10.0, 8.0]]
    assert [text.get_text() for text in axes.texts] == ["0", "1"]
    assert axes.get_xlabel() == "saved (MiB), more is better"
    assert axes.get_ylabel() == "ksmd_cpu (s), less is better"


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
    assert axes.get_title(loc="left") == "mean of 2 seeds; band: smallest to largest"


def test_sensitivity_has_a_line_for_each_value_of_other_keys() -> None:
    made = sensitivity(sweep(), "ksm.pages_to_scan", "ksmd_cpu_seconds", ["ksm.threads"])
    lines = {line.get_label(): line.get_xydata().tolist() for line in made.axes[0].lines}
    assert lines == {
        "ksm.threads=one": [[100, 1], [1600, 5]],
        "ksm.threads=per-node": [[6400, 8]],
    }


def test_keys_of_words_are_in_places_of_their_own() -> None:
    (axes,) = sensitivity(sweep(), "ksm.threads", "saved_bytes").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "per-node"]
    assert axes.lines[0].get_xydata().tolist() == [[0, 6], [1, 10]]


def test_units_are_those_of_the_metadata() -> None:
    table = sweep()
    fields = [
        field.with_metadata({"unit": "pages"}) if field.name == "ksm.pages_to_scan" else field
        for field in table.schema
    ]
    (axes,) = sensitivity(table.cast(pa.schema(fields)), "ksm.pages_to_scan", "ksmd_cpu_seconds").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("ksm.pages_to_scan (pages)", "ksmd_cpu (s)")


def test_mistakes_in_pictures_of_sweeps() -> None:
    with pytest.raises(UserError, match=r'^the sweep has no column "saved"; choose one of point, seed, '):
        sensitivity(sweep(), "ksm.threads", "saved")
    with pytest.raises(UserError, match=r"^a Pareto front is drawn over two objectives"):
        pareto(sweep(), {"saved_bytes": "most", "ksmd_cpu_seconds": "min"})
    many = pa.table({"point": range(9), "seed": [1] * 9, "a": range(9), "b": range(9), "figure": range(9)})
    with pytest.raises(UserError, match=r"^9 combinations of b are too many lines"):
        sensitivity(many, "a", "figure", ["b"])
