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
from actors.checkpoint.state_files import DamagedError, SavedFile, UnwritableError
from cluster.checkpoint.encode import EncodeError
from cluster.machine.pass_result import CheckpointDamaged, CheckpointFailed, CheckpointWritten, Event
from cluster.spec.errors import SimulationError

_INTERVAL = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhp])", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Interval:
    """The time between checkpoints: seconds on the host's clock, or steps: passes, or rounds of `compact`."""

    seconds: float = math.inf
    steps: int | None = None

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Return the interval that a text says: "90s", "10m", "2h", or "5p" for steps.

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
            return cls(steps=int(number))
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
        #: Damaged checkpoints by folder, and how many of them were told of.
        self._damaged: dict[Path, DamagedError] = {}
        self._told = 0

    def latest(self, on_event: Callable[[Event], None]) -> Checkpoint | None:
        """Return the last checkpoint that is not known to be damaged, None if there is none.

        Tells of damaged ones. Raises DamagedError if all are.
        """
        found = latest(self._directory, self._damaged)
        for error in [*self._damaged.values()][self._told :]:
            on_event(CheckpointDamaged(str(error)))
        self._told = len(self._damaged)
        return found

    def pass_over(self, checkpoint: Checkpoint, error: DamagedError) -> None:
        """Note that a checkpoint is damaged, so that the one before it is the last."""
        self._damaged[checkpoint.folder] = error

    def is_due(self, steps: int) -> bool:
        """Return whether a checkpoint is due after this number of steps."""
        if self._is_ending():
            return True
        if self._interval.steps is not None:
            return steps % self._interval.steps == 0
        return time.monotonic() >= self._written + self._interval.seconds

    def write(
        self, steps: int, save: Callable[[Path], list[SavedFile]], on_event: Callable[[Event], None]
    ) -> None:
        """Write a checkpoint after this number of steps. `save` writes the run's state into a folder.

        If it cannot be written, that is told, and the run goes on; the earlier ones stay.
        """
        start = time.monotonic()
        try:
            with new_checkpoint(self._directory, steps, self._run) as (folder, files):
                files += save(folder)
        except (EncodeError, UnwritableError) as error:
            on_event(CheckpointFailed(str(error)))
            if isinstance(error, EncodeError):
                # Nor could later ones be written.
                self._interval = Interval()
        else:
            size = sum(file.size for file in files)
            on_event(CheckpointWritten(steps, size, time.monotonic() - start))
            self._damaged, self._told = {}, 0
        self._written = time.monotonic()
