from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ksmcluster
from ksmcluster import api
from ksmcluster.cli import COMMANDS, app
from ksmcluster.commands.examples import EXAMPLES
from ksmcluster.config import Overrides, bundled_compactions, load, load_compaction
from tests.ksmcluster.conftest import Run
from tests.paths import REPOSITORY

Golden = Callable[[str, str], None]
COMMAND = [sys.executable, "-c", "from ksmcluster.cli import main; main()"]
INLINE = ("--engine", "inline", "--quiet")


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"ksmcluster {ksmcluster.__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        *("", "simulate", "compact", "sweep", "compare", "knobs", "plot", "report", "validate"),
        *("bench", "bench pass", "bench scaling", "config", "config show"),
    ],
)
def test_help(run: Run, golden: Golden, command: str) -> None:
    ran = run(*command.split(), "--help")
    assert ran.code == 0
    golden(f"help {command}".strip().replace(" ", "-") + ".txt", ran.out)


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        ("--version", {"numpy", "pyarrow", "pydantic", "ray", "rich.console"}),
        ("simulate --help", {"numpy", "pyarrow", "ray", "rich.console"}),
        ("config show tiny", {"pyarrow", "ray"}),
        ("simulate tiny --engine inline", {"ray"}),
        ("bench scaling --help", {"numpy", "pyarrow", "ray", "rich.console", "matplotlib"}),
        ("compact --help", {"numpy", "pyarrow", "ray", "rich.console"}),
        ("plot --help", {"numpy", "pyarrow", "ray", "rich.console", "matplotlib"}),
        ("report --help", {"numpy", "pyarrow", "ray", "rich.console", "matplotlib", "jinja2"}),
        ("sweep --help", {"numpy", "pyarrow", "ray", "rich.console"}),
        ("compare --help", {"numpy", "pyarrow", "ray", "rich.console"}),
        ("compact --engine inline --nodes 1", {"pyarrow", "ray"}),
    ],
)
def test_only_what_is_needed_is_imported(arguments: str, modules: set[str]) -> None:
    code = (
        "import sys, atexit; from ksmcluster.cli import main;"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True)
    assert ran.returncode == 0
    assert not modules & set(ran.stderr.split())


# config


def test_config_show(run: Run, golden: Golden) -> None:
    ran = run("config", "show", "tiny")
    assert (ran.code, ran.err) == (0, "")
    golden("config-show-tiny.toml", ran.out)


def test_config_show_with_changes(run: Run) -> None:
    arguments = "--nodes 4 --seed 7 --passes 3 --pages-per-node 100 --set ksm.max_page_sharing=16"
    shown = tomllib.loads(run("config", "show", "tiny", *arguments.split()).out)
    assert shown["machine"]["nodes"] == 4
    assert shown["simulation"]["seed"] == 7
    assert shown["simulation"]["passes"] == 3
    assert shown["ksm"]["max_page_sharing"] == 16
    assert shown["process"][0]["region"][0]["size"] == "52KiB"


@pytest.mark.parametrize("name", bundled_compactions())
def test_config_show_for_compact(run: Run, name: str) -> None:
    shown = tomllib.loads(run("config", "show", name, "--nodes", "16", "--set", "migration.order=4").out)
    assert load_compaction(shown) == load_compaction(name, Overrides(16, settings=("migration.order=4",)))
    assert shown["cost"]["copy_ns"] == 477.0


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--passes", "error: --passes: unknown key"),
        ("--pages-per-node", "error: --pages-per-node scales pro"),
    ],
)
def test_config_show_with_changes_that_compact_does_not_have(run: Run, option: str, text: str) -> None:
    ran = run("config", "show", "compaction-gpu", option, "3")
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err


@pytest.mark.parametrize(("command", "name"), [("simulate", "default"), ("compact", "compaction-zram")])
def test_the_example_of_a_setting_works(run: Run, command: str, name: str) -> None:
    example = re.search(r"as in\s+(\S+);", run(command, "--help").out)
    assert example
    assert run("config", "show", name, "--set", example[1]).code == 0


