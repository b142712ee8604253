"""Random numbers of a compaction scenario: a stream of its own for each purpose."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for."""

    DISCARDS = 1  #: units that owners give up after the filling
    STEPS = 2  #: where a compactor's turn ends
    ORDER = 3  #: whose turn it is in a round
    START = 4  #: where free blocks lie in a start state, and which pageblocks are the kernel's


def random_stream(seed: int, purpose: Purpose, node: int, round_number: int = 0) -> np.random.Generator:
    """Return a generator that depends on these numbers alone."""
    key = (int(purpose), node, round_number)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
