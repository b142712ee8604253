"""The pieces of which benchmarks are made: memory to be measured, lines, families of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from ksmcluster.bench.memory import Line
from ksmcluster.bench.plot import figure_of
from ksmcluster.bench.scaling import Point, Scaling
from ksmcluster.bench.scaling_outcome import outcome
from ksmcluster.bench.startup import measures_of
from ksmcluster.bench.tools.calibration import calibrated
from ksmcluster.bench.tools.footprint import resident
from ksmcluster.bench.tools.programs import own_ray, run_program
from ksmcluster.bench.tools.shapes import grouped, spread_out
from ksmcluster.bench.tools.sizes import parse_numbers
from ksmcluster.system.descendants import family
from ksmcluster.system.errors import UserError


@pytest.mark.parametrize("content", ["symbolic", "bytes"])
def test_groups_of_sixteen(content: str) -> None:
    first, merging, steady = run_passes(grouped(640, content, passes=3), INLINE)
    assert first.nodes["pages_merged"].sum() == 0
    assert merging.nodes["pages_shared"].sum() == 20
    assert merging.nodes["pages_sharing"].sum() == 300
    assert merging.nodes["pages_unshared"].sum() == 320
    assert [r.nodes["pages_scanned"].sum() for r in (first, merging, steady)] == [640, 640, 640]
    assert steady.nodes["pages_merged"].sum() == 0


def test_groups_over_the_machine() -> None:
    *_, last = run_passes(spread_out(4, 800, passes=2), INLINE)
    assert last.nodes["pages_mapped"].tolist() == [800] * 4
    # 1,600 pages drawn from 100 contents: each is there, and about 16 times.
    assert last.nodes["pages_shared"].sum() == 100
    assert last.nodes["pages_sharing"].sum() == 1500
    assert last.nodes["pages_merged_remote"].sum() > 1000
    assert last.nodes["bytes_sent"].sum() > 0


def test_calibration_goes_before_and_after() -> None:
    ticks = iter([0.0, 1.0, 5.0, 8.0])
    assert calibrated(lambda: "done", lambda: next(ticks)) == ("done", 2.0)


def test_fitted_line() -> None:
    line = Line.fitted([10, 20, 40], [130, 230, 430])
    assert (line.base, line.slope) == pytest.approx((30, 10))
    assert line.at(1000) == pytest.approx(10_030)


def test_ideal_and_core_time() -> None:
    weak = (
        Point(1, 1, 1000, seconds=[0.002, 0.004, 0.001]),
        Point(2, 2, 2000, seconds=[0.004]),
        Point(8, 8, 8000, seconds=[0.005]),
    )
    scaling = Scaling("ray", 4, weak, None, None)
    assert [point.rate() for point in weak] == pytest.approx([1e6, 1e6, 3.2e6])
    assert [point.core_ns(4) for point in weak] == pytest.approx([1000, 2000, 1250])
    assert scaling.best() == pytest.approx(1000)
    assert [scaling.ideal(point) for point in weak] == pytest.approx([1e6, 2e6, 4e6])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_all_of_the_picture_is_seen(count: int) -> None:
    """On the most cores, with the most pages, on few points that are nearly the same and on many."""
    weak = tuple(Point(2**i, 2**i, 2**i * 1_048_576, seconds=[0.2 - i / 1000]) for i in range(count))
    alone = Point(weak[-1].nodes, 1, weak[-1].pages, seconds=[1.0])
    figure = figure_of(Scaling("ray", 128, weak, alone, alone))
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_ylim()[1] > 1.05 * max(line.get_ydata().max() for line in axes.lines)
    title = figure.axes[0].title.get_window_extent()
    assert 0 <= title.x0 < title.x1 <= figure.bbox.x1


def test_efficiency_is_drawn_with_that_of_several_processes() -> None:
    weak = (Point(1, 1, 1000, seconds=[0.002]), Point(8, 4, 8000, seconds=[0.005, 0.010, 0.008]))
    alone = Point(8, 1, 8000, seconds=[0.015, 0.020, 0.016])
    apart = Point(8, 4, 8000, seconds=[0.005, 0.008, 0.005])
    below = figure_of(Scaling("ray", 4, weak, alone, apart)).axes[1]
    # ideal: 1 and 4 million pages a second; three, two and two times as fast as in one process, and apart
    # three, two and a half, and 3.2 times
    lines = below.lines[0], below.containers[0].lines[0], below.lines[-1]
    measured, speedup, limit = (line.get_ydata() for line in lines)
    assert measured == pytest.approx([1, 0.5])
    assert speedup == pytest.approx([0.5])
    assert limit == pytest.approx([0.75])


def test_ratios_of_startup() -> None:
    measures = measures_of(64, [10.0, 30.0], {1: [20.0, 20.0], 8: [5.0, 10.0]})
    assert {measure.name: measure.values for measure in measures} == {
        "startup, 64 nodes, 1 an actor: against Ray alone": (0.5, 1.5),
        "startup, 64 nodes, 8 an actor: against Ray alone": (2.0, 3.0),
        "startup, 64 nodes, 8 an actor: against 1 an actor": (4.0, 2.0),
    }


def test_strong_scaling_is_paired() -> None:
    alone = Point(
        8, 1, 8000, seconds=[0.004, 0.006], first=[0.001, 0.002], loops=[1.0, 1.0], bytes_sent=[0, 0, 0]
    )
    last = Point(
        8,
        2,
        8000,
        seconds=[0.002, 0.004],
        first=[0.0008, 0.001],
        loops=[2.0, 0.5],
        bytes_sent=[0, 16, 0],
        mail_bytes=16,
    )
    apart = Point(8, 2, 8000, seconds=[0.002, 0.002], first=[0.0005, 0.001])
    measures = outcome(Scaling("ray", 2, (last,), alone, apart)).measures
    assert [measure.name for measure in measures] == [
        "scaling, ray, 1000 pages a node: 8 nodes",
        "scaling, ray, 1000 pages a node: 8 nodes, time a page against the best",
        "scaling, ray, 1000 pages a node: 8 nodes, mail",
        "scaling, 8 nodes of 1000 pages: 2 processes against 1",
        "scaling, 8 nodes of 1000 pages, first pass: 2 processes to 1",
        "scaling, 8 nodes of 1000 pages: 2 processes apart against 1",
        "scaling, 8 nodes of 1000 pages, first pass: 2 processes apart to 1",
        "scaling, 8 nodes of 1000 pages: 2 processes against 2 apart",
        "scaling, 8 nodes of 1000 pages, first pass: 2 processes to 2 apart",
    ]
    assert measures[0].values == pytest.approx((16e6, 2e6))  # pages/s times the seconds of a loop
    # Half of the pages are in the other process.
    assert measures[2].values == (4000 / (16 / 1024),)
    assert measures[3].values == pytest.approx((2.0, 1.5))
    assert measures[4].values == pytest.approx((1.25, 2.0))
    assert measures[5].values == pytest.approx((2.0, 3.0))
    assert measures[6].values == pytest.approx((2.0, 2.0))
    assert measures[7].values == pytest.approx((1.0, 0.5))
    assert measures[8].values == pytest.approx((0.625, 1.0))


def test_family() -> None:
    """A child and a grandchild, and nobody else."""
    program = (
        "import subprocess, sys\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print(inner.pid, flush=True); input(); inner.communicate(b'\\n')"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    grandchild = int(child.stdout.readline())
    assert family(child.pid) == [child.pid, grandchild]
    assert {os.getpid(), child.pid, grandchild} <= set(family(os.getpid()))
    child.communicate("\n")
    assert child.pid not in family(os.getpid())


def test_processes_of_ray_count() -> None:
    alone, on_ray = (
        json.loads(
            run_program("ksmcluster.bench.tools.footprint", "1", "800", engine, "1", environment=own_ray())
        )
        for engine in ("inline", "ray")
    )
    assert alone["pages"] == on_ray["pages"] == 800
    assert on_ray["steady"] > 3 * alone["steady"]  # the driver, the coordinator, the node and Ray's own


def test_resident_memory() -> None:
    before, _ = resident()
    array = np.ones(64 << 20, np.uint8)
    peak, now = resident()
    assert now >= array.nbytes
    assert peak >= before
    assert peak >= now


def test_programs() -> None:
    assert run_program("ksmcluster.cli", "--version").startswith("ksmcluster ")
    with pytest.raises(UserError, match=r"simulate gone.toml failed: error: there is no file gone.toml"):
        run_program("ksmcluster.cli", "simulate", "gone.toml")


@pytest.mark.parametrize("text", ["", "1,,2", "0", "1,-2", "many", "4,17"])
def test_numbers(text: str) -> None:
    assert parse_numbers("--nodes", "4,1,16", 16) == (4, 1, 16)
    with pytest.raises(UserError, match="--nodes: give numbers from 1 to 16"):
        parse_numbers("--nodes", text, 16)
