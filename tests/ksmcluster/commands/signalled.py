"""Commands that get signals at a moment of their run, and what is wrong with how they end.

Long form: `python -m tests.ksmcluster.commands.signalled [RUNS [SEED]]` (`make signals`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAYS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
#: A line of the progress display that an undisturbed run may not have: SIGTERM causes one more checkpoint.
CHECKPOINT = "checkpoint after pass 1: 1 KiB in 1 ms"
#: Each process of a run has it in its environment.
_MARK = "KSMCLUSTER_SIGNALLED"
#: Signals that come so soon after one another may change places.
_SIMULTANEOUS = 0.05
#: Seconds within which a signal ends a command, and within which nothing is left of it.
_LIMIT, _GONE = 10.0, 5.0


@dataclass(frozen=True)
class Case:
    """A command. `{out}` in its arguments is where it writes to, `{given}` a directory with what it reads."""

    arguments: str
    #: What writes the inputs, run once.
    prepare: tuple[str, ...] = ()
    #: Whether a process of ours is captured: `{pid}`.
    captures: bool = False
    #: Whether what has been done so far stays.
    keeps: bool = False

    @property
    def checkpoints(self) -> bool:
        return "--checkpoint" in self.arguments


SIMULATE = "simulate tiny --passes 40 --output {out}"
CASES = {
    "simulate": Case(SIMULATE),
    "checkpoint": Case(f"{SIMULATE} --checkpoint {{work}}/ckpt --checkpoint-every 10p"),
    "inline": Case(f"{SIMULATE} --engine inline"),
    "inline-checkpoint": Case(
        "simulate default --nodes 4 --passes 60 --engine inline --output {out} "
        "--checkpoint {work}/ckpt --checkpoint-every 20p"
    ),
    "resume": Case(
        "resume {given}/ckpt --output {out}",
        ("simulate tiny --passes 40 --checkpoint {given}/ckpt --checkpoint-every 9p --engine inline",),
    ),
    "compact": Case("compact --nodes 2 --output {out}"),
    "sweep": Case(
        "sweep tiny --vary ksm.pages_to_scan=50,100,200,400,800,1600 --passes 200 --jobs 2 --output {out}",
        keeps=True,
    ),
    "replay": Case("replay tests/scenarios/selftests --engine ray"),
    "capture": Case("capture --pid {pid} --output {out}", captures=True),
    "report": Case(
        "report {given}/run --output {work}/out.html", ("simulate tiny --engine inline --output {given}/run",)
    ),
    "bench": Case("bench pass --pages 4096 --repeat 1"),
    "config": Case("config show default"),
}


@dataclass(frozen=True)
class Moment:
    """A signal, the seconds after the start at which it comes, and whether the whole group gets it."""

    seconds: float
    number: signal.Signals
    whole_group: bool = False


@dataclass
class Ended:
    """How a run ended: seconds it took to end, and all that is wrong with it."""

    kind: str
    seconds: float
    line: str
    faults: list[str] = field(default_factory=list)


class Target:
    """A command, its inputs, and how it runs when nothing disturbs it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.case = CASES[name]
        self._given = folder / f"{name}.given"
        self._given.mkdir()
        for command in self.case.prepare:
            subprocess.run(self._command(command, folder), check=True, capture_output=True)
        self._shapes: frozenset[str] = frozenset()
        self._files: frozenset[str] = frozenset()
        self.seconds = 0.0
        with self._started() as (process, work, errors):
            start = time.monotonic()
            assert process.wait() == 0, errors.read_text()
            self.seconds = time.monotonic() - start
            shown = [*errors.read_text().splitlines(), CHECKPOINT]
            self._shapes = frozenset(map(_shape, shown))
            self._files = _files(work)

    def _command(self, text: str, work: Path, pid: int = 0) -> list[str]:
        script = Path(sys.executable).with_name("ksmcluster")
        words = text.format(out=work / "out", work=work, given=self._given, pid=pid).split()
        return [str(script), *words]

    @contextmanager
    def _started(self) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
        """Start the command in a directory and a session of its own, its Ray in one that is as short."""
        mark = secrets.token_hex(8)
        # Not pytest's directory: names of sockets must be short.
        work = Path(tempfile.mkdtemp(prefix="ksm"))
        (work / "w").mkdir()
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        sleeper = subprocess.Popen(["sleep", "600"]) if self.case.captures else None
        errors = work / "errors"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                self._command(self.case.arguments, work / "w", sleeper.pid if sleeper else 0),
                env=own | {"RAY_TMPDIR": str(work), _MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        self.mark = mark
        try:
            yield process, work / "w", errors
        finally:
            for pid in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            if sleeper:
                sleeper.kill()
                sleeper.wait()
            shutil.rmtree(work, ignore_errors=True)

    def run(self, moments: Sequence[Moment]) -> Ended:
        """Run the command, send it the signals, and look at how it ends."""
        with self._started() as (process, work, errors):
            start, sent, ready = time.monotonic(), [], True
            for moment in moments:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, start + moment.seconds - time.monotonic()))
                if process.returncode is not None:
                    break
                ready = ready and _is_ready(process.pid, moment.number)
                sent.append((time.monotonic(), moment.number))
                (os.killpg if moment.whole_group else os.kill)(process.pid, moment.number)
            first = sent[0][0] if sent else time.monotonic()
            try:
                process.wait(_LIMIT if sent else None)
            except subprocess.TimeoutExpired:
                return Ended("hung", _LIMIT, "", [f"not ended after {_LIMIT:g} s"])
            ended = Ended("", time.monotonic() - first, "")
            told = errors.read_text()
            if not sent or process.returncode == 0:
                ended.kind = "ended before"
                self._check_complete(ended, process.returncode, work)
            elif not ready:
                ended.kind = "too early"  # Python had run nothing of ours
            else:
                ended.kind = "ended by it"
                self._check_end(ended, process.returncode, told, sent)
            self._check_left(ended, work)
            if self.case.checkpoints and ended.kind == "ended by it":
                _check_checkpoint(ended, work / "ckpt")
            return ended

    def _check_complete(self, ended: Ended, code: int, work: Path) -> None:
        if code != 0:
            ended.faults.append(f"exit code {code} without a signal")
        if _files(work) != self._files:
            ended.faults.append("it has ended well, and its output is not complete")

    def _check_end(
        self, ended: Ended, code: int, told: str, sent: list[tuple[float, signal.Signals]]
    ) -> None:
        able = {number for at, number in sent if at <= sent[0][0] + _SIMULTANEOUS}
        if code not in {128 + number for number in able}:
            ended.faults.append(f"exit code {code}")
        others = [line for line in told.splitlines() if _shape(line) not in self._shapes]
        ended.line = others[-1] if others else ""
        words = {SAYS[number] for number in able if code == 128 + number}
        if len(others) != 1 or ended.line.partition(";")[0] not in words:
            ended.faults.append(f"it says {others}")

    def _check_left(self, ended: Ended, work: Path) -> None:
        deadline = time.monotonic() + _GONE
        while (left := marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            ended.faults.append(f"processes are left: {[_title(pid) for pid in left]}")
        # A sweep keeps the runs that are done.
        if not self.case.keeps and (found := _files(work)) not in (frozenset(), self._files):
            ended.faults.append(f"half an output: {sorted(found)}")
        if (ckpt := work / "ckpt").is_dir() and (half := [p.name for p in ckpt.glob(".*")]):
            ended.faults.append(f"half a checkpoint: {half}")


def _check_checkpoint(ended: Ended, directory: Path) -> None:
    """What the line says of the last checkpoint must be so."""
    said = re.search(r"checkpoint after pass (\d+); continue with ksmcluster resume ", ended.line)
    passes = [int(path.name[5:]) for path in directory.glob("step-*")] if directory.is_dir() else []
    if max(passes, default=0) != (int(said[1]) if said else 0):
        ended.faults.append(f'checkpoints after {passes}, and it says "{ended.line}"')


def marked(mark: str) -> list[int]:
    """Return the processes with this mark that have not ended."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:80].decode(errors="replace")
    return "?"


def _is_ready(pid: int, number: signal.Signals) -> bool:
    """Return whether the command has a handler; of SIGINT, Python has one before."""
    number = signal.SIGTERM if number == signal.SIGINT else number
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        masks = dict(re.findall(r"Sig(Cgt|Ign):\s*(\w+)", status))
        return any(int(mask, 16) >> (number - 1) & 1 for mask in masks.values())
    return True


def _shape(line: str) -> str:
    """A line without its numbers and units, which differ from run to run."""
    return re.sub(r"\d[\d,.]*( (bytes|[KMGT]iB|m?s|us|min|ms))?", "#", line)


def _files(work: Path) -> frozenset[str]:
    """Return what a command has written beside checkpoints, by path."""
    paths = {str(path.relative_to(work)) for path in work.rglob("*")}
    return frozenset(path for path in paths if not path.startswith("ckpt"))


def moments(rng: Random, seconds: float) -> list[Moment]:
    """One signal or two, at a moment of the run or just after its end."""
    step = rng.randrange(max(int(seconds * 105), 1))
    first = Moment(step / 100, rng.choice(SIGNALS), rng.random() < 0.4)
    if rng.random() < 0.5:
        return [first]
    gap = rng.choice([0.0, 0.001, 0.01, 0.1, 0.3, 0.6, 1.0])
    return [first, Moment(first.seconds + gap, rng.choice(SIGNALS), rng.random() < 0.4)]


def main(runs: int, seed: int, names: Sequence[str]) -> int:
    """Print each run that ended wrongly, and how many of each kind there were; return how many were wrong."""
    rng, kinds, wrong, slowest = Random(seed), Counter[str](), 0, 0.0
    with tempfile.TemporaryDirectory(prefix="ksm") as folder:
        targets: dict[str, Target] = {}
        for number in range(runs):
            name = names[number % len(names)]
            if name not in targets:
                targets[name] = Target(name, Path(folder))
            sent = moments(rng, targets[name].seconds)
            ended = targets[name].run(sent)
            kinds[f"{name}: {ended.kind}"] += 1
            slowest = max(slowest, ended.seconds if ended.kind != "ended before" else 0.0)
            wrong += bool(ended.faults)
            shown = [f"{m.number.name}{'*' * m.whole_group}@{m.seconds:.3f}" for m in sent]
            print(
                number,
                name,
                *shown,
                ended.kind,
                f"{ended.seconds:.2f}",
                ended.line,
                *ended.faults,
                flush=True,
            )
    print(json.dumps(dict(sorted(kinds.items())), indent=1))
    print(f"{runs} runs, {wrong} wrong, slowest end {slowest:.1f} s")
    return wrong


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:3]]
    sys.exit(bool(main(*[*numbers, *(150, 1)[len(numbers) :]], names=sys.argv[3:] or list(CASES))))
