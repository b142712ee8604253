"""`ksmcluster calibrate`: measure the cost of ksmd's work on this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ksmcluster.commands.options import Quiet
from ksmcluster.commands.output import Target, emit, replacing

if TYPE_CHECKING:
    from rich.table import Table

    from ksmcluster.validate.calibrate.fit import FittedTerm
    from ksmcluster.validate.calibrate.session import Calibration

#: First line of a file that this command wrote.
_HEAD = "# ksmcluster calibrate: "
#: Why a term keeps its default.
_NOT_MEASURED = {
    "remote": "not measured",
    "huge_saves": "not measured: default",
    "split_zero": "not measured: default",
    "cpu_wait": "not measured: depends on the load",
}
_NOT_SEPARATED = "not separated: default"
_NO_NODES = "not measured: needs two nodes"


def calibrate(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to write [cost] to.")
    ] = Path("cost.toml"),
    quiet: Quiet = False,
) -> None:
    """Measure the cost of ksmd's work on this host, and write it for `simulate --cost`.

    Runs small programs for about a minute. Needs root, and a host on which nothing else uses KSM. The numbers
    are better on an idle host. All KSM settings are restored at the end.
    """
    from rich.console import Console

    from ksmcluster.report.console import error_console, printed
    from ksmcluster.report.progress import telling
    from ksmcluster.validate.calibrate.session import calibrate as run

    target = Target("--output", output, _is_ours)
    target.check()
    console = error_console()
    with telling(console, quiet=quiet) as tell:
        found = run(tell)
    emit(printed(_table(found), Console()) + _summary(found))
    with replacing(target) as file:
        file.write_text(to_toml(found))


def to_toml(found: Calibration) -> str:
    """Return the table [cost] with all keys, below a comment that says where the numbers come from.

    The table [migration.cost] follows if it was measured.
    """
    import tomli_w

    from ksmcluster.config.ksmd import from_cost

    costs = {key: round(value, 1) for key, value in from_cost(found.fit.cost).model_dump().items()}
    tables: dict[str, object] = {"cost": costs}
    if found.mapping.uncertainty is not None:
        tables["migration"] = {"cost": {"mapping_ns": round(found.mapping.value, 1)}}
    return f"{_HEAD}{found.cpu}, Linux {found.kernel}\n{tomli_w.dumps(tables)}"


def _is_ours(path: Path) -> bool:
    with path.open(errors="replace") as file:
        return file.readline().startswith(_HEAD)


def _table(found: Calibration) -> Table:
    from cluster.spec.compaction import MigrationCostSpec
    from cluster.spec.scenario import CostSpec
    from ksmcluster.config.ksmd import key_of_cost
    from ksmcluster.report.console import plain_table

    table = plain_table("[cost]", "value", "+-", "default", "")
    table.columns[-1].justify = "left"
    for term in found.fit.terms:
        note = _NOT_MEASURED.get(term.name, _NOT_SEPARATED)
        table.add_row(*_row(f"  {key_of_cost(term.name)}", term, getattr(CostSpec(), term.name), note))
    table.add_section()
    table.add_row("[migration.cost]")
    table.add_row(*_row("  mapping_ns", found.mapping, MigrationCostSpec().mapping, _NO_NODES))
    return table


def _row(name: str, term: FittedTerm, default: float, note: str) -> tuple[str, ...]:
    if term.uncertainty is None:
        return name, f"{term.value:,.0f}", "", f"{default:,.0f}", note
    return name, f"{term.value:,.0f}", f"{term.uncertainty:,.0f}", f"{default:,.0f}", ""


def _summary(found: Calibration) -> str:
    ratios = sorted(found.fit.ratios)
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    return (
        f"\n  ksmd steps: {len(ratios)}, repetitions: {found.repetitions}\n"
        f"  modelled / measured CPU time, 10th to 90th percentile: {low:.2f} to {high:.2f}\n"
    )
