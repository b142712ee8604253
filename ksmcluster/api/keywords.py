"""The keyword arguments of the functions that run scenarios, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from actors.run_options import RunKeywords, RunOptions
from ksmcluster.api.running import Progress, one_line
from ksmcluster.config import Overrides
from ksmcluster.config.overrides import ScenarioKeywords, check_keywords
from ksmcluster.system.errors import UserError


class Keywords(RunKeywords, ScenarioKeywords, total=False):
    """Keyword arguments that `simulate`, `compact` and `sweep` share."""


def taken(
    call: Callable[..., Any], options: RunOptions, changes: Mapping[str, Any]
) -> tuple[RunOptions, Overrides]:
    """Split keyword arguments into run options and changes of the scenario.

    Raises UserError for an argument that the call does not have.
    """
    known = ScenarioKeywords.__annotations__ | RunKeywords.__annotations__ | (call.__kwdefaults__ or {})
    check_keywords(call.__name__, changes, known)
    of_run = {name: value for name, value in changes.items() if name in RunKeywords.__annotations__}
    with one_line():
        options = replace(options, **of_run)
    return options, Overrides(**{name: value for name, value in changes.items() if name not in of_run})


def check_address(options: RunOptions) -> None:
    """Raise UserError for an address with the inline engine."""
    if options.address is not None and not options.on_ray:
        raise UserError(
            "--address: the inline engine does not use Ray; leave out --address, or give --engine ray"
        )


def check_unchanged(call: str, overrides: Overrides) -> None:
    """Raise UserError if there are changes of a scenario that is already loaded."""
    if overrides != Overrides():
        raise UserError(
            f"{call}: the scenario is already loaded; give the changes to `load`, as Overrides(...)"
        )


@contextmanager
def listening(progress: Progress | bool | None, step: str = "pass") -> Iterator[Progress | None]:
    """Yield the function to call with each event: None, the one given, or, for True, a progress display.

    `step` is what checkpoints count: "pass", or "round".
    """
    if progress is not True:
        yield progress or None
        return
    from rich.console import Console

    from ksmcluster.report.progress import shown

    with shown(Console(stderr=True), step=step) as listener:
        yield listener
