"""Runs of a simulation: on Ray actors, or in this process.

Imports the rest of `actors` and `cluster`; changes nothing but the machines that it runs.
"""
