"""The time of each pass of a script: modelled, and of this host's ksmd at its default pace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cluster.machine.clock import Clock
from cluster.machine.replay.script_engine import ScriptEngine, spec_for
from cluster.script.record import Json
from cluster.spec.profile import Profile
from cluster.spec.scenario import CostSpec, KsmSpec
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import WHOLE_PASS, Ksmd

#: Default settings of a host.
_KNOBS = KsmSpec()
#: If ksmd scans nothing for this many seconds, it has nothing to scan.
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class PassTime:
    """The time of one pass, without the sleep after its last page."""

    pages: int
    cpu_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TimeComparison:
    """The time of one pass on both sides."""

    predicted: PassTime
    real: PassTime

    def as_json(self) -> Json:
        """Return the times as JSON data."""
        return {
            "pages": self.real.pages,
            "predicted_cpu_seconds": self.predicted.cpu_seconds,
            "real_cpu_seconds": self.real.cpu_seconds,
            "predicted_seconds": self.predicted.seconds,
            "real_seconds": self.real.seconds,
        }


class TimedEngine(ScriptEngine):
    """Records the simulated time of each pass."""

    def __init__(self, profile: Profile, cost: CostSpec, hz: int) -> None:
        super().__init__(profile)
        spec = spec_for(profile, 1)
        self._clock = Clock(replace(spec, cost=cost, ksm=replace(spec.ksm, hz=hz)))
        self.times: list[PassTime] = []

    def scan(self) -> bool:
        clock = self._clock
        before, cpu_ns = self._machine.collect(), clock.cpu_ns.sum()
        clock.columns = before
        if not super().scan():
            return False
        clock.advance(self._machine.collect(), ended=True)
        took = float(clock.cpu_ns.sum() - cpu_ns)
        pages = int((clock.columns["pages_scanned"] - before["pages_scanned"]).sum())
        self.times.append(PassTime(pages, took * 1e-9, clock.pass_seconds()))
        clock.end_pass(round(took))
        return True


class PacedKsmd(Ksmd):
    """Lets ksmd work and sleep at its default pace, and records the time of each whole pass."""

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self.times: list[PassTime] = []

    def step(self, pages: int) -> None:
        if pages != WHOLE_PASS:
            super().step(pages)
            return
        self.drain()
        number, start = self._knobs.number, time.monotonic()
        scans, scanned, cpu = number("full_scans"), number("pages_scanned"), self.cpu_seconds()

        def ended() -> bool:
            idle = time.monotonic() > start + _PATIENCE and number("pages_scanned") == scanned
            return number("full_scans") > scans or idle

        seconds = self.run_until(ended, _KNOBS.pages_to_scan, _KNOBS.sleep_millisecs)
        if number("full_scans") > scans:
            visited = number("pages_scanned") - scanned
            self.times.append(PassTime(visited, self.cpu_seconds() - cpu, seconds))


def side_by_side(predicted: list[PassTime], real: list[PassTime]) -> Iterator[TimeComparison]:
    """Yield both times of each pass, for the passes that both sides have."""
    for ours, theirs in zip(predicted, real, strict=False):
        yield TimeComparison(ours, theirs)
