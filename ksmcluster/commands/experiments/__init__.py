"""Commands about several runs: sweeps, comparisons, and the knobs of a run."""
