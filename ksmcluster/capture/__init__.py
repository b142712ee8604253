"""Turns the memory of processes, core files and raw images into snapshots."""
