"""What actors start and end without."""

from __future__ import annotations

import atexit
import os
import sys


def end_at_once() -> None:
    """Has this process end without Ray's destructors, once Ray has left its loop.

    About one in a hundred actors that own objects would wait for itself forever in the destructor of Ray's
    `Publisher` when it is killed, and outlive its cluster.
    """
    atexit.register(os._exit, 0)


class SlimActor:
    """An actor whose process does without pydantic, pyarrow and Ray's destructors.

    Ray would import both in each actor before it takes in its first object, to be able to send objects of
    theirs; ours send none. Without them an actor starts with a fifth less CPU time. To be derived from by
    classes whose constructors take nothing: arguments would be objects.
    """

    def __init__(self) -> None:
        for package in ("pydantic", "pyarrow"):
            # None: an import says that there is no such module, which is fine with Ray.
            sys.modules.setdefault(package, None)  # type: ignore[arg-type]
        end_at_once()
