"""What importing the packages does, and how they hang together."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

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


#: Prints whether the sort was chosen when numpy is first searched for.
ORDER = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("actors.tuning.numpy_dispatch" in sys.modules)

sys.meta_path.insert(0, Watch())
import {module}
"""


@pytest.mark.parametrize(
    "module",
    [
        "ksmcluster.api",
        "ksmcluster.commands.bench, ksmcluster.bench.passes",
        "ksmcluster.bench.tools.footprint",
        # what Ray's workers import first
        "actors.simulation.node_actor",
        "actors.simulation.coordinator_actor",
        "actors.compaction.memory_actor",
        "actors.compaction.migration_actor",
    ],
)
def test_numpys_sort_is_chosen_before_numpy_is_imported(module: str) -> None:
    assert python(ORDER.format(module=module)).split() == ["True"]


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


#: What was written in the documents of earlier versions, and where it is now.
OLD_PATHS = [
    ("cluster.errors", "SimulationError", "cluster.spec.errors"),
    ("cluster.migration.drivers.base", "PageDriver", "cluster.compaction.drivers.base"),
    ("cluster.migration.drivers.registry", "make_driver", "cluster.compaction.drivers.registry"),
    ("cluster.migration.drivers.scripted", "ScriptedDriver", "cluster.compaction.drivers.scripted"),
    ("cluster.migration.machine", "drive", "cluster.compaction.scenario.rounds"),
    ("cluster.migration.memory", "Memory", "cluster.compaction.pages.memory"),
    ("cluster.migration.movable", "MovableOperations", "cluster.compaction.pages.movable_operations"),
    ("cluster.migration.movable", "set_page_movable", "cluster.compaction.movable.page_movable"),
    ("cluster.migration.pages", "PageMap", "cluster.compaction.pages.page_map"),
    ("cluster.words", "I64", "cluster.arrays.words"),
]


@pytest.mark.parametrize(("old", "name", "new"), OLD_PATHS)
def test_old_paths_give_the_same_objects(
    monkeypatch: pytest.MonkeyPatch, old: str, name: str, new: str
) -> None:
    import_module(old.partition(".")[0])
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"^{old} has moved to .*{new}") as warned:
        exec(compile(f"import {old}", "driver.py", "exec"))
    assert getattr(sys.modules[old], name) is getattr(import_module(new), name)
    assert [warning.filename for warning in warned] == ["driver.py"]


@pytest.mark.filterwarnings("ignore:cluster:DeprecationWarning")
def test_old_names_in_old_modules_give_the_renamed_objects() -> None:
    movable, pages = map(import_module, ("cluster.migration.movable", "cluster.migration.pages"))
    assert movable.Foreseeing is movable.PredictsRetries
    assert movable.FOREVER == movable.NEVER_MOVES
    assert pages.Kind is pages.PageKind


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"cluster\.migration\.nothing"):
        import_module("cluster.migration.nothing")
