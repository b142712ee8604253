"""The files of a sweep's directory, read and checked."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cluster.spec.input_files import open_input, read_input
from cluster.spec.limits import MOST_INTEGER, MOST_JSON, MOST_PLAN, MOST_POINTS, MOST_TABLE
from ksmcluster.config.problems import text_of
from ksmcluster.experiments.sweeps.plan import RunKey
from ksmcluster.experiments.sweeps.run_one import RunRecord
from ksmcluster.experiments.sweeps.table import FIXED
from ksmcluster.system.errors import UserError
from ksmcluster.system.toml import parse_toml

PLAN = "plan.json"
#: A line of JSON per run, appended when the run is finished. An incomplete last line is ignored.
RUNS = "runs.jsonl"
TABLE = "sweep.parquet"
PROVENANCE = "provenance.json"
#: The largest figure, so that means and deviations of several stay finite.
_MOST_FIGURE = 1e200


class Preference(NamedTuple):
    """Objectives and limits as texts: `saved_bytes:max,...`, `ksmd_cpu_percent<=5`."""

    objectives: str | None = None
    limits: tuple[str, ...] = ()


def _free(name: str) -> str:
    """Return the name of a key or figure. Raises ValueError if it is the name of a fixed column."""
    if name in FIXED:
        raise ValueError(f"{name} is the name of another column")
    return name


_Name = Annotated[str, AfterValidator(_free)]
_Integer = Annotated[int, Field(ge=-MOST_INTEGER, le=MOST_INTEGER)]
_Number = Annotated[float, Field(ge=-_MOST_FIGURE, le=_MOST_FIGURE, allow_inf_nan=False)]
_Figures = dict[_Name, _Integer | _Number | None]


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True)


class _Point(_Stored):
    settings: dict[_Name, str]
    digest: str
    config: str


class _Plan(_Stored):
    """The contents of plan.json, as `Plan.describe` returns them."""

    schema_version: int
    ksmcluster_version: str
    command: Literal["simulate", "compact"]
    seeds: list[_Integer] = Field(min_length=1)
    passes_rows: bool
    points: list[_Point] = Field(min_length=1, max_length=MOST_POINTS)


class _Run(_Stored):
    """A line of runs.jsonl, as `RunRecord.as_json` returns it."""

    point: _Integer
    seed: _Integer
    error: str
    wall_seconds: _Number
    figures: _Figures
    passes: list[_Figures]
    notes: list[str] = []


class _Host(_Stored):
    system: str
    release: str
    machine: str
    cpus: int


class _Timing(_Stored):
    jobs: int | None
    #: None while the sweep runs, and if it was killed.
    wall_seconds: _Number | None


class _Wanted(_Stored):
    objectives: str | None
    limits: list[str]


class _Provenance(_Stored):
    """The parts of provenance.json that reports show, and the objectives and limits."""

    versions: dict[str, str]
    host: _Host
    timing: _Timing
    command: str = ""
    wanted: _Wanted


class _Tables(BaseModel):
    """What reports take from the scenario of a point."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Simulation(_Tables):
    title: str = ""


class _Machine(_Tables):
    nodes: int


class _Ksm(_Tables):
    kernel: str
    run: int
    pages_to_scan: int
    threads: str
    advisor_mode: str | None = None


class _Migration(_Tables):
    attempts: int


class _Config(_Tables):
    simulation: _Simulation
    machine: _Machine
    ksm: _Ksm | None = None
    migration: _Migration | None = None


def read_plan(directory: Path) -> dict[str, Any]:
    """Return plan.json. Raises UserError if the directory is not that of a sweep, or cannot be read."""
    try:
        plan = _Plan.model_validate_json(read_input(directory / PLAN, MOST_PLAN))
        if len({tuple(point.settings) for point in plan.points}) > 1:
            raise ValueError("its points do not have the same keys")
        return plan.model_dump()
    except PermissionError as error:
        raise UserError(f"{directory}: no permission to read it; ask its owner") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{directory}: not a sweep ({_reason(PLAN, error)}); give the --output of a `ksmcluster sweep`"
        ) from None


def config_of(point: Mapping[str, str], number: int) -> dict[str, Any]:
    """Return the keys of the scenario of a point of plan.json; empty if the scenario is wrong.

    Raises UserError if it is no scenario.
    """
    try:
        config = parse_toml(point["config"])
        if config:
            _Config.model_validate(config)
    except ValueError as error:
        raise UserError(_reason(f"{PLAN}: the scenario of point {number}", error)) from None
    return config


def read_records(directory: Path) -> dict[RunKey, RunRecord]:
    """Return the records of the runs so far; the last record of each run counts.

    Raises UserError if runs.jsonl is not the file of a sweep.
    """
    found: dict[RunKey, RunRecord] = {}
    try:
        with open_input(directory / RUNS, MOST_TABLE) as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_JSON + 1), b""), 1):
                if line.endswith(b"\n"):
                    record = _record(directory, number, line)
                    found[record.key] = record
                elif len(line) > MOST_JSON:
                    raise OSError(errno.EFBIG, f"line {number} has more than {MOST_JSON:,} bytes")
    except OSError as error:
        raise UserError(f"{directory}: {_reason(RUNS, error)}; choose another --output") from None
    return found


def _record(directory: Path, number: int, line: bytes) -> RunRecord:
    try:
        return RunRecord.from_json(_Run.model_validate_json(line).model_dump())
    except ValueError as error:
        where = f"{RUNS}, line {number}"
        raise UserError(f"{directory}: {_reason(where, error)}; remove this line, and --resume") from None


def _reason(name: str, error: OSError | ValueError) -> str:
    """Return in short what is wrong with a file."""
    if isinstance(error, OSError):
        return f"{name}: {error.strerror}"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{name}: {place and f'{place}: '}{text_of(first)}"
    return f"{name}: {error}"


def read_provenance(directory: Path) -> dict[str, Any]:
    """Return how and where the sweep ran; empty if it was killed before it wrote that.

    It is also empty if the file is not that of a sweep: no result depends on it.
    """
    try:
        return _Provenance.model_validate_json(read_input(directory / PROVENANCE, MOST_JSON)).model_dump()
    except (OSError, ValueError):
        return {}


def read_wanted(directory: Path) -> Preference:
    """Return the objectives and limits of the sweep's last run."""
    wanted = read_provenance(directory).get("wanted")
    return Preference(wanted["objectives"], tuple(wanted["limits"])) if wanted else Preference()
