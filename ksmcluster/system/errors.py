"""Errors with messages of one line: mistakes of the user, and failures."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """A mistake that the user can fix; its message is one line that says what to do (exit code 2)."""


class RunFailedError(Exception):
    """A run failed because a process died or did not start; its message is one line (exit code 1)."""

    def __init__(self, message: str, result: Any = None) -> None:
        """Store the message, and the `ksmcluster.Result` of the finished passes, if there are any."""
        super().__init__(message)
        self.result = result
