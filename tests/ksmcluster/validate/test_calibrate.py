"""The fit of made measurements finds what they were made of; the file that is written can be read."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.machine.cost import TERMS
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import CostSpec
from ksmcluster.commands.calibrate import to_toml
from ksmcluster.config import load_cost
from ksmcluster.system.errors import UserError
from ksmcluster.validate.calibrate.fit import Fit, FittedTerm, estimate, fit, work_of
from ksmcluster.validate.calibrate.measure import Measurement, Sample, joined, simulated
from ksmcluster.validate.calibrate.programs import HUGE, programs
from ksmcluster.validate.calibrate.session import Calibration, calibrate


@cache
def known(*, splits: bool = True) -> tuple[Measurement, ...]:
    """The work of all programs on a host with huge pages. Merging splits these in the second pass."""
    found: list[Measurement] = []
    for program in programs(16384):
        works = simulated(program, PROFILES["6.18"])
        samples = []
        for i, work in enumerate(works):
            pages = int((work.new["pages_scanned"] - work.old["pages_scanned"]).sum())
            number = int(program.name.split()[1].rstrip(","))
            merging = program.name.startswith("huge")
            huge = (2 * number * (i < 2) if merging else number // HUGE) if splits and program.huge else 0
            split = huge if merging and i == 1 else 0
            slept = pages // program.pages_to_scan if program.pages_to_scan else 0
            samples.append(Sample(0.0, slept + 2, pages, split, huge))
        found += joined(works, [samples])
    return tuple(found)


def timed(
    cost: CostSpec, measurements: tuple[Measurement, ...], noise: float, seed: int
) -> list[Measurement]:
    """The measurements as they would be with this cost, three times, each off by a share of `noise`."""
    rng = np.random.default_rng(seed)
    ns = work_of(measurements, cost.cached_tree) @ [getattr(cost, term) for term in TERMS]
    return [
        m._replace(cpu_seconds=tuple(time * 1e-9 * rng.uniform(1 - noise, 1 + noise, 3)))
        for m, time in zip(measurements, ns, strict=True)
    ]


costs = st.builds(
    CostSpec,
    visit=st.floats(100, 600),
    first_visit=st.floats(50, 300),
    skip=st.floats(100, 600),
    checksum=st.floats(200, 2000),
    huge_saves=st.floats(150, 250),
    stable_level=st.floats(30, 300),
    unstable_level=st.floats(80, 500),
    uncached_level=st.floats(200, 1000),
    cached_tree=st.sampled_from([256.0, 512.0, 1024.0]),
    merge=st.floats(500, 5000),
    stable_node=st.floats(2000, 10000),
    split=st.floats(50_000, 500_000),
    wakeup=st.floats(5000, 40_000),
    cold_visit=st.floats(50, 300),
    cold_level=st.floats(100, 600),
)


@given(costs)
@settings(max_examples=30, deadline=None)
def test_the_fit_finds_what_times_were_made_of(cost: CostSpec) -> None:
    found = fit(timed(cost, known(), noise=0, seed=0))
    values = {term.name: term.value for term in found.terms}
    assert values == pytest.approx({f.name: getattr(cost, f.name) for f in fields(CostSpec)}, rel=1e-6)
    assert {term.name for term in found.terms if term.uncertainty is None} == {
        "split_zero",
        "remote",
        "cow_fault",
        "cpu_wait",
    }
    assert found.cost == replace(CostSpec(), **values)
    assert found.ratios == pytest.approx([1.0] * len(known()))


# first_visit is short and stays at its default, 2.7 times as much: so checksum is less certain.
@example(
    CostSpec(
        visit=100,
        first_visit=50,
        skip=100,
        checksum=1795,
        stable_level=30,
        unstable_level=117,
        uncached_level=205,
        cached_tree=256,
        merge=500,
        stable_node=2000,
        split=50_000,
        wakeup=5000,
        cold_visit=50,
        cold_level=100,
    ),
    147,
)
@given(costs, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_uncertainties_cover_the_noise(cost: CostSpec, seed: int) -> None:
    """With times that are off by 3 %, terms are within six standard deviations of the fit."""
    found = fit(timed(cost, known(), noise=0.03, seed=seed))
    measured = {term.name: term for term in found.terms if term.uncertainty is not None}
    assert {"visit", "skip", "checksum", "unstable_level", "split", "wakeup"} <= set(measured)
    for name in ("visit", "skip", "checksum", "split", "wakeup"):
        assert abs(measured[name].value - getattr(cost, name)) <= 6 * (measured[name].uncertainty or 0)


def test_what_was_not_measured_stays_at_its_default() -> None:
    cost = CostSpec(visit=400, checksum=900, wakeup=30_000)
    without_splits = fit(timed(cost, known(splits=False), noise=0, seed=0))
    skipless = [m for m in timed(cost, known(), noise=0, seed=0) if not m.work.name.startswith("skipped")]
    for found, name in (
        (without_splits, "split"),
        (without_splits, "huge_saves"),
        (fit(skipless), "skip"),
    ):
        (term,) = [term for term in found.terms if term.name == name]
        assert term == FittedTerm(name, getattr(CostSpec(), name), None)
        assert found.cost.visit == pytest.approx(400)


def test_terms_that_are_one_in_all_measurements_are_not_separated() -> None:
    """First passes alone: visits, first visits and checksums are as many as each other."""
    first = tuple(m for m in known() if m.work.name.endswith("pass 1"))
    found = fit(timed(CostSpec(), first, noise=0.01, seed=1))
    measured = {term.name for term in found.terms if term.uncertainty is not None}
    assert len(measured & {"visit", "first_visit", "checksum"}) < 3
    names = ("visit", "first_visit", "checksum")
    of_a_page = sum(getattr(CostSpec(), name) for name in names)
    assert sum(getattr(found.cost, name) for name in names) == pytest.approx(of_a_page, rel=0.02)


def test_other_users_are_noticed() -> None:
    program = next(programs(256))
    works = simulated(program, PROFILES["6.18"])
    samples = [Sample(0.1, 2, 256 + (i == 2), 0, 0) for i in range(len(works))]
    with pytest.raises(UserError, match="ksmd visited 257 pages, not 256: does another program use KSM"):
        list(joined(works, [samples]))


def test_a_pass_that_ksmd_did_not_end_with_is_left_out() -> None:
    """In one of two repetitions ksmd had begun with the third pass when it was stopped."""
    program = next(programs(256))
    works = simulated(program, PROFILES["6.18"])
    exact = [Sample(0.1, 2, 256, 0, 0)] * len(works)
    late = [Sample(0.2, 3, 256 + {1: 25, 2: -25}.get(i, 0), 0, 0) for i in range(len(works))]
    found = list(joined(works, [exact, late]))
    assert [m.cpu_seconds for m in found] == [(0.1, 0.2), (0.1,), (0.1,), (0.1, 0.2)]
    assert [m.wakeups for m in found] == [1.5, 1, 1, 1.5]


def test_programs_do_what_they_are_for() -> None:
    work = {m.work.name: row for m, row in zip(known(), work_of(known(), 1024), strict=True)}

    def done(name: str, number: int) -> dict[str, float]:
        return dict(zip(TERMS, work[f"{name}, pass {number}"], strict=True))

    assert done("unique 1024", 1)["first_visit"] == 1024
    assert done("unique 1024", 2)["unstable_level"] > 8 * 1024
    rewritten = done("rewritten 1024", 3)
    assert (rewritten["checksum"], rewritten["first_visit"], rewritten["unstable_level"]) == (1024, 0, 0)
    assert (done("merged 1024 by 2", 2)["stable_node"], done("merged 1024 by 16", 2)["stable_node"]) == (
        512,
        64,
    )
    assert done("merged 1024 by 2", 3)["checksum"] == 0
    assert done("mixed 1024", 3)["stable_level"] > 512
    assert done("skipped 1024", 5)["skip"] == 1024
    assert done("forked 256", 2)["checksum"] == 1024
    assert (done("huge 16", 2)["split"], done("huge 16", 2)["huge_saves"]) == (32, -32)
    assert done("unique 2048 in huge pages", 2)["huge_saves"] == -2048
    slept = done("unique 512, 100 at once", 2)
    at_once = done("unique 1024", 2)
    assert (slept["wakeup"], at_once["wakeup"]) == (6, 1)
    assert slept["cold_level"] > at_once["cold_level"]


# The file


NOT_MEASURED = estimate("mapping", 900.0, [])


def calibration(cost: CostSpec, mapping: FittedTerm = NOT_MEASURED) -> Calibration:
    terms = tuple(FittedTerm(f.name, getattr(cost, f.name), None) for f in fields(CostSpec))
    return Calibration("6.18.1", "A CPU", 3, (), Fit(terms, (1.0,)), mapping)


@given(costs)
@settings(max_examples=30, deadline=None)
def test_the_file_gives_the_same_cost(tmp_path_factory: pytest.TempPathFactory, cost: CostSpec) -> None:
    file = tmp_path_factory.mktemp("cost") / "cost.toml"
    file.write_text(to_toml(calibration(cost)))
    read = load_cost(file)
    assert [getattr(read, f.name) for f in fields(read)] == pytest.approx(
        [getattr(cost, f.name) for f in fields(cost)], abs=0.051
    )
    assert file.read_text().startswith("# ksmcluster calibrate: A CPU, Linux 6.18.1\n[cost]\n")


def test_what_a_mapping_costs_is_written_if_it_was_measured() -> None:
    assert "migration" not in to_toml(calibration(CostSpec()))
    mapping = estimate("mapping", 900.0, [700.0, 720.0, 800.0])
    written = tomllib.loads(to_toml(calibration(CostSpec(), mapping)))
    assert written["migration"] == {"cost": {"mapping_ns": 720.0}}


def test_terms_measured_by_themselves() -> None:
    """The median of 3, 5 and 13, and sqrt(pi / 2 / 3) times a standard deviation of sqrt(28)."""
    assert estimate("cow_fault", 1600, [3, 13, 5]) == FittedTerm(
        "cow_fault", 5, pytest.approx(3.8291, rel=1e-4)
    )
    assert estimate("cow_fault", 1600, []) == FittedTerm("cow_fault", 1600, None)
    found = fit(timed(CostSpec(), known(), noise=0, seed=0), FittedTerm("cow_fault", 2000.0, 50.0))
    assert found.cost.cow_fault == 2000
    assert FittedTerm("cow_fault", 2000.0, 50.0) in found.terms


# Refusals


def test_no_ksm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no KSM; run on Linux with CONFIG_KSM"):
        calibrate(lambda what: None, folder=tmp_path)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").write_text("0")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="no permission to drive ksmd; run as root"):
        calibrate(lambda what: None, folder=tmp_path)
