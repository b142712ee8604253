"""CITATION.cff: the fields that version 1.2.0 of its format requires, and our version and licence."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_the_citation_is_complete_and_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    assert citation["title"].startswith(project["name"])
    assert [author["name"] for author in citation["authors"]] == [one["name"] for one in project["authors"]]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
