"""Simulate kernel samepage merging and movable-page migration on large NUMA machines.

>>> import ksmcluster
>>> result = ksmcluster.simulate("tiny", engine="inline")
>>> print(result)
>>> eight_nodes = ksmcluster.load("default", ksmcluster.Overrides(nodes=8))
>>> ksmcluster.simulate(eight_nodes).save("results/eight-nodes")
"""

from ksmcluster.system import signals

if signals.IS_COMMAND:  # before all other imports: a signal may come at any moment
    from ksmcluster.system.streams import open_missing

    open_missing()
    signals.install()

from importlib import import_module
from typing import TYPE_CHECKING

from ksmcluster.system.own_packages import check_own_packages
from ksmcluster.system.version import __version__ as __version__

check_own_packages()

import actors  # noqa: E402, F401 (before numpy: it chooses numpy's sort)

if TYPE_CHECKING:
    from actors.run_options import RunOptions
    from ksmcluster.api import compact, resume, simulate
    from ksmcluster.config import Overrides, Scenario, load, load_compaction
    from ksmcluster.experiments.comparing import Comparisons, compare
    from ksmcluster.experiments.sweeps.sweep import sweep
    from ksmcluster.experiments.sweeps.sweep_result import SweepResult, load_sweep
    from ksmcluster.results.compaction.compaction_result import CompactionResult
    from ksmcluster.results.loading import load_result
    from ksmcluster.results.result import Result
    from ksmcluster.system.errors import RunFailedError, UserError


__all__ = [
    "CompactionResult",
    "Comparisons",
    "Overrides",
    "Result",
    "RunFailedError",
    "RunOptions",
    "Scenario",
    "SweepResult",
    "UserError",
    "compact",
    "compare",
    "load",
    "load_compaction",
    "load_result",
    "load_sweep",
    "resume",
    "simulate",
    "sweep",
]

#: Imported when first used: `ksmcluster --version` needs none of it.
_HOMES = {
    "simulate": "ksmcluster.api",
    "resume": "ksmcluster.api",
    "load_result": "ksmcluster.results.loading",
    "load_sweep": "ksmcluster.experiments.sweeps.sweep_result",
    "sweep": "ksmcluster.experiments.sweeps.sweep",
    "SweepResult": "ksmcluster.experiments.sweeps.sweep_result",
    "compact": "ksmcluster.api",
    "compare": "ksmcluster.experiments.comparing",
    "Comparisons": "ksmcluster.experiments.comparing",
    "CompactionResult": "ksmcluster.results.compaction.compaction_result",
    "load_compaction": "ksmcluster.config",
    "load": "ksmcluster.config",
    "Overrides": "ksmcluster.config",
    "Scenario": "ksmcluster.config",
    "UserError": "ksmcluster.system.errors",
    "RunFailedError": "ksmcluster.system.errors",
    "Result": "ksmcluster.results.result",
    "RunOptions": "actors.run_options",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
