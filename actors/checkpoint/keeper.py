"""When a run writes checkpoints, and what it goes on from."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.checkpoint.directory import Checkpoint, latest, new_checkpoint
from actors.checkpoint.state_files import SavedFile, write_state
from cluster.checkpoint.encode import encode
from cluster.checkpoint.restore import decode
from cluster.machine.pass_result import PassResult
from cluster.spec.errors import SimulationError
from cluster.spec.scenario import SimulationSpec

_PASSES = "passes"
_INTERVAL = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhp])", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Interval:
    """The time between checkpoints: seconds on the host's clock, or passes."""

    seconds: float = math.inf
    passes: int | None = None

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Return the interval that a text says: "90s", "10m", "2h", or "5p" for passes.

        Raises SimulationError if it says none.
        """
        found = _INTERVAL.fullmatch(text)
        if found is None or float(found[1]) == 0:
            raise SimulationError(
                f"--checkpoint-every {text}: give a time such as 10m, 90s or 2h, or passes as in 5p"
            )
        number, unit = found[1], found[2]
        if unit == "p":
            if not number.isdigit():
                raise SimulationError(f"--checkpoint-every {text}: give whole passes, such as 5p")
            return cls(passes=int(number))
        return cls(seconds=float(number) * _SECONDS[unit])


class CheckpointKeeper:
    """Writes the checkpoints of one run, and knows its last one.

    Time runs from one checkpoint to the next; a checkpoint takes little of it.
    """

    def __init__(
        self,
        directory: Path,
        run: Mapping[str, Any],
        interval: Interval,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take an existing directory; `run` is what the manifests say of the run, as JSON.

        `is_ending` returns whether the run is to end soon: then a checkpoint is due at once.
        """
        self._directory = directory
        self._run = run
        self._interval = interval
        self._is_ending = is_ending
        self._written = time.monotonic()

    def latest(self) -> Checkpoint | None:
        """Return the last checkpoint, None if there is none. Raises DamagedError."""
        return latest(self._directory)

    def is_due(self, passes: int) -> bool:
        """Return whether a checkpoint is due after so many passes."""
        if self._is_ending():
            return True
        if self._interval.passes is not None:
            return passes % self._interval.passes == 0
        return time.monotonic() >= self._written + (self._interval.seconds)

    def write(
        self, done: list[PassResult], spec: SimulationSpec, save: Callable[[Path], list[SavedFile]]
    ) -> int:
        """Write a checkpoint after these passes; return its bytes. `save` writes the run's state.

        Raises UnwritableError if it cannot be written; the earlier ones stay.
        """
        with new_checkpoint(self._directory, len(done), self._run) as (folder, files):
            files += write_state(folder, _PASSES, encode(done, {"spec": spec}))
            files += save(folder)
        self._written = time.monotonic()
        return sum(file.size for file in files)


def passes_of(checkpoint: Checkpoint, spec: SimulationSpec) -> list[PassResult]:
    """Return the results of the passes before a checkpoint."""
    done: list[PassResult] = decode(checkpoint.read(_PASSES), {"spec": spec})
    return done
