"""Sweeps: the points, their runs in processes or on Ray, the directory with results, the best points."""
