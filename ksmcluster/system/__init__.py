"""Access to the host: free memory, signals, files to write, and the packages on Python's path.

Also the errors that users see. Imports only `ksmcluster.report.text`. Changes signal handlers, and files that
the user named.
"""
