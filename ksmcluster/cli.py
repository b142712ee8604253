"""The command `ksmcluster`.

Exit codes: 0 success, 1 failure of the program or the system, 2 a mistake of the user. If a signal ends the
program, 128 + its number: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

from ksmcluster.commands.examples import EXAMPLES, epilog
from ksmcluster.system import signals
from ksmcluster.system.descendants import adopt_orphans
from ksmcluster.system.errors import RunFailedError, UserError
from ksmcluster.system.version import __version__


class Command(NamedTuple):
    """Where a sub-command is defined: a function, or a typer app with its own sub-commands."""

    module: str
    name: str
    #: One line for the list of sub-commands; the command's own `--help` says more.
    help: str


#: Each is imported only when it is called, so that every command starts fast.
COMMANDS = {
    "simulate": Command(
        "ksmcluster.commands.simulate", "simulate", "Simulate ksmd and report what it saves."
    ),
    "resume": Command("ksmcluster.commands.resume", "resume", "Continue a run from its last checkpoint."),
    "compact": Command("ksmcluster.commands.compact", "compact", "Compact memory full of driver pages."),
    "sweep": Command(
        "ksmcluster.commands.experiments.sweep",
        "sweep",
        "Run a scenario with many parameter values and find the best.",
    ),
    "compare": Command(
        "ksmcluster.commands.experiments.compare", "compare", "Show what differs between runs."
    ),
    "knobs": Command(
        "ksmcluster.commands.experiments.knobs", "knobs", "Print a run's KSM settings for a real machine."
    ),
    "plot": Command("ksmcluster.commands.pictures.plot", "plot", "Draw a picture of results."),
    "report": Command("ksmcluster.commands.pictures.report", "report", "Write an HTML report of results."),
    "capture": Command("ksmcluster.commands.capture", "capture", "Take a snapshot of real memory."),
    "replay": Command("ksmcluster.commands.replay", "replay", "Run scripts or records of real kernels."),
    "validate": Command(
        "ksmcluster.commands.validate", "validate", "Compare the simulator with this host's KSM."
    ),
    "calibrate": Command(
        "ksmcluster.commands.calibrate", "calibrate", "Measure the cost of ksmd's work on this host."
    ),
    "bench": Command("ksmcluster.commands.bench", "app", "Measure the simulator's speed and memory."),
    "config": Command("ksmcluster.commands.config", "config", "Show scenarios without running them."),
}


class Commands(TyperGroup):
    """The sub-commands of COMMANDS."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:  # a shell asks for completions
                return None
            from ksmcluster.config.problems import did_you_mean

            hint = did_you_mean(cmd_name, COMMANDS) or f"; choose one of {', '.join(COMMANDS)}"
            raise UserError(f'no command "{cmd_name}"{hint}')
        found = COMMANDS[cmd_name]
        what = getattr(import_module(found.module), found.name)
        if not isinstance(what, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(cmd_name, short_help=found.help)(what)
            what = alone
        command = typer.main.get_command(what)
        command.name = cmd_name
        _add_examples(command, cmd_name)
        return command


def _add_examples(command: Any, name: str) -> None:
    """Add examples to the end of the help of a command and of its sub-commands."""
    command.epilog = epilog(name) if name in EXAMPLES else None
    for own, inner in getattr(command, "commands", {}).items():
        _add_examples(inner, f"{name} {own}")


app = typer.Typer(
    cls=Commands,
    epilog=epilog(""),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ksmcluster {__version__}")
        raise typer.Exit


@app.callback()
def ksmcluster(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Simulate kernel samepage merging (KSM) on machines of many NUMA nodes."""
    if signals.IS_COMMAND:
        adopt_orphans()


#: Some versions of typer bundle their own click.
_UsageError: Any = typer.BadParameter.__mro__[1]


def _in_our_words(error: Any) -> str:
    """Return what is wrong with an option or argument, in one line."""
    option, found = getattr(error, "param", None), error.__context__
    if option is None or not hasattr(found, "errors"):
        return str(error.format_message())
    from ksmcluster.config.problems import text_of

    details = found.errors()[0]
    if details["input"] == "" and option.name == "pid":
        return "--pid: no process ID given; is the process running?"
    return f"{option.opts[-1]}: {text_of(details)}"


#: Mistakes that are listed one by one; the rest are counted.
_MOST_LINES = 20


def _say(line: str) -> None:
    """Write a line to stderr; do nothing if stderr is closed or full."""
    from ksmcluster.report.text import message

    with suppress(OSError, ValueError):
        typer.echo(message(line), err=True)


def _say_mistakes(lines: list[str]) -> None:
    for line in lines[:_MOST_LINES]:
        _say(f"error: {line}")
    if more := len(lines[_MOST_LINES:]):
        _say(f"error: and {more} more")


def main() -> None:
    """Run the command and end the program, even if Ray's shutdown hangs."""
    try:
        _run()
    except SystemExit as end:
        runtime = sys.modules.get("actors.runtime")
        if runtime is not None and runtime.is_leaving():
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)
        raise


def _end_with(error: OSError) -> NoReturn:
    """Print a system error in one line and exit."""
    with suppress(OSError):  # Python would flush the buffer at exit and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    where = f"{error.filename}: " if error.filename else ""
    _say(f"error: {where}{error.strerror or error}")
    # An impossible file name is the user's mistake.
    sys.exit(2 if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else 1)


def _run() -> None:
    """Run a command. User mistakes and signals end in one line, not in a traceback."""
    try:
        with signals.unwound_by_signals():
            sys.exit(app(prog_name="ksmcluster", standalone_mode=False))
    except _UsageError as error:
        if "\n" in error.format_message():  # help is shown when no arguments are given
            error.show()
        else:
            _say(f"error: {_in_our_words(error)}")
        sys.exit(2)
    except UserError as error:
        _say_mistakes(str(error).split("\n"))
        sys.exit(2)
    except RunFailedError as error:
        _say(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        _end_with(error)
    except MemoryError:
        _say("error: out of memory: use fewer or smaller inputs")
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code in signals.ENDED:  # a signal arrived as the command ended
            signals.end(end.code - 128)
        raise


if __name__ == "__main__":
    main()
