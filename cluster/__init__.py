"""The simulated machine of ksmcluster: pure, deterministic, numpy only.

Each package answers one question; docs/explanation/architecture.md lists them. Importing `cluster` imports
none of them, and changes nothing but `sys.meta_path`, for the paths that modules had in earlier versions.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType


class MovedModules:
    """A finder of modules that have moved: the old path gives the same objects, with a DeprecationWarning.

    `moved` maps each old path to the modules that have its contents now; none for a package that is gone.
    `renamed` maps old names in them to new ones.
    """

    def __init__(
        self, moved: Mapping[str, tuple[str, ...]], renamed: Mapping[str, str] | None = None
    ) -> None:
        self._moved = moved
        self._renamed = renamed or {}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find a module that has moved. Python asks only after all other finders have failed."""
        if name not in self._moved:
            return None
        return ModuleSpec(name, self, is_package=not self._moved[name])  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the creation of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with what its successors hold."""
        homes = self._moved[module.__name__]
        if homes:
            text = f"{module.__name__} has moved to {', '.join(homes)}"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        contents = vars(module)
        for home in homes:
            names = vars(import_module(home))
            contents |= {name: value for name, value in names.items() if not name.startswith("__")}
        contents |= {old: contents[new] for old, new in self._renamed.items() if new in contents}


_DRIVERS = ("balloon", "base", "chance", "faulty", "gpu", "pinned", "registry", "scripted", "zsmalloc")
sys.meta_path.append(
    MovedModules(
        {
            "cluster.errors": ("cluster.spec.errors",),
            "cluster.migration": (),
            "cluster.migration.drivers": (),
            "cluster.migration.machine": tuple(
                f"cluster.compaction.scenario.{name}"
                for name in ("compactor_pool", "memory_host", "node_memory", "node_report", "rounds")
            ),
            "cluster.migration.memory": ("cluster.compaction.pages.memory",),
            "cluster.migration.movable": (
                "cluster.compaction.pages.movable_operations",
                "cluster.compaction.movable.page_movable",
                "cluster.compaction.movable.isolation",
                "cluster.compaction.movable.lru_pages",
            ),
            "cluster.migration.pages": ("cluster.compaction.pages.page_map",),
            "cluster.words": ("cluster.arrays.words",),
        }
        | {f"cluster.migration.drivers.{name}": (f"cluster.compaction.drivers.{name}",) for name in _DRIVERS},
        renamed={"FOREVER": "NEVER_MOVES", "Foreseeing": "PredictsRetries", "Kind": "PageKind"},
    )
)
