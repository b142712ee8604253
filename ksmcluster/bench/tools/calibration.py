"""A fixed piece of work that is timed beside each measurement. Rates are given in pages per such loop.

A result then depends little on the host's speed and its current load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Clock = Callable[[], float]

_WORDS = 1 << 18
_TURNS = 200_000

UNIT = "pages/calibration"


def calibration(clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one loop: half of it numpy sorting and gathering, half Python counting."""
    words = np.random.default_rng(1).integers(0, 1 << 62, _WORDS, dtype=np.int64)
    start = clock()
    order = np.argsort(words, kind="stable")
    words[order].cumsum()
    total = 0
    for turn in range(_TURNS):
        total += turn & 3
    return clock() - start


def calibrated(run: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[T, float]:
    """Return the result of `run`, and the seconds of calibration loops just before and after it."""
    before = calibration(clock)
    returned = run()
    return returned, (before + calibration(clock)) / 2
