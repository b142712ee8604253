"""Ray actors that carry the messages of the simulated machine."""