def commands(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """All commands with theirs, by name."""
    command = command or typer.main.get_command(app)
    yield name, command
    for inner in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from commands(command.get_command(None, inner), f"{name} {inner}".strip())


def test_help_ends_with_examples_that_are_understood_and_a_page(run: Run) -> None:
    parsers = dict(commands())
    assert parsers.keys() == EXAMPLES.keys()
    for name, examples in EXAMPLES.items():
        shown = run(*name.split(), "--help").out
        assert all(f"\n    ksmcluster {line}\n" in shown for line in examples.lines)
        assert shown.endswith(f"\n  See also: {examples.page}\n")
        assert (REPOSITORY / examples.page).is_file()
        for line in examples.lines:
            words = shlex.split(line)
            depth = 2 if " ".join(words[:2]) in parsers else 1
            parsers[" ".join(words[:depth])].make_context("", words[depth:])


@pytest.mark.parametrize("command", [*COMMANDS, "config show", "bench pass"])
def test_no_sub_command_installs_completion(run: Run, command: str) -> None:
    assert "completion" not in run(*command.split(), "--help").out


def test_python_m() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ksmcluster", "config", "list"], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("containers ")


def test_names_of_the_package() -> None:
    assert {*ksmcluster.__all__, "__version__"} <= {*dir(ksmcluster)}


def test_config_list(run: Run) -> None:
    assert [line.split()[:2] for line in run("config", "list").out.splitlines()] == [
        ["containers", "simulate"],
        ["default", "simulate"],
        ["ksm-compaction", "simulate"],
        ["tiny", "simulate"],
        ["vm-farm", "simulate"],
        ["compaction-drain", "compact"],
        ["compaction-gpu", "compact"],
        ["compaction-zram", "compact"],
    ]


def test_mistakes(run: Run, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenario.toml").write_text(
        """
        [machine]
        nodes = 2
        memory_per_node = "4GB"
        topology = "taurus"

        [ksm]
        kernel = "6.1"
        smart_scan = 1

        [[process]]
        name = "rank"
        per_node = 1
        policy = { kind = "bind", nodes = [0, 0] }

        [[process.region]]
        name = "a"
        sze = "1MiB"
        model = "pool"
        """
    )
    ran = run("simulate", "scenario.toml", "--passes", "0", "--set", "cost.sleep=1")
    assert (ran.code, ran.out) == (2, "")
    golden("mistakes.txt", ran.err)


# simulate


def test_simulate(run: Run) -> None:
    ran = run("simulate", "tiny", "--engine", "inline")
    assert ran.code == 0
    assert ran.out.startswith("Two small nodes\n2 nodes, kernel 6.18, 4 passes, seed 1\n")
    assert ran.err.splitlines()[-1].startswith("pass 4 of 4: ")


def test_json_is_all_there_is_on_stdout(run: Run) -> None:
    ran = run("simulate", "tiny", "--json", *INLINE)
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["nodes"] == 2


def test_json_is_the_same(run: Run) -> None:
    first, second = (run("simulate", "tiny", "--json", *INLINE).out for _ in range(2))
    assert first == second


def test_output(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("simulate", "tiny", "--seed", "3", "--json", "--output", str(out), *INLINE)
    assert ran.code == 0
    assert (out / "summary.json").read_text() == ran.out
    assert load(out / "config.toml").simulation.seed == 3


def test_output_is_refused_before_the_simulation(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").touch()
    monkeypatch.setattr(api, "simulate", lambda *_, **__: pytest.fail("has begun"))
    ran = run("simulate", "tiny", "--output", str(tmp_path))
    assert ran == (
        2,
        "",
        f"error: cannot write the results to {tmp_path}: it is not empty and not an earlier "
        "output; choose another directory\n",
    )


def test_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    ran = run("simulate", "tiny", "--output", str(tmp_path / "out"), *INLINE)
    assert ran == (1, "", f"error: cannot write the results to {tmp_path / 'out'}: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["config", "show", "tiny"], ["simulate", "tiny", *INLINE]])
def test_full_standard_output(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (
        1,
        "error: cannot write to standard output: No space left on device\n",
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("simulate tiny --address auto --engine inline", "error: --address: "),
        ("simulate tiny --engine steam", "'steam' is not one of 'ray', 'inline'"),
        ("simulate tiny --nodes many", 'error: --nodes: must be a whole number, not "many"\n'),
        ("simulate tiny --nodes-per-actor 0", "error: --nodes-per-actor: must be at least 1, not "),
        ("simulate gone.toml", "error: there is no file gone.toml"),
        ("simulate /dev/null/a.toml", "error: cannot read /dev/null/a.toml: Not a directory"),
        (
            "simulate tiny --engine inline --checkpoint /dev/null",
            "error: --checkpoint /dev/null: not a directory; choose another directory",
        ),
        ("simulate tiny extra", "unexpected extra argument"),
        ("simulat", 'error: no command "simulat"; did you mean "simulate"?'),
        ("capture --output x --pid abc", 'error: --pid: must be a whole number, not "abc"'),
        ("capture --output x --pid=", "error: --pid: no process ID given"),
    ],
)
def test_wrong_arguments(run: Run, arguments: str, text: str) -> None:
    ran = run(*arguments.split())
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_empty_file_with_the_name_of_a_snapshot(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.parquet").touch()
    ran = run("simulate", str(tmp_path / "s.parquet"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {tmp_path / 's.parquet'} is not a snapshot, or not all of one: ")


def test_our_own_faults_are_not_hidden(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(api, "simulate", broken)
    with pytest.raises(ZeroDivisionError):
        run("simulate", "tiny", *INLINE)


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_ended_by_a_signal(tmp_path: Path, number: signal.Signals, code: int, says: str) -> None:
    arguments = [
        "simulate",
        "tiny",
        "--engine",
        "inline",
        "--passes",
        "1000000",
        "--output",
        str(tmp_path / "out"),
    ]
    child = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    child.stderr.readline()
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (code, "")
    assert err.splitlines()[-1] == says
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_nohup() -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);" + COMMAND[-1]
    child = subprocess.Popen(
        [sys.executable, "-c", code, "simulate", "tiny", "--engine", "inline", "--passes", "300"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    child.stderr.readline()
    child.send_signal(signal.SIGHUP)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err.splitlines()[-1][:16]) == (0, "pass 300 of 300:")


def test_a_terminal_that_is_gone() -> None:
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [*COMMAND, "simulate", "tiny", "--engine", "inline", "--passes", "1000000"], stderr=theirs
    )
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    child.send_signal(signal.SIGHUP)
    assert child.wait(timeout=60) == 129
