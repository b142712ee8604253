"""Checkpoints of a run: files, their directory, when one is due, and runs that go on from one after a death.

Imports `cluster`, the head of `actors.watching` and the standard library; changes nothing but the directory
of the checkpoints.
"""
