"""The page of commands, made from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import typer

from ksmcluster.cli import app
from ksmcluster.commands.examples import EXAMPLES


def commands() -> str:
    """Return the Markdown of all commands: what each does, its usage, arguments, options and examples."""
    root = typer.main.get_command(app)
    return "\n\n".join(_parts(root, ""))


def _parts(group: Any, prefix: str) -> Iterator[str]:
    """Yield the part of each command of a group, with the commands inside it."""
    context = group.make_context("ksmcluster", [], resilient_parsing=True)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        full = f"{prefix}{name}"
        yield _command(command, full)
        if hasattr(command, "list_commands"):
            yield from _parts(command, f"{full} ")


def _command(command: Any, name: str) -> str:
    context = command.make_context(f"ksmcluster {name}", [], resilient_parsing=True)
    usage = " ".join([f"ksmcluster {name}", *command.collect_usage_pieces(context)])
    examples = [f"    ksmcluster {line}" for line in EXAMPLES[name].lines]
    parts = [f"## `{name}`", _prose(command.help), f"    {usage}", _options(command, context)]
    return "\n\n".join([*filter(None, parts), "Examples:", "\n".join(examples)])


def _options(command: Any, context: Any) -> str:
    """Return a table of arguments and options, as `--help` has them."""
    records = filter(None, (param.get_help_record(context) for param in command.get_params(context)))
    rows = [f"| {_code(name)} | {_text(meaning)} |" for name, meaning in records if "--help" not in name]
    return "\n".join(["| option | meaning |", "| --- | --- |", *rows]) if rows else ""


def _code(name: str) -> str:
    """Return a cell of code. A bar in backticks would end the cell, or keep its backslash."""
    return f"<code>{escape(name).replace('|', '&#124;')}</code>"


def _text(meaning: str) -> str:
    """Return a cell of text in which brackets are no links."""
    return " ".join(meaning.split()).replace("|", "\\|").replace("[", "\\[")


def _prose(help_text: str | None) -> str:
    return " ".join((help_text or "").replace("\b", "").split())
