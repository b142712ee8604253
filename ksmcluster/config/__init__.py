"""Scenarios: TOML files that say what to simulate. docs/reference/configuration.md describes every key.

Imports `cluster.spec`, and what checks need of drivers and page maps; reads files, and changes nothing.
"""

from ksmcluster.config.conversion import to_spec
from ksmcluster.config.loading import (
    DEFAULT,
    DEFAULT_COMPACTION,
    FULL_MACHINE,
    bundled,
    bundled_compactions,
    load,
    load_compaction,
    load_cost,
    load_either,
    resolved_toml,
)
from ksmcluster.config.overrides import Overrides
from ksmcluster.config.scenario import Scenario

__all__ = [
    "DEFAULT",
    "DEFAULT_COMPACTION",
    "FULL_MACHINE",
    "Overrides",
    "Scenario",
    "bundled",
    "bundled_compactions",
    "load",
    "load_compaction",
    "load_cost",
    "load_either",
    "resolved_toml",
    "to_spec",
]
