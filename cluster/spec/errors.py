"""Errors of the simulated machine that a user can cause."""

from __future__ import annotations


class SimulationError(Exception):
    """The scenario asks for something that the machine cannot do. The message is one line for the user."""


class OutOfMemoryError(SimulationError):
    """No node that the placement policy allows has a free frame."""
