"""Reports for people: tables, bars and the progress of a run.

Imports `rich`, and from `cluster` and `ksmcluster.results` what it prints. Changes only the terminal.
"""
