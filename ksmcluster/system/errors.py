"""Errors in one line: those that are the user's to mend, and those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ksmcluster.results.result import Result


class UserError(Exception):
    """A mistake the user can mend; its message is one line saying what to do (exit code 2)."""


class RunFailedError(Exception):
    """A run that ended because something died or did not start; its message is one line (exit code 1)."""

    def __init__(self, message: str, result: Result | None = None) -> None:
        """Take the message, and what the finished passes of a simulation have found out, if any."""
        super().__init__(message)
        self.result = result
