"""`python -m tests.fuzz.engines`: random scripts with huge pages on the exact and the vectorised machine.

A seed draws a chunk of scripts, always the same ones. Chunks with odd seeds are also compared without the
shapes of trees. Ends at the first difference or error, with the smallest script that shows it.

With --life, scripts have exec, memory failure and soft offline. Odd seeds draw some without huge pages then.
"""

from __future__ import annotations

import argparse

from hypothesis import HealthCheck, given, seed, settings

from cluster.mm.page_table import PageTable
from cluster.wire.mailbox import Outbox
from tests.cluster.machine.engines import difference
from tests.cluster.machine.huge_scripts import huge_scripts
from tests.cluster.machine.scripts import Script, life_scripts

CHUNK = 100


def compare_chunk(number: int, *, life: bool) -> int:
    """Compare the scripts of a seed; return how many there were."""
    compared: set[Script] = set()
    quiet = number % 2 == 1
    scripts = huge_scripts(quiet=quiet)
    if life:
        scripts = life_scripts() if quiet else huge_scripts(life=True)

    @seed(number)
    @settings(max_examples=CHUNK, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(scripts)
    def compare(script: Script) -> None:
        assert difference(script) is None
        assert not quiet or difference(script, tree_shape=False) is None
        compared.add(script)

    compare()
    return len(compared)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz-engines", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="scripts that must be equal")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first chunk")
    parser.add_argument("--life", action="store_true", help="exec, memory failure and soft offline")
    options = parser.parse_args()
    # As in the tests.
    PageTable.validating = Outbox.check = True
    done, number = 0, options.seed
    while done < options.count:
        done += compare_chunk(number, life=options.life)
        print(f"seed {number}: equal, {done} scripts so far", flush=True)
        number += 1


if __name__ == "__main__":
    main()
