"""Errors of a simulation: those that its user can cause, and deaths."""

from __future__ import annotations


class SimulationError(Exception):
    """The scenario asks for something that the machine cannot do. The message is one line for the user."""


class OutOfMemoryError(SimulationError):
    """No node that the placement policy allows has a free frame."""


class LostError(SimulationError):
    """Something that the run needs died or did not start, which is no mistake of the user."""
