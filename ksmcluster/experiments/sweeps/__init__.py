"""Sweeps: the points, their runs in processes or on Ray, the directory that keeps them, the best of them."""
