"""Signals at any moment of a command: a line, an exit code, and nothing left.

The short form; `make signals` has many more moments, and all commands.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from random import Random

import pytest

from .signalled import SAYS, SIGNALS, Target, moments

#: A command in whose midst something happens.
PROGRAM = """
import sys
sys.argv[0] = "ksmcluster"
import ctypes, subprocess, time
from ksmcluster.system import signals

def ready():
    print("ready", flush=True)

class Slow:
    def __del__(self):
        ready()
        time.sleep(60)

assert signals.IS_COMMAND
signals._LIMIT = 2.0
with signals.unwound_by_signals():
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


@pytest.fixture(scope="module", params=["config", "inline", "inline-checkpoint", "simulate"])
def target(request: pytest.FixtureRequest, folder: Path) -> Target:
    return Target(request.param, folder)


def test_any_moment(target: Target) -> None:
    rng = Random(5)
    for _ in range(3):
        sent = moments(rng, target.seconds)
        assert target.run(sent).faults == [], sent


@pytest.mark.parametrize("engine", ["inline", "ray"])
@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGTERM, r"terminated; checkpoint after pass (\d+); continue with ksmcluster resume .*ckpt"),
        (signal.SIGHUP, "hung up; no checkpoint yet"),
    ],
)
def test_sigterm_leaves_a_checkpoint_of_the_pass_under_way(
    tmp_path: Path, number: signal.Signals, line: str, engine: str
) -> None:
    ckpt = tmp_path / "ckpt"
    options = ["--engine", engine, "--passes", "1000000", "--checkpoint", ckpt]
    process = subprocess.Popen(
        [sys.executable, "-m", "ksmcluster", "simulate", "tiny", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    while not process.stderr.readline().startswith("pass 2 "):
        assert process.poll() is None
    # As a terminal does; Ray's own processes have other groups.
    os.killpg(process.pid, number)
    last = process.stderr.read().splitlines()[-1]
    assert process.wait() == 128 + number
    said = re.fullmatch(line, last)
    assert said, last
    assert [path.name for path in ckpt.iterdir()] == [f"step-{int(passes):06}" for passes in said.groups()]


def ended(program: str, *numbers: signal.Signals) -> tuple[int, str]:
    """Send the signals to a program when it is ready; return its exit code and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + textwrap.indent(textwrap.dedent(program), "    ")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors
    finally:
        process.kill()


SWALLOWED = {
    "destructor": "Slow()",
    "except": """
        try:
            ready()
            time.sleep(60)
        except BaseException:
            pass
        """,
}


@pytest.mark.parametrize("program", SWALLOWED.values(), ids=SWALLOWED)
@pytest.mark.parametrize("number", SIGNALS)
def test_what_a_library_swallows_is_raised_again(program: str, number: signal.Signals) -> None:
    program = textwrap.dedent(program) + "\ntime.sleep(60)\nprint('not reached', file=sys.stderr)"
    assert ended(program, number) == (128 + number, f"{SAYS[number]}\n")


def test_the_end_comes_while_the_main_thread_is_stuck_in_c() -> None:
    """As in Ray: a mutex that is locked already; what was started is ended, too."""
    program = """
        child = subprocess.Popen(["sleep", "61.25"])
        mutex = ctypes.create_string_buffer(64)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
        ready()
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
        """
    assert ended(program, signal.SIGTERM) == (143, "terminated\n")
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert b"sleep\x0061.25\0" not in lines


def test_whoever_is_impatient_need_not_wait_for_what_is_undone() -> None:
    program = """
        try:
            ready()
            time.sleep(60)
        finally:
            time.sleep(60)
        """
    assert ended(program, signal.SIGHUP) == (129, "hung up\n")
    code, errors = ended(program, signal.SIGHUP, signal.SIGTERM)
    assert errors == f"{ {129: 'hung up', 143: 'terminated'}[code] }\n"


def test_what_others_depend_on_is_undone_first() -> None:
    program = """
        with signals.undisturbed():
            try:
                ready()
                time.sleep(60)
            finally:
                time.sleep(3)
                print("undone", file=sys.stderr)
        """
    code, errors = ended(program, signal.SIGINT, signal.SIGTERM)
    assert (code, errors) in [(130, "undone\ninterrupted\n"), (143, "undone\nterminated\n")]


def test_the_main_thread_is_woken_if_another_thread_took_the_signal() -> None:
    program = """
        import signal, threading
        with signals.undisturbed():
            try:
                ready()
                take = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
                threading.Timer(0.5, take).start()
                time.sleep(60)
            finally:
                print("undone", file=sys.stderr)
        """
    assert ended(program) == (143, "undone\nterminated\n")
