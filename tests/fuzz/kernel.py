"""`python -m tests.fuzz.kernel`: random scripts on the exact machine and on the real KSM of this host.

Needs root, and a host on which nothing else uses KSM. A seed draws a chunk of scripts, always the same ones.
A script that differs runs twice more, since something else on the host may have held one of its pages. Ends
at the first script that differs each time, and prints it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, seed, settings

from ksmcluster.validate.comparison import Comparison
from ksmcluster.validate.session import validate
from tests.cluster.machine.scripts import ACTIONS, PINNING, Script, scripts

CHUNK = 50
TRIES = 3
#: What `validate` cannot do: swap, nodes, and to merge the memory of Python itself.
_NOT_HERE = {"move", "pageout", "merge_any"}
_ACTIONS = tuple(action for action in ACTIONS + PINNING if action not in _NOT_HERE)


def drawn(number: int) -> list[str]:
    """Return the scripts of a seed, without nodes."""
    found: dict[str, None] = {}

    @seed(number)
    @settings(
        max_examples=CHUNK,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(scripts(_ACTIONS))
    def collect(script: Script) -> None:
        found[re.sub(r"(map .*) node \d+", r"\1", script.text)] = None

    collect()
    return list(found)


def compared(script: Path) -> tuple[Comparison, bool]:
    """Return the first comparison that is equal, else the last one, and whether it is."""
    for _ in range(TRIES):
        comparison = validate(script, "exact")
        if not comparison.differing():
            return comparison, True
    return comparison, False


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz-kernel", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="scripts that must be equal")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first chunk")
    options = parser.parse_args()
    done, values, number = 0, 0, options.seed
    with TemporaryDirectory() as folder:
        script = Path(folder) / "script.scn"
        while done < options.count:
            for text in drawn(number):
                script.write_text(text)
                comparison, equal = compared(script)
                if not equal:
                    differences = [line for step in comparison.steps for line in step.differences()]
                    raise SystemExit("\n".join([f"seed {number} differs:", text, *differences]))
                done, values = done + 1, values + comparison.compared()
            print(f"seed {number}: equal, {done} scripts, {values:,} values so far", flush=True)
            number += 1


if __name__ == "__main__":
    main()
