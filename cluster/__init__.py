"""The simulated machine: pure, deterministic, numpy only."""
