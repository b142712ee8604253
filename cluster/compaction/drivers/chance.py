"""Random numbers that depend on nothing but a seed and the names of things (splitmix64)."""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import F64, I64, U64, Bool

_STEP = np.uint64(0x9E3779B97F4A7C15)


def check_share(name: str, value: object) -> None:
    """Raise ValueError unless a setting of a driver is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}: must be a number from 0 to 1, not {value!r}")


def check_whole(name: str, value: object) -> None:
    """Raise ValueError unless a setting of a driver is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}: must be a whole number, not {value!r}")


def happens(probability: float, seed: int, *names: I64) -> Bool:
    """Return for each row of names whether an event of this probability happens. int64[n]... -> bool[n]."""
    result: Bool = uniform(seed, *names) < probability
    return result


def uniform(seed: int, *names: I64) -> F64:
    """Return a number of [0, 1) for each row of names. int64[n]... -> float64[n]."""
    state: U64 = np.full(len(names[0]), seed & 0xFFFFFFFFFFFFFFFF, np.uint64)
    for name in names:
        state = splitmix64(state ^ name.astype(np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def splitmix64(x: U64) -> U64:
    """Return one step of the generator from each of these states. uint64[n] -> uint64[n]."""
    x = x + _STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
