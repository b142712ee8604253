"""`python -m tests.chaos`: disturb runs until there were enough disturbances, and say which ended right."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from random import Random

from tests.chaos.commands import scenario, simulate
from tests.chaos.disturbances import KINDS, ON_CLUSTER, Trial
from tests.chaos.three_machines import ThreeMachines, three_machines


def main() -> int:
    """Return 1 if a run ended otherwise than the undisturbed one."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="disturbances of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of: %(default)s")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--passes", type=int, default=40, help="passes of a run")
    parser.add_argument("--folder", type=Path, help="where runs that failed stay; by default a new one")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(exist_ok=True)
    print(f"seed {options.seed}, {folder}", flush=True)
    rng = Random(options.seed)
    arguments = scenario(options.passes)
    simulate([*arguments, "--engine", "inline"], folder / "undisturbed")
    seconds = simulate([*arguments, "--nodes-per-actor", "2"], folder / "on-ray")
    print(f"an undisturbed run on Ray takes {seconds:.0f} s", flush=True)
    done: Counter[str] = Counter()
    failed = 0
    with ExitStack() as stack:
        cluster: ThreeMachines | None = None
        for kind in options.kinds.split(","):
            if kind in ON_CLUSTER and cluster is None:
                cluster = stack.enter_context(three_machines())
            while done[kind] < options.count:
                trial = Trial(
                    arguments,
                    seconds,
                    folder / "undisturbed" / "output",
                    folder / f"{kind}-{done[kind]}-{rng.getrandbits(32):08x}",
                    rng,
                    cluster if kind in ON_CLUSTER else None,
                )
                start = time.monotonic()
                outcome = KINDS[kind](trial)
                took = time.monotonic() - start
                done[kind] += outcome.disturbed
                failed += bool(outcome.wrong)
                what = f"WRONG: {outcome.wrong} ({trial.folder})" if outcome.wrong else "right"
                print(f"{kind}: {outcome.disturbed} in {took:.0f} s, {what}", flush=True)
    print(f"{dict(done)}: {failed} runs went wrong", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # Machines and namespaces go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
