"""What importing the packages does, and how they hang together."""

from __future__ import annotations

import os
import subprocess
import sys

#: Imports all of cluster; prints which variables of the environment changed, and which libraries were loaded.
PURITY = """
import importlib, os, pkgutil, sys
import blake3, numpy

before, loaded = dict(os.environ), []
sys.addaudithook(lambda event, args: loaded.append(args[0]) if event == "ctypes.dlopen" else None)
import cluster
for module in pkgutil.walk_packages(cluster.__path__, "cluster."):
    importlib.import_module(module.name)
print([name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)], loaded)
"""


def test_importing_cluster_changes_no_environment_and_loads_no_library() -> None:
    assert python(PURITY).strip() == "[] []"


def test_importing_cluster_imports_no_numpy() -> None:
    assert python("import sys, cluster; print('numpy' in sys.modules)").strip() == "False"


def python(program: str) -> str:
    """What the program prints, run by a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=dict(os.environ),
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout
