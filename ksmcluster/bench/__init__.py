"""Benchmarks of the simulator's speed and memory, each with a reference that runs at the same time.

For `ksmcluster bench`. Imports everything except the commands. With `--ksmd` it changes the KSM settings of
this host and restores them; otherwise it changes nothing.
"""
