"""The command `ksmcluster`.

Exit codes: 0 fine, 1 our fault or the system's, 2 the user's mistake, and 128 + the number of the signal that
ended it: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
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
    """Where a sub-command is: a function, or a typer app with sub-commands of its own."""

    module: str
    name: str
    #: For the list of sub-commands; with `--help` of its own, one says more.
    help: str


#: Imported when they are asked for, so that each starts with no more than it needs.
COMMANDS = {
    "simulate": Command(
        "ksmcluster.commands.simulate", "simulate", "Simulate ksmd, and report what it saved."
    ),
    "resume": Command("ksmcluster.commands.resume", "resume", "Go on with a run from its last checkpoint."),
    "compact": Command(
        "ksmcluster.commands.compact", "compact", "Compact memory full of drivers' pages that can move."
    ),
    "sweep": Command(
        "ksmcluster.commands.experiments.sweep",
        "sweep",
        "Run a scenario at many values of its keys, and find the best.",
    ),
    "compare": Command("ksmcluster.commands.experiments.compare", "compare", "What differs between runs."),
    "knobs": Command(
        "ksmcluster.commands.experiments.knobs", "knobs", "Print the knobs of a run for a real machine."
    ),
    "plot": Command("ksmcluster.commands.pictures.plot", "plot", "Draw a picture of results."),
    "report": Command("ksmcluster.commands.pictures.report", "report", "Write a report of results (HTML)."),
    "capture": Command("ksmcluster.commands.capture", "capture", "Make a snapshot of real memory."),
    "replay": Command("ksmcluster.commands.replay", "replay", "Run scripts, or records of real kernels."),
    "validate": Command("ksmcluster.commands.validate", "validate", "Compare with the KSM of this host."),
    "calibrate": Command(
        "ksmcluster.commands.calibrate", "calibrate", "Measure what ksmd's work costs on this host."
    ),
    "bench": Command("ksmcluster.commands.bench", "app", "Measure how fast and how large it is."),
    "config": Command("ksmcluster.commands.config", "config", "Look at scenarios."),
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
    """Let the help of a command, and of its own sub-commands, end with examples."""
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


#: typer has a click of its own, or not, by its version.
_UsageError: Any = typer.BadParameter.__mro__[1]


def _in_our_words(error: Any) -> str:
    """What is wrong with an option or argument, in one line."""
    option, found = getattr(error, "param", None), error.__context__
    if option is None or not hasattr(found, "errors"):
        return str(error.format_message())
    from ksmcluster.config.problems import text_of

    details = found.errors()[0]
    if details["input"] == "" and option.name == "pid":
        return "--pid: no process was given; is it running?"
    return f"{option.opts[-1]}: {text_of(details)}"


#: Mistakes that are told of one by one.
_MOST_LINES = 20


def _say(line: str) -> None:
    """Write a line to stderr, if there is one that takes it."""
    from ksmcluster.report.text import message

    with suppress(OSError, ValueError):
        typer.echo(message(line), err=True)


def _say_mistakes(lines: list[str]) -> None:
    for line in lines[:_MOST_LINES]:
        _say(f"error: {line}")
    if more := len(lines[_MOST_LINES:]):
        _say(f"error: and {more} more")


def main() -> None:
    """Entry point: ends the program, also while Ray cannot be left."""
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
    """End with what the system could not do, in a line."""
    with suppress(OSError):  # What is still in the buffer would fail once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    where = f"{error.filename}: " if error.filename else ""
    _say(f"error: {where}{error.strerror or error}")
    # A name that no file can have is the user's mistake.
    sys.exit(2 if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else 1)


def _run() -> None:
    """Run a command: mistakes of the user and signals end in a line, not in a traceback."""
    try:
        with signals.unwound_by_signals():
            sys.exit(app(prog_name="ksmcluster", standalone_mode=False))
    except _UsageError as error:
        if "\n" in error.format_message():  # help, as nothing was given
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
        _say("error: memory ran out: give less at once")
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code in signals.ENDED:  # a signal that came as the command ended
            signals.end(end.code - 128)
        raise


if __name__ == "__main__":
    main()
