"""Actors that start and end without parts of Ray that they do not need."""

from __future__ import annotations

import atexit
import os
import sys


def end_at_once() -> None:
    """Make this process end without Ray's destructors, once Ray has left its loop.

    About one in a hundred killed actors that own objects would wait for itself forever in the destructor of
    Ray's `Publisher`, and outlive its cluster.
    """
    atexit.register(os._exit, 0)


class SlimActor:
    """Base class of actors that do without pydantic, pyarrow and Ray's destructors.

    Ray imports both packages in each actor before it receives its first object, to be able to send objects of
    theirs; our actors send none. Without them an actor starts with a fifth less CPU time. Constructors of
    derived classes take no arguments: arguments would be objects.
    """

    def __init__(self) -> None:
        for package in ("pydantic", "pyarrow"):
            # None: importing it raises ModuleNotFoundError, which Ray handles.
            sys.modules.setdefault(package, None)  # type: ignore[arg-type]
        end_at_once()
