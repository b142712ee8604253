"""`python -m tests.chaos`: disturb runs until there were enough disturbances, and say which ended right."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

from tests.chaos.commands import SCENARIOS, scenario, undisturbed
from tests.chaos.disturbances import COMMANDS, KINDS, ON_CLUSTER, Trial
from tests.chaos.three_machines import ThreeMachines, three_machines


def main() -> int:
    """Return 1 if a run ended otherwise than the undisturbed one."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "--count", type=int, default=20, help="disturbances of each kind (of command: half more)"
    )
    parser.add_argument("--kinds", default=",".join(KINDS), help="of: %(default)s")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--passes", type=int, default=20, help="passes of a run, and 4 MiB a node of `compact`"
    )
    parser.add_argument("--most", type=int, default=3, help="disturbances of one run, at most")
    parser.add_argument(
        "--folder", type=Path, help="where runs that failed stay, and undisturbed ones for the next call"
    )
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(exist_ok=True)
    print(f"seed {options.seed}, {folder}", flush=True)
    rng = Random(options.seed)
    seconds = {command: _prepared(command, options.passes, folder) for command in SCENARIOS}
    done, failed = dict.fromkeys(options.kinds.split(","), 0), 0
    with ExitStack() as stack:
        cluster: ThreeMachines | None = None
        for kind in done:
            if kind in ON_CLUSTER and cluster is None:
                cluster = stack.enter_context(three_machines())
            wanted = options.count * 3 // 2 if kind == "command" else options.count
            while done[kind] < wanted:
                command = rng.choice(COMMANDS.get(kind, ["simulate"]))
                trial = Trial(
                    scenario(command, options.passes),
                    seconds[command],
                    folder / command / "output",
                    folder / f"{kind}-{command}-{rng.getrandbits(32):08x}",
                    rng,
                    cluster if kind in ON_CLUSTER else None,
                    options.most,
                )
                start = time.monotonic()
                outcome = KINDS[kind](trial)
                took = time.monotonic() - start
                done[kind] += outcome.disturbed
                failed += bool(outcome.wrong)
                what = f"WRONG: {outcome.wrong} ({trial.folder})" if outcome.wrong else "right"
                print(f"{kind}, {command}: {outcome.disturbed} in {took:.0f} s, {what}", flush=True)
    print(f"{done}: {failed} runs went wrong", flush=True)
    return 1 if failed else 0


def _prepared(command: str, passes: int, folder: Path) -> float:
    """Make the undisturbed output of a command, if it is not there; return how long a run on Ray takes."""
    time_file = folder / f"{command}.seconds"
    if not time_file.exists():
        arguments = scenario(command, passes)
        undisturbed([*arguments, "--engine", "inline"], folder / command)
        start = time.monotonic()
        undisturbed([*arguments, "--nodes-per-actor", "2"], folder / f"{command}-on-ray")
        time_file.write_text(f"{time.monotonic() - start:.1f}")
    seconds = float(time_file.read_text())
    print(f"an undisturbed run of {command} on Ray takes {seconds:.0f} s", flush=True)
    return seconds


if __name__ == "__main__":
    # Machines and namespaces go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
