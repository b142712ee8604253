"""What a command asks of the host: free memory, signals, places to write to, the packages on Python's path.

Imports only `ksmcluster.system.errors` and `ksmcluster.report.text`. Changes signal handlers, and files that a user
named.
"""
