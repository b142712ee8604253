"""Drivers by name: the built-in ones, and those of users as `package.module:Class`."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from cluster.arrays.words import I64
from cluster.compaction.drivers.balloon import Balloon
from cluster.compaction.drivers.faulty import Faulty
from cluster.compaction.drivers.gpu import Gpu
from cluster.compaction.drivers.pinned import Pinned
from cluster.compaction.drivers.zsmalloc import Zram
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MovableOperations
from cluster.spec.errors import SimulationError


class ScenarioDriver(MovableOperations, Protocol):
    """A driver as scenarios use it. Its units are pages, or what it stores in pages."""

    def allocate(self, count: int) -> I64:
        """Take at most `count` new units; return their numbers. int64[0..count]."""

    def discard(self, units: I64) -> None:
        """Give up units. int64[n], each once."""


_CALLS = ("isolate_page", "migrate_page", "putback_page", "allocate", "discard")


class DriverError(SimulationError):
    """A driver cannot be made; the message is one line for the user."""


BUILT_IN: dict[str, Callable[..., ScenarioDriver]] = {
    "balloon": Balloon,
    "faulty": Faulty,
    "gpu": Gpu,
    "pinned": Pinned,
    "zram": Zram,
}


def make_driver(name: str, memory: Memory, settings: Mapping[str, object]) -> ScenarioDriver:
    """Return a new driver of this name on this memory; `settings` are its keyword arguments.

    Raises DriverError for an unknown name, and for settings that the driver does not take.
    """
    factory = BUILT_IN.get(name) or _entry_point(name)
    _check_names(name, factory, settings)
    try:
        driver = factory(memory, **settings)
    except (TypeError, ValueError) as error:
        raise DriverError(f"driver {name!r} with settings {dict(settings)}: {error}") from error
    if missing := [call for call in _CALLS if not hasattr(driver, call)]:
        raise DriverError(f"driver {name!r} has no {', '.join(missing)}; PageDriver has them all")
    return driver


def _check_names(name: str, factory: Callable[..., ScenarioDriver], settings: Mapping[str, object]) -> None:
    """Raise DriverError for an unknown setting; the message suggests the closest name."""
    taken = list(inspect.signature(factory).parameters.values())[1:]  # after the memory
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return
    names = [parameter.name for parameter in taken]
    for setting in settings:
        if setting not in names:
            near = difflib.get_close_matches(setting, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'none'}"
            raise DriverError(f"driver {name!r} has no setting {setting!r}; {hint}")


def _entry_point(name: str) -> Callable[..., ScenarioDriver]:
    module, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(BUILT_IN)
        raise DriverError(f"no driver {name!r}; give one of {known}, or PACKAGE.MODULE:CLASS")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        hint = f"; install the package of {error.name}, or let PYTHONPATH name its directory"
        raise DriverError(f"driver {name!r}: {error}{hint}") from error
    except (ImportError, AttributeError) as error:
        raise DriverError(f"driver {name!r}: {error}") from error
    if not callable(found):
        raise DriverError(f"driver {name!r} is not a class")
    return cast("Callable[..., ScenarioDriver]", found)
