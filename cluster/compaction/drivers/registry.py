"""Drivers by name: the built-in ones, and those of users as `package.module:Class`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from cluster.compaction.drivers.balloon import Balloon
from cluster.compaction.drivers.faulty import Faulty
from cluster.compaction.drivers.gpu import Gpu
from cluster.compaction.drivers.pinned import Pinned
from cluster.compaction.drivers.scenario_driver import ScenarioDriver
from cluster.compaction.drivers.zsmalloc import Zram
from cluster.compaction.pages.memory import Memory
from cluster.plugins.loading import PluginError, check_settings, failure, find, place

_CALLS = ("isolate_page", "migrate_page", "putback_page", "allocate", "discard")


class DriverError(PluginError):
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

    Raises PluginError for an unknown name, and for settings that the driver does not take.
    """
    who = f"driver {name!r}"
    factory = BUILT_IN.get(name) or _entry_point(name)
    check_settings(who, factory, 1, settings)
    try:
        driver = factory(memory, **settings)
    except (TypeError, ValueError) as error:
        if name in BUILT_IN:
            raise DriverError(f"{who}: {error}") from error
        raise DriverError(f"{who} with settings {dict(settings)}: {error}{place(error)}") from error
    except Exception as error:
        raise failure(who, error) from error
    if missing := [call for call in _CALLS if not hasattr(driver, call)]:
        raise DriverError(f"{who} has no {', '.join(missing)}; PageDriver has them all")
    return driver


def make_checked_driver(name: str, memory: Memory, settings: Mapping[str, object]) -> ScenarioDriver:
    """Return a new driver as `make_driver` does; one of a user's package is checked whenever it is called."""
    owners = len(memory.operations)
    driver = make_driver(name, memory, settings)
    if name in BUILT_IN:
        return driver
    from cluster.compaction.drivers.checked_driver import CheckedDriver

    checked = CheckedDriver(f"driver {name!r}", driver)
    memory.operations[owners:] = [checked if one is driver else one for one in memory.operations[owners:]]
    return checked


def _entry_point(name: str) -> Callable[..., ScenarioDriver]:
    if ":" not in name:
        known = ", ".join(BUILT_IN)
        raise DriverError(f"no driver {name!r}; give one of {known}, or PACKAGE.MODULE:CLASS")
    found = find(f"driver {name!r}", name)
    if not callable(found):
        raise DriverError(f"driver {name!r} is not a class")
    return cast("Callable[..., ScenarioDriver]", found)
