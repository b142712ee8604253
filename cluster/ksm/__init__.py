"""ksmd on one node."""
