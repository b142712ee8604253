"""What functions that run scenarios take as keyword arguments, checked."""

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
    """What `simulate`, `compact` and `sweep` take as keyword arguments besides their own."""


def taken(
    call: Callable[..., Any], options: RunOptions, changes: Mapping[str, Any]
) -> tuple[RunOptions, Overrides]:
    """Return the options of a run and the changes of its scenario, with those given as keyword arguments.

    Raises UserError for an argument that the call does not have.
    """
    known = ScenarioKeywords.__annotations__ | RunKeywords.__annotations__ | (call.__kwdefaults__ or {})
    check_keywords(call.__name__, changes, known)
    of_run = {name: value for name, value in changes.items() if name in RunKeywords.__annotations__}
    with one_line():
        options = replace(options, **of_run)
    return options, Overrides(**{name: value for name, value in changes.items() if name not in of_run})


def check_unchanged(call: str, overrides: Overrides) -> None:
    """Raise UserError for changes of a scenario that has been checked already."""
    if overrides != Overrides():
        raise UserError(
            f"{call}: the scenario is loaded already; give its changes to `load`, as Overrides(...)"
        )


@contextmanager
def listening(progress: Progress | bool | None, step: str = "pass") -> Iterator[Progress | None]:
    """Provide what to call with each event: nothing, what was given, or what shows it to a person.

    `step` is what checkpoints count: "pass", or "round".
    """
    if progress is not True:
        yield progress or None
        return
    from rich.console import Console

    from ksmcluster.report.progress import shown

    with shown(Console(stderr=True), step=step) as listener:
        yield listener
