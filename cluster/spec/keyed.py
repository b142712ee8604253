"""Random numbers and contents that depend on names alone: not on who draws them, or when."""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from cluster.arrays.words import U64
from cluster.spec.content import mix


def stream(*names: object) -> np.random.Generator:
    """Return a generator that depends on these names alone."""
    key = np.frombuffer(blake3(repr(names).encode()).digest(16), np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def content_ids(*names: object, numbers: U64) -> U64:
    """Return content ids, none of them 0, that depend on these names and numbers alone. uint64[n]."""
    base = np.frombuffer(blake3(repr(names).encode()).digest(8), np.uint64)[0]
    ids = mix(numbers ^ base)
    ids[ids == 0] = 1
    return ids
