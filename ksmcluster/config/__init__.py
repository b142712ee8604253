"""Scenarios: TOML files that say what to simulate. docs/config.md describes every key."""

from ksmcluster.config.conversion import to_spec
from ksmcluster.config.loading import DEFAULT, bundled, load, resolved_toml
from ksmcluster.config.overrides import Overrides
from ksmcluster.config.scenario import Scenario

__all__ = ["DEFAULT", "Overrides", "Scenario", "bundled", "load", "resolved_toml", "to_spec"]
