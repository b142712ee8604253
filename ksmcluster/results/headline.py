"""The headline of a result: what KSM saves on average over the last half of the simulated time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.spec.statistics import Statistic

HEADLINE = (
    Statistic(
        "saved_bytes_mean",
        "bytes",
        "the headline: mean of `by_pass.saved_bytes` over the last half of the simulated time; each pass is "
        "weighted by its share of that time",
    ),
    Statistic("saved_bytes_min", "bytes", "... the lowest value in these passes"),
    Statistic("saved_bytes_max", "bytes", "... the highest value"),
    Statistic(
        "saved_fraction_mean", "", "saved_bytes_mean / mean of saved + memory in use over the same time"
    ),
)


def headline(
    seconds: Sequence[float], saved: NDArray[np.int64], after: NDArray[np.int64]
) -> dict[str, float | int]:
    """Return the values of HEADLINE.

    `seconds` are the simulated times at the ends of the passes; `saved` and `after`, int64[passes], are the
    bytes saved and in use then.
    """
    weights = last_half(np.array(seconds))
    counted = saved[weights > 0]
    mean = _mean(saved, weights)
    before = _mean(saved + after, weights)
    return {
        "saved_bytes_mean": mean,
        "saved_bytes_min": int(counted.min()),
        "saved_bytes_max": int(counted.max()),
        "saved_fraction_mean": mean / before if before else 0.0,
    }


def _mean(values: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Return the weighted mean. That of equal values is exact, so that runs with equal values are equal."""
    least = int(values[weights > 0].min())
    return least + float(np.average(values - least, weights=weights))


def last_half(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the seconds of each pass that are in the last half of the time. float64[n] -> float64[n].

    If no time passes at all, only the last pass counts.
    """
    begin = np.concatenate([[0.0], seconds[:-1]])
    weights: NDArray[np.float64] = np.maximum(seconds - np.maximum(begin, seconds[-1] / 2), 0.0)
    if not weights.any():
        weights[-1] = 1.0
    return weights
