"""Pictures of small real runs: each kind is drawn, names its units, and shows the result's numbers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import ksmcluster
from ksmcluster.report.plots.kinds import KINDS, kinds_of, picture, pictures
from ksmcluster.report.plots.style import MARKERS, PALETTE
from ksmcluster.report.run_data import RunData, of_result
from ksmcluster.report.saved_runs import read_runs
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.directory import NODE_PAIRS
from ksmcluster.results.result import Result
from ksmcluster.system.errors import UserError
from tests.ksmcluster.conftest import Run

#: Words that every label of an axis ends with, or is.
UNITS = (
    *("(s)", "(bytes)", "(KiB)", "(MiB)", "(GiB)", "pages, all nodes", "pass", "node", "run", "KSM frames"),
    *("node of the process", "node of the KSM frame"),
)


def read(outputs: Path, *names: str) -> list[RunData]:
    return read_runs([outputs / name for name in names])


def first_axes(kind: str, run: RunData) -> Axes:
    return picture(kind, [run]).axes[0]


@pytest.mark.parametrize("name", ["tiny", "within", "zram", "both"])
def test_each_kind_is_drawn_with_units(outputs: Path, name: str) -> None:
    runs = read(outputs, name)
    for kind in kinds_of(runs):
        axes = picture(kind, runs).axes[0]
        assert axes.get_title(loc="left")
        assert axes.get_ylabel().endswith(UNITS) or axes.get_ylabel().startswith("blocks of ")
        x = axes.get_xlabel()
        assert x.endswith((*UNITS, "mappings of a frame")) or x.startswith("order (blocks of 4 KiB")
    simulations = list(KINDS)[:-2]
    expected = {"zram": ["blocks", "obtained"], "both": list(KINDS)}.get(name, simulations)
    assert kinds_of(runs) == expected


def test_memory_is_what_is_in_use_and_what_would_be(tiny: RunData) -> None:
    axes = first_axes("memory", tiny)
    without, used = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert axes.get_ylabel() == "memory (MiB)"
    used_bytes = tiny.by_node("frames_used").sum(axis=1) * 4096
    assert used * 2**20 == pytest.approx(used_bytes)
    assert (without - used) * 2**20 == pytest.approx(np.array(tiny.summary["by_pass"]["saved_bytes"]))
    assert used[-1] < without[-1]
    assert list(axes.lines[0].get_xdata()) == tiny.summary["by_pass"]["simulated_seconds"]


def test_saved_memory_of_several_runs_is_lines_of_one_picture(outputs: Path) -> None:
    runs = read(outputs, "tiny", "within")
    made = picture("saved", runs)
    (axes,) = made.axes
    assert [line.get_label() for line in axes.lines] == ["tiny", "within"]
    (legend,) = made.legends
    assert [entry.get_text() for entry in legend.get_texts()] == ["tiny", "within"]
    for line, run in zip(axes.lines, runs, strict=True):
        assert np.asarray(line.get_ydata())[-1] * 2**20 == run.summary["derived"]["saved_bytes"]


def test_counters_are_sums_over_the_nodes(tiny: RunData) -> None:
    for kind, name in (("counters", "pages_sharing"), ("scan", "pages_scanned")):
        lines = {line.get_label(): line for line in first_axes(kind, tiny).lines}
        assert list(lines[name].get_ydata()) == tiny.by_node(name).sum(axis=1).tolist()
        assert list(lines[name].get_xdata()) == list(range(1, tiny.summary["passes"] + 1))


def test_a_heat_map_has_a_row_for_each_node(tiny: RunData) -> None:
    made = picture("nodes", [tiny], "frames_used")
    (image,) = made.axes[0].images
    assert np.asarray(image.get_array()).tolist() == tiny.by_node("frames_used").T.tolist()
    assert made.axes[1].get_ylabel() == "pages"


def test_the_matrix_of_mappings_agrees_with_the_statistics_of_the_nodes(tiny: RunData) -> None:
    (image,) = picture("remote", [tiny]).axes[0].images
    by_frame_node = np.asarray(image.get_array())
    assert by_frame_node.sum(axis=0).tolist() == tiny.by_node("ksm_mappings")[-1].tolist()
    remote = by_frame_node.sum(axis=0) - np.diag(by_frame_node)
    assert remote.tolist() == tiny.by_node("ksm_mappings_remote")[-1].tolist()


def test_a_heat_map_of_one_node_without_a_value_has_whole_numbers_on_both_scales() -> None:
    result = ksmcluster.simulate("tiny", engine="inline", nodes=1, passes=2)
    made = result.plot("nodes", statistic="ksm_mappings_remote")
    heat_map, scale = made.axes
    for axis in (heat_map.xaxis, heat_map.yaxis, scale.yaxis):
        assert axis.get_majorticklocs().tolist() == np.round(axis.get_majorticklocs()).tolist()
    assert made.axes[0].images[0].get_clim() == (0, 1)
    with pytest.raises(UserError, match="only one node"):
        result.plot("remote")


def test_sharers_are_those_of_the_summary(tiny: RunData) -> None:
    axes = first_axes("sharers", tiny)
    frames = tiny.summary["ksm_frame_mappings"]
    assert [bar.get_height() for bar in axes.patches] == [bucket["frames"] for bucket in frames]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[:3] == ["1", "2", "3\u20134"]


def test_time_of_passes(tiny: RunData) -> None:
    heights = [bar.get_height() for bar in first_axes("time", tiny).patches]
    by_pass = tiny.summary["by_pass"]
    assert heights == by_pass["scan_seconds"] + by_pass["ksmd_cpu_seconds"]


def test_blocks_by_order(outputs: Path) -> None:
    (run,) = read(outputs, "zram")
    axes = first_axes("blocks", run)
    assert axes.get_ylabel() == "memory in free blocks (MiB)"
    free = run.summary["free_blocks"]
    for container, state in zip(axes.containers, ("before", "movable_off", "movable_on"), strict=True):
        memory = [count * (4096 << order) / 2**20 for order, count in enumerate(free[state])]
        assert [bar.get_height() for bar in container] == pytest.approx(memory)


def test_blocks_of_a_simulation_are_those_of_its_busiest_compaction(outputs: Path) -> None:
    (run,) = read(outputs, "both")
    by_pass = run.summary["migration"]["by_pass"]
    busiest = by_pass["pages_moved"].index(max(by_pass["pages_moved"]))
    axes = first_axes("obtained", run)
    assert axes.get_title(loc="left") == f"Allocations that succeed: compaction after pass {busiest + 1} of 2"
    bars = [container[0].get_height() for container in axes.containers if hasattr(container[0], "get_height")]
    assert bars == [by_pass["obtained"][state][busiest] for state in ("before", "movable_off", "movable_on")]


def test_runs_side_by_side_have_the_same_scales(outputs: Path) -> None:
    runs = read(outputs, "tiny", "within")
    left, right = picture("counters", runs).axes
    assert left.get_ylim() == right.get_ylim()
    assert [axes.get_title(loc="left").splitlines()[0] for axes in (left, right)] == ["tiny", "within"]
    images = [made.axes[0].images[0] for made in pictures("remote", runs)]
    assert images[0].get_clim() == images[1].get_clim()
    largest = [run.tables[NODE_PAIRS]["ksm_mappings"].to_numpy().max() for run in runs]
    assert images[0].get_clim()[1] == max(largest)


def test_colours_and_markers_tell_lines_apart(tiny: RunData) -> None:
    """Those of Okabe and Ito; yellow is too light on paper."""
    published = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"}
    assert set(PALETTE) == published
    lines = first_axes("counters", tiny).lines
    assert {to_hex(line.get_color()).upper() for line in lines} <= published
    assert len({line.get_marker() for line in lines}) == len(lines)
    assert len(MARKERS) == len(PALETTE)


def test_results_in_memory_are_drawn_as_their_files(
    real_result: Result, compacted: CompactionResult, tiny: RunData
) -> None:
    assert of_result(real_result, "tiny").by_node("pages_sharing").tolist() == (
        tiny.by_node("pages_sharing").tolist()
    )
    assert real_result.plot("memory").svg() == picture("memory", [tiny]).svg()
    nodes = real_result.plot("nodes", statistic="frames_used")
    assert "<svg" in nodes._repr_svg_()
    assert 'alt="frames_used by node and pass"' in nodes._repr_html_()
    assert (
        compacted.plot("obtained").axes[0].get_xticklabels()[0].get_text()
        == "Compaction: memory full of zram"
    )


def test_without_matplotlib_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tiny: RunData) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        UserError, match=r"^picture \"memory\": needs matplotlib: pip install 'ksmcluster\[plot\]'$"
    ):
        picture("memory", [tiny])


@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_command(run: Run, outputs: Path, tmp_path: Path, suffix: str, magic: bytes) -> None:
    file = tmp_path / f"picture.{suffix}"
    command = ("plot", str(outputs / "tiny"), "--kind", "counters", "-o", str(file))
    assert run(*command) == (0, "", "")
    first = file.read_bytes()
    assert first.startswith(magic)
    assert run(*command) == (0, "", "")
    assert file.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("tiny -o x.txt", "error: --output x.txt: give a name that ends in .png, .svg or .pdf"),
        ("tiny -o theirs.svg", "error: --output theirs.svg: this command did not write the existing file"),
        ("gone -o x.svg", "error: gone: no such directory; give that of an --output"),
        ("tiny -o x.svg --kind memry", 'error: unknown kind of picture "memry"; did you mean "memory"?'),
        ("tiny -o x.svg --kind blocks", 'error: tiny has no picture "blocks": nothing was compacted; use'),
        (
            "zram -o x.svg --kind memory",
            'error: zram has no picture "memory": it is an output of compact; use',
        ),
        ("tiny zram -o x.svg", "error: simulate and compact share no kind of picture; give"),
        ("tiny -o x.svg --kind nodes --statistic p", 'error: unknown statistic "p"; choose one of pages_map'),
        (
            "tiny -o x.svg --kind scan --statistic p",
            'error: only the kind "nodes" takes a statistic',
        ),
    ],
)
def test_mistakes(
    run: Run, outputs: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, says: str
) -> None:
    monkeypatch.chdir(outputs)
    (outputs / "theirs.svg").write_text("<svg/>")
    ran = run("plot", *arguments.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(says)
    assert len(ran.err.splitlines()) == 1


def test_directories_of_one_name_are_called_by_their_paths(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs / "within", tmp_path / "tiny")
    labels = [run.label for run in read_runs([outputs / "tiny", tmp_path / "tiny", outputs / "within"])]
    assert labels == [str(outputs / "tiny"), str(tmp_path / "tiny"), "within"]
