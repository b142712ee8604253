"""What a command asks of the host: free memory, signals, places to write to, the packages on Python's path.

Also the error that a user can mend. Imports only `ksmcluster.report.text`. Changes signal handlers, and files
that a user named.
"""
