"""Runs a script on the simulator and on the host, and restores the host."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cluster.script.operations import ForkOp, ProcOp
from cluster.script.parser import Script, ScriptError
from cluster.script.record import Json
from cluster.script.runner import ScriptTopology, run
from cluster.spec.profile import Profile, profile_of_release
from cluster.spec.scenario import CostSpec
from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import KSM
from ksmcluster.system.signals import heeded, undisturbed
from ksmcluster.system.timer import kernel_hz
from ksmcluster.validate import script
from ksmcluster.validate.access import check_permission, check_unused
from ksmcluster.validate.children import Children
from ksmcluster.validate.comparison import Comparison, steps
from ksmcluster.validate.host import HostMachine
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import Ksmd
from ksmcluster.validate.replay import ReplayTarget
from ksmcluster.validate.timing import PacedKsmd, PassTime, TimedEngine, side_by_side

_NODES = Path("/sys/devices/system/node")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PRUNE = "stable_node_chains_prune_millisecs"
_NEVER = 10**8
_MOST_PROCESSES = 256  #: each takes three file descriptors


def validate(path: Path | None, engine: str, folder: Path = KSM, cost: CostSpec | None = None) -> Comparison:
    """Run a script, or the built-in one, on an engine and on this host.

    With a cost, the times of passes are also compared; ksmd then works at its default pace. Raises UserError
    if the script cannot run, or if the host's KSM is not available.
    """
    knobs = Knobs(folder)
    check_permission(folder)
    release = os.uname().release
    profile = host_profile(release)
    topology = ScriptTopology()
    scenario = script.load(path)
    with ReplayTarget(engine).started() as on, on.machine(profile, topology) as machine:
        settings = machine.knobs()
        try:
            script.check(scenario, settings, len(list(_NODES.glob("node[0-9]*"))))
            simulated = run(scenario, machine, topology, name="script", kernel=profile.name)
        except ScriptError as error:
            raise UserError(f"{path or 'built-in script'}:{error}") from error
    predicted = _predicted(scenario, profile, topology, cost) if cost else []
    with knobs.locked():
        check_unused(knobs)
        ksmd = PacedKsmd(knobs) if cost else Ksmd(knobs)
        real = _run_for_real(scenario, profile, topology, knobs, ksmd, _to_write(settings))
    times = list(side_by_side(predicted, ksmd.times)) if isinstance(ksmd, PacedKsmd) else []
    return Comparison(release, profile.name, engine, list(steps(simulated, real)), times)


def _predicted(
    scenario: Script, profile: Profile, topology: ScriptTopology, cost: CostSpec
) -> list[PassTime]:
    """Return the simulated times of all passes.

    Raises UserError if the tick rate is unknown.
    """
    hz = kernel_hz(os.uname().release)
    if hz is None:
        raise UserError("CONFIG_HZ of this kernel is unknown; run without --time")
    machine = TimedEngine(profile, cost, hz)
    run(scenario, machine, topology, name="script", kernel=profile.name)
    return machine.times


def _to_write(settings: Mapping[str, int | str]) -> dict[str, int | str]:
    """Return the knobs of a fresh simulated machine to write; its clock stands still, so nothing is due."""
    return {**settings, "advisor_mode": "none", _PRUNE: _NEVER}


def _run_for_real(
    scenario: Script,
    profile: Profile,
    topology: ScriptTopology,
    knobs: Knobs,
    ksmd: Ksmd,
    settings: Mapping[str, int | str],
) -> Json:
    most = sum(isinstance(op, (ProcOp, ForkOp)) for op in scenario.operations)
    if most > _MOST_PROCESSES:
        raise UserError(f"the script has {most} processes; use at most {_MOST_PROCESSES}")
    with left_as_found(knobs), Children(most) as children:
        machine = HostMachine(profile, knobs, ksmd, children)
        for name, value in settings.items():
            if knobs.exists(name):
                knobs.must_set(name, value)
        return run(scenario, machine, topology, name="script", kernel=profile.name)


def host_profile(release: str) -> Profile:
    """Return the rules of a kernel release. Raises UserError for an unknown release."""
    try:
        return profile_of_release(release)
    except ValueError as error:
        raise UserError(f"{error}; run on a newer kernel") from error


@contextmanager
def left_as_found(knobs: Knobs) -> Iterator[None]:
    """Restore all knobs at the end, even after an error, Ctrl-C, SIGTERM or SIGHUP."""
    saved = knobs.saved()
    afterwards = {number: signal.getsignal(number) for number in _SIGNALS}

    def end(number: int, _: FrameType | None) -> None:
        _ignore_signals()  # further signals must not interrupt the restoration
        afterwards.update(dict.fromkeys(_SIGNALS, signal.SIG_IGN))  # nor the end after that
        raise SystemExit(128 + number)

    try:
        for number in heeded(*_SIGNALS):
            signal.signal(number, end)
        try:
            yield
        finally:
            _ignore_signals()
    finally:
        _ignore_signals()  # again: a signal may have arrived just before the first call
        with undisturbed():
            knobs.put_back(saved)
        for number, handler in afterwards.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
