"""Errors that are the user's to mend: told in one line, without a traceback, exit code 2."""


class UserError(Exception):
    """What the user asked for cannot be done; the message says why, and what would work."""
