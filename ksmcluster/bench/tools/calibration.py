"""A fixed piece of work, done beside what is measured: rates are given in pages for each time it is done.

So a result says little of how fast the host is, or how busy it is just now.
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
    """Seconds of one loop: half of them numpy sorting and gathering, half Python counting."""
    words = np.random.default_rng(1).integers(0, 1 << 62, _WORDS, dtype=np.int64)
    start = clock()
    order = np.argsort(words, kind="stable")
    words[order].cumsum()
    total = 0
    for turn in range(_TURNS):
        total += turn & 3
    return clock() - start


def calibrated(run: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[T, float]:
    """What `run` returned, and the seconds of a calibration loop, just before it and just after it."""
    before = calibration(clock)
    returned = run()
    return returned, (before + calibration(clock)) / 2
