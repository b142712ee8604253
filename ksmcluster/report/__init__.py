"""Reports that a person reads: tables, bars and progress of a run.

Imports `rich`, and what it prints from `cluster` and `ksmcluster.results`; changes nothing but the terminal.
"""
