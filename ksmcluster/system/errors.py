"""Errors in one line: those that are the user's to mend, and those that are not."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """A mistake the user can mend; its message is one line saying what to do (exit code 2)."""


class RunFailedError(Exception):
    """A run that ended because something died or did not start; its message is one line (exit code 1)."""

    def __init__(self, message: str, result: Any = None) -> None:
        """Take the message, and the `ksmcluster.Result` of the finished passes, if there are any."""
        super().__init__(message)
        self.result = result
