"""Writes measures to a file for benchmark trackers, and compares measures with such a baseline.

The format is `customBiggerIsBetter` of github-action-benchmark: an array of objects with `name`,
`unit`, `value` and, as texts, `range` and `extra`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_JSON
from ksmcluster.bench.tools.measure import Measure, spread
from ksmcluster.system.errors import UserError

PER_SECOND = "/s"
KEYS = {"name", "unit", "value", "range", "extra"}


def to_json(measures: Sequence[Measure]) -> str:
    """Return the text of the file."""
    return json.dumps([_entry(measure) for measure in measures], indent=2) + "\n"


def _entry(measure: Measure) -> dict[str, Any]:
    repeated = f"median of {len(measure.values)}"
    return {
        "name": measure.name,
        "unit": measure.unit,
        "value": measure.value,
        "range": spread(measure.values),
        "extra": f"{measure.extra}; {repeated}" if measure.extra else repeated,
    }


def is_measures(path: Path) -> bool:
    """Whether `to_json` made the file."""
    try:
        entries = json.loads(read_input(path, MOST_JSON))
    except (ValueError, RecursionError):
        return False
    return isinstance(entries, list) and all(isinstance(e, dict) and e.keys() == KEYS for e in entries)


def read_baseline(path: Path) -> dict[str, float]:
    """Return the values by name. Raises UserError if `to_json` did not write the file."""
    try:
        entries = json.loads(read_input(path, MOST_JSON))
        values = {str(entry["name"]): float(entry["value"]) for entry in entries}
    except OSError as error:
        raise UserError(f"--compare {path}: {error.strerror}; give a file that --json wrote") from error
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(f"--compare {path}: not a file that --json wrote") from error
    if not all(0 < value < math.inf for value in values.values()):
        raise UserError(f"--compare {path}: has values that are not finite and above 0; measure again")
    return values


@dataclass(frozen=True, slots=True)
class Change:
    """A measure and its baseline."""

    name: str
    unit: str
    before: float
    now: float

    @property
    def share(self) -> float:
        """Return the decrease since the baseline: 0.25 is a quarter less, negative is an increase."""
        return 1 - self.now / self.before


def changes(measures: Sequence[Measure], baseline: dict[str, float]) -> list[Change]:
    """Return the changes of the common measures, without rates per second, which depend on the host.

    Raises UserError if there are none.
    """
    ratios = [measure for measure in measures if not measure.unit.endswith(PER_SECOND)]
    found = [Change(m.name, m.unit, baseline[m.name], m.value) for m in ratios if m.name in baseline]
    if not found:
        raise UserError("--compare: the baseline has none of these measures; use the same sizes")
    return found


def parse_share(text: str) -> float:
    """Parse `20%` or `0.2`. Raises UserError unless it is at least 0 and below 1."""
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise UserError(f"--max-regression {text}: give a share such as 20%")
    return share
