"""`ksmcluster compare`: show what differs between runs, in their scenarios and in every figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ksmcluster.commands.output import emit
from ksmcluster.report.text import counted
from ksmcluster.system.errors import UserError


def compare(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR...", help="Outputs of simulate or compact, or sweeps.")
    ],
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="PART",
            help="Exit with 1 if a figure differs by more than this share of its first value (0.01 is 1 %) "
            "and by more than its standard deviation over seeds, or if sweeps do not have the same points.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print what differs between the first run and the others: keys of the scenario, and figures.

    Sweeps are compared point by point. The noise is the standard deviation over their seeds.
    """
    from rich.console import Console

    from ksmcluster.experiments.comparing import compare as compared
    from ksmcluster.experiments.comparison_report import MARK, report
    from ksmcluster.report.console import printed

    if tolerance is not None and not tolerance >= 0:
        raise UserError(f"--tolerance {tolerance}: must be at least 0, as in 0.01 for 1 %")
    found = compared(*directories)
    if as_json:
        emit(json.dumps([comparison.as_json() for comparison in found], indent=2) + "\n")
    else:
        emit(printed(report(found, tolerance), Console()))
    if tolerance is None:
        return
    beyond = sum(len(comparison.beyond(tolerance)) for comparison in found)
    absent = sum(bool(comparison.absent) for comparison in found)
    if beyond:
        typer.echo(f"{beyond} figures differ by more than {tolerance:g} (marked {MARK})", err=True)
    if absent:
        typer.echo(f"{counted(absent, 'point')} could not be compared", err=True)
    if beyond or absent:
        raise typer.Exit(1)
