"""The sub-commands of `ksmcluster`, one module each, and the options that they share.

They are for the command line only. They may import everything below; they import heavy modules inside
functions, so that each command starts fast. They print, write the files that a user named, and set the exit
code.
"""
