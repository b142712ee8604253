"""`ksmcluster knobs`: print a run's KSM settings as shell commands for a real machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ksmcluster.commands.options import Limits, Objectives
from ksmcluster.commands.output import emit
from ksmcluster.report.text import counted
from ksmcluster.system.errors import UserError


def knobs(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output of `ksmcluster simulate` or `ksmcluster sweep`.")
    ],
    point: Annotated[
        int | None,
        typer.Option(metavar="N", help="Point of the sweep. Default: the recommended one."),
    ] = None,
    objectives: Objectives = None,
    limits: Limits = None,
) -> None:
    """Print shell commands that apply the KSM settings of a run to a real machine."""
    from ksmcluster.experiments.knobs import shell_lines
    from ksmcluster.experiments.sweeps.stored import PLAN

    if (directory / PLAN).exists():
        lines = _of_sweep(directory, point, objectives, limits or [])
    elif point is not None:
        raise UserError(f"--point: {directory} is not a sweep; leave out --point")
    else:
        lines = shell_lines(_of_run(directory))
    emit("".join(f"{line}\n" for line in lines))


def _of_run(directory: Path) -> Mapping[str, Any]:
    from ksmcluster.config import Scenario
    from ksmcluster.results.loading import load_result

    config = load_result(directory).config
    if not isinstance(config, Scenario):
        raise UserError(f"{directory}: output of `ksmcluster compact`, which has no KSM settings")
    return config.ksm.model_dump(exclude_none=True)


def _of_sweep(directory: Path, point: int | None, objectives: str | None, limits: list[str]) -> list[str]:
    from ksmcluster.experiments.knobs import shell_lines
    from ksmcluster.experiments.sweeps.sweep_result import load_sweep

    found, number = load_sweep(directory), point
    if number is None:
        number = found.choose(objectives, limits).recommended
    if number is None:
        raise UserError(f"{directory}: no point is recommended; choose one with --point N")
    ksm = found.config(number).get("ksm")
    if ksm is None:
        raise UserError(f"{directory}: point {number} has no KSM settings: it failed, or ran `compact`")
    heads = [f"# point {number} of {directory}: {found.points[number - 1].label}"]
    if found.missing and point is None:
        heads.append(
            f"# recommended without {counted(found.missing, 'run')} that are missing (sweep --resume)"
        )
    return [*heads, *shell_lines(ksm)]
