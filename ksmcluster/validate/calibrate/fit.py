"""Fits the terms of ksmd's CPU time to measurements, by least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.machine.cost import TERMS, ksmd_work
from cluster.machine.replay.script_engine import spec_for
from cluster.spec.profile import PROFILES
from cluster.spec.scenario import CostSpec
from ksmcluster.validate.calibrate.measure import Measurement

Floats = NDArray[np.float64]

#: Sizes of `cached_tree` to try.
_CACHED = tuple(round(2 ** (n / 2)) for n in range(14, 33))
#: Constant uncertainty of a measurement, in addition to a relative one.
_NOISE_NS = 50_000.0
#: Smallest variance of relative errors; not 0, so that an infinite deviation stays infinite.
_LEAST_VARIANCE = 1e-24
#: Singular values below this share of the largest one mean linearly dependent columns.
_DEPENDENT = 1e-6
#: A term whose relative deviation is larger than this is not separated from the others.
_MOST_UNCERTAIN = 0.5


class FittedTerm(NamedTuple):
    """A term of the cost with its standard deviation; None means not measured: the value is the default."""

    name: str
    value: float
    uncertainty: float | None


class Fit(NamedTuple):
    """All terms, and the quality of the fit."""

    terms: tuple[FittedTerm, ...]
    #: Modelled / measured CPU time of each measurement.
    ratios: tuple[float, ...]

    @property
    def cost(self) -> CostSpec:
        """Return the terms as a cost."""
        return replace(CostSpec(), **{term.name: term.value for term in self.terms})


class _Solution(NamedTuple):
    """Terms by index in TERMS; terms that are not free have their defaults."""

    values: Floats
    deviations: Floats
    free: tuple[int, ...]
    #: Sum of the squares of relative errors.
    error: float


def estimate(name: str, default: float, samples: Sequence[float]) -> FittedTerm:
    """Return the median of the separate measurements of a term."""
    if len(samples) < 2:
        return FittedTerm(name, default, None)
    of_median = math.sqrt(math.pi / 2 / len(samples))
    return FittedTerm(name, float(np.median(samples)), of_median * float(np.std(samples, ddof=1)))


def fit(measurements: Sequence[Measurement], *by_themselves: FittedTerm) -> Fit:
    """Return the terms that fit the medians of all repetitions best, by relative errors.

    Terms that the measurements do not separate keep their defaults; some terms were measured separately.
    """
    ns = np.array([np.median(m.cpu_seconds) for m in measurements]) * 1e9
    solutions = {cached: _solve(work_of(measurements, cached), ns) for cached in _CACHED}
    cached, spread = _cached_tree(solutions, len(ns))
    work = work_of(measurements, cached)
    best = _solve(work, ns)
    found = {
        name: (float(best.values[i]), float(best.deviations[i]) if i in best.free else None)
        for i, name in enumerate(TERMS)
    } | {"cached_tree": (cached, spread)}
    found |= {term.name: (term.value, term.uncertainty) for term in by_themselves}
    default = CostSpec()
    terms = tuple(
        FittedTerm(field.name, *found.get(field.name, (getattr(default, field.name), None)))
        for field in fields(CostSpec)
    )
    return Fit(terms, tuple((work @ best.values / ns).tolist()))


def _cached_tree(solutions: dict[int, _Solution], measurements: int) -> tuple[float, float | None]:
    """Return the size of the tree that fits into the cache, and its uncertainty.

    Returns the default and None if no size fits better than its neighbours.
    """
    sizes = list(solutions)
    at = min(range(len(sizes)), key=lambda i: solutions[sizes[i]].error)
    best = solutions[sizes[at]]
    if at in (0, len(sizes) - 1) or TERMS.index("uncached_level") not in best.free:
        return CostSpec().cached_tree, None
    most = best.error * (1 + 1 / max(measurements - len(best.free) - 1, 1))
    near = [size for size in sizes if solutions[size].error <= most]
    spread = max(abs(size - sizes[at]) for size in (*near, sizes[at - 1], sizes[at + 1]))
    return float(sizes[at]), float(spread)


def work_of(measurements: Sequence[Measurement], cached_tree: float) -> Floats:
    """Return the amount of each term in each measurement: float64[measurements, terms]."""
    spec = spec_for(PROFILES["6.18"], 1)
    spec = replace(spec, cost=replace(spec.cost, cached_tree=cached_tree))
    rows = []
    for work, wakeups, _ in measurements:
        done = ksmd_work(spec, work.old, work.new, np.array([wakeups]))
        rows.append([float(done[term].sum()) for term in TERMS])
    return np.array(rows)


def _solve(work: Floats, ns: Floats) -> _Solution:
    """Fit all terms that occur; set terms that are not separated to their defaults, one by one.

    Such a term is probably off its default by what the fit had found before, at most by all of it. That is a
    part of the uncertainty of the others.
    """
    values = np.array([getattr(CostSpec(), term) for term in TERMS])
    in_doubt = np.zeros(len(TERMS))
    free = [i for i in range(len(TERMS)) if work[:, i].any()]
    while True:
        found, deviations, error = _least_squares(work, ns, values, in_doubt, free)
        doubtful = [d / v if v > 0 else np.inf for d, v in zip(deviations, found, strict=True)]
        if not free or max(doubtful) <= _MOST_UNCERTAIN:
            break
        worst = int(np.argmax(doubtful))
        term = free.pop(worst)
        in_doubt[term] = min(values[term], np.hypot(deviations[worst], found[worst] - values[term]))
    values[free] = found
    of_all = np.zeros(len(TERMS))
    of_all[free] = deviations
    return _Solution(values, of_all, tuple(free), error)


def _least_squares(
    work: Floats, ns: Floats, values: Floats, in_doubt: Floats, free: list[int]
) -> tuple[Floats, Floats, float]:
    """Return the free terms, their standard deviations, and the sum of squares.

    The other terms have `values`, with standard deviations `in_doubt`.
    """
    fixed = np.setdiff1d(np.arange(len(values)), free)
    scale = ns + _NOISE_NS
    relative = work[:, free] / scale[:, None]
    target = (ns - work[:, fixed] @ values[fixed]) / scale
    columns = np.column_stack([target, work[:, fixed] * in_doubt[fixed] / scale[:, None]])
    solved = np.linalg.lstsq(relative, columns, rcond=None)[0]
    found, of_doubt = np.asarray(solved[:, 0], np.float64), np.linalg.norm(solved[:, 1:], axis=1)
    error = float(((relative @ found - target) ** 2).sum())
    variance = max(error / max(len(ns) - len(free), 1), _LEAST_VARIANCE)
    return found, np.hypot(_deviations(relative) * np.sqrt(variance), of_doubt), error


def _deviations(columns: Floats) -> Floats:
    """Return the standard deviations of fitted terms, for a variance of 1: float64[terms].

    They are infinite for linearly dependent columns.
    """
    length = np.linalg.norm(columns, axis=0)
    _, size, directions = np.linalg.svd(columns / length, full_matrices=False)
    dependent = size < _DEPENDENT * size.max(initial=0)
    variances = (directions[~dependent] ** 2 / size[~dependent, None] ** 2).sum(axis=0)
    variances[(np.abs(directions[dependent]) > _DEPENDENT).any(axis=0)] = np.inf
    deviations: Floats = np.sqrt(variances) / length
    return deviations
