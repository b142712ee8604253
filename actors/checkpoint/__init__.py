"""Checkpoints of a run: files, their directory, and when one is due.

Imports `cluster` and the standard library; changes nothing but the directory of the checkpoints.
"""
