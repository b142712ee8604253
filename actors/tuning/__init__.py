"""Tuning of processes: numpy's CPU dispatch, malloc, what a Ray worker imports and how it ends.

Results do not depend on any of it. These modules import only what they tune and `cluster.arrays`, and change
their own process: its environment, libc's settings, `sys.modules`, exit handlers.
"""
