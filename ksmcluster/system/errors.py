"""Errors that are the user's to mend."""


class UserError(Exception):
    """A mistake the user can mend; its message is one line saying what to do (exit code 2)."""
