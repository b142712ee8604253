"""What differs between runs; the cases are worked out by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ksmcluster
from ksmcluster.config import Overrides, load
from ksmcluster.experiments.comparing import compare
from ksmcluster.experiments.comparison import FigureDifference, RunComparison, Side
from ksmcluster.experiments.comparison_report import report
from ksmcluster.report.console import as_text
from tests.ksmcluster.conftest import Run, result_of
from tests.ksmcluster.snapshot.test_load import page, snapshot


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The outputs a and b, which differ in max_page_sharing and in what comes of it."""
    monkeypatch.chdir(tmp_path)
    ksmcluster.simulate("tiny", engine="inline").save("a")
    changed = load("tiny", Overrides(settings=("ksm.max_page_sharing=4",)))
    ksmcluster.simulate(changed, engine="inline").save("b")
    return tmp_path


def the_only(*directories: str | Path) -> RunComparison:
    (found,) = compare(*directories)
    return found


def test_keys_and_figures_that_differ(runs: Path) -> None:
    found = the_only("a", "b")
    assert found.keys == {"ksm.max_page_sharing": (256, 4)}
    first, second = (json.loads((runs / name / "summary.json").read_text()) for name in "ab")
    by_name = {difference.name: difference for difference in found.figures}
    saved = first["derived"]["saved_bytes"], second["derived"]["saved_bytes"]
    assert by_name["saved_bytes"].values == saved
    assert by_name["saved_bytes"].relative == (0.0, (saved[1] - saved[0]) / saved[0])
    same = first["gauges"]["pages_mapped"] == second["gauges"]["pages_mapped"]
    assert same
    assert "pages_mapped" not in by_name
    # From 0 there is no relative difference.
    assert first["gauges"]["stable_node_dups"] == 0
    assert by_name["stable_node_dups"].relative == (None, None)


def test_equal_runs(runs: Path, run: Run) -> None:
    shutil.copytree("a", "copy")
    found = the_only("a", "copy")
    assert (found.keys, found.figures) == ({}, ())
    ran = run("compare", "a", "copy", "--tolerance", "0")
    assert (ran.code, ran.err) == (0, "")
    assert f"All {found.equal} figures are equal." in ran.out


def test_what_is_printed(runs: Path, run: Run) -> None:
    ran = run("compare", "a", "b")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["ksm.max_page_sharing", "256", "4"] in lines
    (saved,) = (line for line in lines if line and line[0] == "saved_bytes")
    assert saved[-2:] == [f"{100 * the_only('a', 'b').figures_by_name['saved_bytes'].relative[1]:+.2f}", "%"]


def test_json(runs: Path, run: Run) -> None:
    ran = run("compare", "a", "b", "a", "--json")
    (found,) = json.loads(ran.out)
    assert found["sides"] == ["a", "b", "a"]
    assert found["keys"] == {"ksm.max_page_sharing": [256, 4, 256]}
    (saved,) = (figure for figure in found["figures"] if figure["name"] == "saved_bytes")
    assert saved["unit"] == "bytes"
    assert saved["values"][0] == saved["values"][2] > saved["values"][1]
    assert saved["relative"][2] == 0


def test_the_exit_code_says_what_is_beyond_the_tolerance(runs: Path, run: Run) -> None:
    assert run("compare", "a", "b", "--tolerance", "0.01").code == 1
    assert (
        run("compare", "a", "b", "--tolerance", "1e9").code == 1
    )  # of what is 0 in the first, all is beyond
    wrong = run("compare", "a", "b", "--tolerance", "-1")
    assert (wrong.code, wrong.out) == (2, "")


@pytest.mark.parametrize(
    ("values", "noise", "tolerance", "beyond"),
    [
        ((100, 101), None, 0.01, False),
        ((100, 102), None, 0.01, True),
        ((100, 98), None, 0.01, True),
        ((100, 103), 2.0, 0.01, False),
        ((100, 104), 2.0, 0.01, True),
        ((100, 100, 102), None, 0.01, True),
        ((-100, -102), None, 0.01, True),
        ((0, 0.5), None, 0.5, True),
        ((None, 1), None, 9.0, True),
        ((1, None), None, 9.0, True),
    ],
)
def test_tolerance_by_hand(
    values: tuple[float | None, ...], noise: float | None, tolerance: float, beyond: bool
) -> None:
    assert FigureDifference("x", values, (), noise).is_beyond(tolerance) is beyond


