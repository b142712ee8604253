"""Frozen inputs: what to simulate."""
