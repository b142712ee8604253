"""A calibration: programs are simulated and run on the host until the time is up; then terms are fitted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cluster.spec.compaction import MigrationCostSpec
from cluster.spec.scenario import CostSpec
from ksmcluster.system.errors import UserError
from ksmcluster.system.host_memory import available
from ksmcluster.system.kernel_files import KSM
from ksmcluster.validate.access import check_permission, check_unused
from ksmcluster.validate.calibrate.fit import Fit, FittedTerm, estimate, fit
from ksmcluster.validate.calibrate.mappings import cow_fault_ns, mapping_ns
from ksmcluster.validate.calibrate.measure import Measurement, Sample, joined, measured, simulated
from ksmcluster.validate.calibrate.programs import programs
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.session import host_profile, left_as_found

#: Pages of the largest program.
LARGEST = 65536
#: No repetition begins that would end after this many seconds.
SECONDS = 50.0
#: Memory that the programs and their monitoring need.
_MEMORY = 1 << 30


class Calibration(NamedTuple):
    """The machine, the measurements and the fitted terms."""

    kernel: str
    cpu: str
    repetitions: int
    measurements: tuple[Measurement, ...]
    fit: Fit
    #: Time per mapping to move a KSM frame, of `[migration.cost]`.
    mapping: FittedTerm


def calibrate(
    tell: Callable[[str], None],
    largest: int = LARGEST,
    seconds: float = SECONDS,
    folder: Path = KSM,
) -> Calibration:
    """Measure ksmd's CPU time on this host, and restore all KSM settings.

    Raises UserError if KSM is not available, or if another program uses it meanwhile.
    """
    check_permission(folder)
    knobs, release = Knobs(folder), os.uname().release
    profile = host_profile(release)
    if available() < _MEMORY:
        raise UserError("less than 1 GiB of memory is available; end other programs first")
    chosen = list(programs(largest))
    works = [simulated(program, profile) for program in chosen]
    repetitions: list[list[list[Sample]]] = []
    cow_faults: list[float] = []
    mappings: list[float] = []
    with knobs.locked():
        check_unused(knobs)
        begin = last = time.monotonic()
        longest = 0.0
        with left_as_found(knobs):
            while not repetitions or last + longest < begin + seconds:
                tell(f"repetition {len(repetitions) + 1}")
                repetitions.append([measured(program, profile, knobs) for program in chosen])
                cow_faults += cow_fault_ns(profile, knobs)
                mappings += mapping_ns(profile, knobs)
                longest = max(longest, time.monotonic() - last)
                last = time.monotonic()
    measurements = [
        measurement
        for i, work in enumerate(works)
        for measurement in joined(work, [repetition[i] for repetition in repetitions])
    ]
    cow_fault = estimate("cow_fault", CostSpec().cow_fault, cow_faults)
    mapping = estimate("mapping", MigrationCostSpec().mapping, mappings)
    found = fit(measurements, cow_fault)
    return Calibration(release, _cpu(), len(repetitions), tuple(measurements), found, mapping)


def _cpu() -> str:
    """Return the name of this host's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return os.uname().machine
