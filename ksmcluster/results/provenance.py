"""How and where a run was carried out: the facts that may differ between runs with equal results."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

_PACKAGES = ("ksmcluster", "numpy", "pyarrow", "ray")


def provenance(timing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of provenance.json. It describes the host but does not name it."""
    return {
        "command": shlex.join(sys.argv),
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "host": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
        },
        "timing": dict(timing),
    }
