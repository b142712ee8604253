"""Checks whether ksmd's advisor met its target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ksmcluster.config.ksmd import KsmConfig
from ksmcluster.report import text
from ksmcluster.results.headline import last_half

#: A mean pass time within this relative distance of the target meets it.
_NEAR = 0.2


def notes(ksm: KsmConfig, seconds: Sequence[float], windows: Sequence[int]) -> Iterator[str]:
    """Yield a note if passes in the last half of the time miss the advisor's target.

    `seconds` are the simulated times at the ends of the passes; `windows` are 0 where ksmd did not run.
    """
    target = ksm.advisor_target_scan_time
    if ksm.advisor_mode != "scan-time" or target is None or not all(windows):
        return
    took = np.diff(np.array(seconds), prepend=0.0)[last_half(np.array(seconds)) > 0]
    mean = float(took.mean())
    if abs(mean - target) <= _NEAR * target:
        return
    why = (
        "its rule gives ksmd at least 10 % of a CPU"
        if mean < target
        else f"its rule allows at most {ksm.advisor_max_pages_to_scan:,} pages and "
        f"{ksm.advisor_max_cpu} % of a CPU"
    )
    low, high = text.seconds(float(took.min())), text.seconds(float(took.max()))
    yield (
        f"The advisor's target of {text.seconds(target)} per pass is out of reach or not reached yet: in the "
        f"last half of the time, passes take {text.seconds(mean)} on average ({low} to {high}); {why}."
    )
