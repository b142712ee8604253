"""The sub-commands of `ksmcluster`, one module each, and the options that they share.

They import everything below; heavy modules only inside functions, so that each command starts with what it
needs. They print, write the files that a user named, and set the exit code.
"""
