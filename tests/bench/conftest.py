"""The command line as a function; nothing is asserted about time."""

from __future__ import annotations

from tests.front.conftest import plain_terminal, run

__all__ = ["plain_terminal", "run"]
