"""Errors that the simulated machine raises."""

from __future__ import annotations


class SimulationError(Exception):
    """The scenario asks for what the machine cannot do; the message is one line for the user."""


class OutOfMemoryError(SimulationError):
    """No frame is left on any node that the placement policy allows."""


class KnobError(SimulationError):
    """The kernel would refuse this value for a knob; `errno` is the name of its error."""

    def __init__(self, message: str, errno: str) -> None:
        super().__init__(message)
        self.errno = errno