def test_runs_of_unequal_simulated_time_say_so(runs: Path, run: Run) -> None:
    ksmcluster.simulate(load("tiny", Overrides(passes=30)), engine="inline").save("long")
    assert "Simulated time differs (" in run("compare", "a", "long").out
    assert "Simulated time differs" not in run("compare", "a", "b").out


def test_sweeps_are_compared_point_by_point_with_noise(tmp_path: Path, run: Run) -> None:
    vary, small = {"ksm.pages_to_scan": [100, 400]}, Overrides(2, pages_per_node=512)
    for name, settings in {"a": (), "b": ("ksm.smart_scan=0",)}.items():
        overrides = Overrides(2, pages_per_node=512, settings=settings)
        ksmcluster.sweep("default", vary, overrides=overrides, seeds=3, output=tmp_path / name)
    first, second = compare(tmp_path / "a", tmp_path / "b")
    assert (first.label, second.label) == ("ksm.pages_to_scan=100", "ksm.pages_to_scan=400")
    assert first.keys == {"ksm.smart_scan": (1, 0)}
    by_name = first.figures_by_name
    alone = ksmcluster.sweep("default", {"ksm.pages_to_scan": [100]}, overrides=small, seeds=3)
    assert by_name["pages_skipped"].values == (alone.outcomes[0].means["pages_skipped"], 0)
    assert by_name["pages_skipped"].noise == alone.outcomes[0].noise["pages_skipped"]
    ran = run("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert "noise" in ran.out
    assert "ksm.pages_to_scan=400" in ran.out


def test_points_that_a_sweep_lacks_are_named(tmp_path: Path, run: Run) -> None:
    values = {"all": [100, 400], "some": [100]}
    for name, scan in values.items():
        ksmcluster.sweep("tiny", {"ksm.pages_to_scan": scan}, output=tmp_path / name)
    found = compare(tmp_path / "all", tmp_path / "some")
    assert [comparison.absent for comparison in found] == [(), (str(tmp_path / "some"),)]
    assert repr(found).endswith("0 figures differ at 1 point>")
    ran = run("compare", str(tmp_path / "all"), str(tmp_path / "some"), "--tolerance", "0.5")
    assert ran.code == 1
    assert "1 point: all figures are equal." in ran.out
    assert f"1 point of {tmp_path / 'all'}: not in {tmp_path / 'some'}" in " ".join(ran.out.split())
    assert ran.err.splitlines() == ["1 point could not be compared"]
    assert run("compare", str(tmp_path / "some"), str(tmp_path / "some"), "--tolerance", "0").code == 0


def test_figures_within_the_noise_are_only_counted() -> None:
    sides = tuple(Side(name, {}, {}, {}) for name in ("a", "b"))
    figures = (
        FigureDifference("cow_ksm", (100.0, 103.0), (0.0, 0.03), 2.0),
        FigureDifference("pages_shared", (100.0, 101.0), (0.0, 0.01), 2.0),
    )
    shown = as_text(report([RunComparison("", sides, {}, figures, 5)], 0.005)).splitlines()
    assert [line.split() for line in shown if "±" in line] == [
        ["!", "cow_ksm", "100", "pages", "103", "pages", "+3.00", "%", "±", "2.00", "%"]
    ]
    assert shown[-2:] == ["Within the noise: 1 other figure.", "5 other figures are equal."]


def test_a_run_and_a_sweep_over_seeds(tmp_path: Path) -> None:
    ksmcluster.sweep("tiny", seeds=2, output=tmp_path / "seeds")
    ksmcluster.simulate("tiny", engine="inline").save(tmp_path / "one")
    found = the_only(tmp_path / "one", tmp_path / "seeds")
    assert found.keys == {}
    assert found.sides[0].noise == {}
    assert "saved_bytes" in found.sides[1].noise


def test_compact(tmp_path: Path) -> None:
    small = Overrides(1, settings=("machine.memory_per_node=16MiB",))
    for name, mode in {"a": "async", "b": "sync"}.items():
        settings = (*small.settings, f"migration.mode={mode}")
        config = ksmcluster.load_compaction("compaction-zram", Overrides(1, settings=settings))
        ksmcluster.compact(config, engine="inline").save(tmp_path / name)
    found = the_only(tmp_path / "a", tmp_path / "b")
    assert found.keys == {"migration.mode": ("async", "sync")}
    assert "simulated_seconds" in found.figures_by_name


def test_the_same_snapshot_from_elsewhere_is_no_difference(tmp_path: Path) -> None:
    file = snapshot(tmp_path / "snap.parquet", [[page("a"), page("b")], [page("a"), page("c")]])
    ksmcluster.sweep(file, output=tmp_path / "deep" / "sweep")
    ksmcluster.simulate(file, engine="inline").save(tmp_path / "run")
    found = the_only(tmp_path / "run", tmp_path / "deep" / "sweep")
    assert (found.keys, found.figures) == ({}, ())


def test_mistakes(tmp_path: Path, run: Run) -> None:
    result_of(load("tiny")).save(tmp_path / "a")
    ksmcluster.sweep("tiny", {"ksm.pages_to_scan": [100]}, output=tmp_path / "sweep")
    small = {"machine.memory_per_node": "16MiB"}
    ksmcluster.compact("compaction-zram", nodes=1, settings=small, engine="inline").save(tmp_path / "c")
    for arguments, says in {
        (str(tmp_path / "a"),): "give at least two directories",
        (str(tmp_path / "a"), str(tmp_path)): "not an output of simulate or compact",
        (str(tmp_path / "a"), str(tmp_path / "sweep")): "have no point in common",
        (str(tmp_path / "a"), str(tmp_path / "c")): "a of simulate and",
        (str(tmp_path / "sweep"), str(tmp_path / "c")): "c of compact: give results of one command",
    }.items():
        ran = run("compare", *arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert says in ran.err


def test_keys_that_a_scenario_lacks() -> None:
    from ksmcluster.experiments.comparing import _differing_keys

    sides = [Side("a", {"x": 1, "y": 2}, {}, {}), Side("b", {"x": 1, "z": True}, {}, {})]
    assert dict(_differing_keys(sides)) == {"y": (2, None), "z": (None, True)}


def test_results_are_compared_as_their_directories_are(runs: Path) -> None:
    (of_files,) = compare("a", "b")
    (of_results,) = compare(ksmcluster.load_result("a"), ksmcluster.load_result("b"))
    assert of_results.figures == of_files.figures
    assert of_results.keys == of_files.keys
    assert [side.name for side in of_results.sides] == ["result 1", "result 2"]
    vary = {"ksm.pages_to_scan": [100, 400]}
    swept = ksmcluster.sweep("tiny", vary, output="swept")
    assert repr(compare(swept, "swept")) == "<Comparisons: result 1 and swept: 0 figures differ at 2 points>"


def test_a_comparison_shows_itself(runs: Path, run: Run) -> None:
    found = compare("a", "b")
    (one,) = found
    assert repr(found) == f"<Comparisons: a and b: {len(one.figures)} figures differ>"
    assert f"{found}\n" == run("compare", "a", "b").out
    cell = found._repr_html_()
    assert "ksm.max_page_sharing</th><td>256</td><td>4</td>" in cell.replace("<wbr>", "")
    saved = one.figures_by_name["saved_bytes"]
    assert saved.relative[1] is not None
    assert f"<td>{100 * saved.relative[1]:+.2f} %</td>" in cell


def test_a_comparison_as_a_data_frame(runs: Path) -> None:
    frame = compare("a", "b").to_pandas().set_index("figure")
    (one,) = compare("a", "b")
    saved = one.figures_by_name["saved_bytes"]
    row = frame.loc["saved_bytes"]
    assert (row["a"], row["b"], row["b, change"], row["unit"]) == (*saved.values, saved.relative[1], "bytes")
    assert len(frame) == len(one.figures)
    assert len(compare("a", "a").to_pandas()) == 0
