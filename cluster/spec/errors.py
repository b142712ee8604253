"""Errors that the simulated machine raises."""

from __future__ import annotations


class SimulationError(Exception):
    """The scenario asks for what the machine cannot do; the message is one line for the user."""


class OutOfMemoryError(SimulationError):
    """No frame is left on any node that the placement policy allows."""
