"""Benchmarks of the simulator's speed and memory, each beside a reference that runs at the same time.

For `ksmcluster bench`. Imports everything below but the commands. Changes only what it simulates, and with
`--ksmd` this host's ksmd, whose knobs it puts back.
"""
