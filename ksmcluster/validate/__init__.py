"""Compares scripts on the simulator with real kernels: this host's KSM, or records of other kernels.

Imports engines of `cluster` and `actors`. `validate` drives this host's ksmd as root, on memory of processes
that it starts, and restores all KSM settings; `replay` changes nothing outside the simulation.
"""
