"""The simulated machine: pure, deterministic, numpy only."""

from cluster.sorting import choose_sort

choose_sort()
