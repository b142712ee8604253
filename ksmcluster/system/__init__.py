"""What a command asks of the host: memory that is free, signals that end it, places to write to.

Imports only `ksmcluster.errors` and `ksmcluster.report.text`. Changes signal handlers, and
files that a user named.
"""
