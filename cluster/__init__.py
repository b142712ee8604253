"""The simulated machine of ksmcluster: pure, deterministic, numpy only."""
