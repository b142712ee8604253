"""Converts a TOML file to a checked scenario, and back."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import tomli_w
from pydantic import ValidationError

from cluster.compaction.kernel_rules import note_of_compaction
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_TEXT
from cluster.spec.profile import note_of_release
from cluster.spec.scenario import CostSpec
from ksmcluster.config.ksmd import CostConfig, to_cost
from ksmcluster.config.memory import memory_problems, scaled
from ksmcluster.config.overrides import Overrides, read_cost, remove
from ksmcluster.config.problems import ConfigProblem, did_you_mean, dotted, problems_of, shown
from ksmcluster.config.problems import Path as KeyPath
from ksmcluster.config.scenario import Scenario
from ksmcluster.config.tables import ConfigTable
from ksmcluster.report.text import one_line
from ksmcluster.system.errors import UserError
from ksmcluster.system.toml import check_values, parse_toml

if TYPE_CHECKING:
    from ksmcluster.config.compaction import CompactionScenario

_PACKAGE = Path(__file__).parents[1]
#: The bundled scenarios: in the installed package, or next to it in the repository.
_SHIPPED = next(f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir())
DEFAULT = "default"
DEFAULT_COMPACTION = "compaction-zram"
#: The scenario for the free memory of a machine of which nothing else is known.
FULL_MACHINE: Mapping[str, Any] = {
    "simulation": {"title": "Compaction: the free memory of a machine"},
    "machine": {"lru": 0.8, "unmovable": 0.2},
}
#: Prefix of the bundled scenarios of `ksmcluster compact`.
_COMPACTION = "compaction-"
_MEMORY_MISSING = (
    "machine.memory_per_node: is missing; free blocks do not say how much memory a node has in all, so give "
    "--set machine.memory_per_node=SIZE, or --pagetypeinfo"
)
T = TypeVar("T", bound=ConfigTable)


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] = DEFAULT, overrides: Overrides | None = None
) -> Scenario:
    """Read a scenario, apply the overrides, and check the result.

    `source` is the name of a bundled scenario (`bundled`), the path of a TOML file or of a snapshot, or the
    data of a scenario. Raises UserError with one line per mistake.
    """
    overrides = overrides or Overrides()
    return _simulation(_read(source, overrides), overrides)


def load_compaction(
    source: str | os.PathLike[str] | Mapping[str, Any] = DEFAULT_COMPACTION,
    overrides: Overrides | None = None,
    start: Mapping[str, Any] | None = None,
) -> CompactionScenario:
    """Read a scenario of `ksmcluster compact`, as `load` does.

    `start`: keys of [machine] for the free memory of a machine (ksmcluster.system.start_state), which replace
    those of the scenario before the overrides do.
    """
    overrides = overrides or Overrides()
    document = _read(source, overrides)
    if start and isinstance(machine := document.data.setdefault("machine", {}), dict):
        machine |= start
    return _compaction(document, overrides)


def load_either(
    source: str | os.PathLike[str] | Mapping[str, Any], overrides: Overrides | None = None
) -> Scenario | CompactionScenario:
    """Read a scenario of either command, as `load` does."""
    document = _read(source, overrides or Overrides())
    kind = _compaction if _is_compaction(document) else _simulation
    return kind(document, overrides or Overrides())


def _is_compaction(document: _Document) -> bool:
    """Return whether a document is a scenario of `compact`: no processes, but drivers or LRU pages."""
    return "process" not in document.data and bool(_fillers(document))


def _fillers(document: _Document) -> str:
    """Return the key which says that a document is a scenario of `compact`; empty if there is none."""
    if "driver" in document.data:
        return "[[driver]]"
    machine = document.data.get("machine")
    return "machine.lru" if isinstance(machine, dict) and "lru" in machine else ""


def _simulation(document: _Document, overrides: Overrides) -> Scenario:
    if overrides.pages_per_node is not None and overrides.pages_per_node < 1:
        raise UserError(f"--pages-per-node: must be at least 1, not {overrides.pages_per_node}")
    if _is_compaction(document):
        _refuse(document, _fillers(document), "compact")
    changed = overrides.apply(document.data)
    scenario = _without_needless_keys(document, changed)
    if overrides.pages_per_node is not None:
        scenario = scaled(scenario, overrides.pages_per_node)
    if problems := list(memory_problems(scenario)):
        raise UserError(_lines(problems, document.label, changed))
    return scenario


def _compaction(document: _Document, overrides: Overrides) -> CompactionScenario:
    # Imports numpy and the drivers, which scenarios of `simulate` do not need.
    from ksmcluster.config.compaction import CompactionScenario

    if "process" in document.data:
        _refuse(document, "[[process]]", "simulate")
    if overrides.pages_per_node is not None:
        raise UserError("--pages-per-node scales processes; a scenario of `ksmcluster compact` has none")
    changed = overrides.apply(document.data)
    machine = document.data.get("machine")
    if isinstance(machine, dict) and "free_blocks" in machine and "memory_per_node" not in machine:
        raise UserError(_MEMORY_MISSING)
    scenario = _checked(CompactionScenario, document, changed)
    return scenario.with_notes([*_of_kernel(document), *scenario.start_notes()])


def _without_needless_keys(document: _Document, changed: Mapping[KeyPath, str]) -> Scenario:
    """Check a scenario; drop keys of the file that have no meaning with the choices of the command line.

    So `--set ksm.kernel=4.8` works with a file that sets knobs of later kernels. Each dropped key is a note.
    """
    notes: list[str] = []
    while True:
        try:
            scenario = Scenario.model_validate(document.data, context={"base": document.base})
        except ValidationError as error:
            problems = problems_of(error, Scenario)
            needless = [problem for problem in problems if _is_needless(problem, changed)]
            if not needless:
                raise UserError(_lines(problems, document.label, changed)) from None
            for problem in needless:
                path = dotted(problem.path)
                value = shown(remove(document.data, problem.path, path))
                notes.append(f"{document.label}: {path} = {value} is ignored: it {problem.text}")
        else:
            return scenario.with_notes([*notes, *_of_kernel(document)])


def _of_kernel(document: _Document) -> Iterator[str]:
    """Yield notes about the kernels of a valid scenario."""
    kernels = {name: document.data.get(name, {}).get("kernel") for name in ("ksm", "migration")}
    if kernels["ksm"] is not None and (note := note_of_release(kernels["ksm"])):
        yield f"{document.label}: {note}"
    if kernels["migration"] is not None and (note := note_of_compaction(kernels["migration"])):
        yield f"{document.label}: migration.{note}"


def _is_needless(problem: ConfigProblem, changed: Mapping[KeyPath, str]) -> bool:
    """Return whether the command line makes a key of the file meaningless and does not set it itself."""
    chosen = problem.switch and (*problem.path[:-1], problem.switch) in changed
    return bool(chosen) and not any(problem.path[:n] in changed for n in range(1, len(problem.path) + 1))


def _checked(model: type[T], document: _Document, changed: Mapping[KeyPath, str]) -> T:
    try:
        return model.model_validate(document.data, context={"base": document.base})
    except ValidationError as error:
        raise UserError(_lines(problems_of(error, model), document.label, changed)) from None


def _refuse(document: _Document, key: str, command: str) -> NoReturn:
    """Raise UserError: a key shows that the scenario belongs to the other command."""
    raise UserError(
        f"{document.label}: it has {key}, so it is a scenario of `ksmcluster {command}`; use that"
    )


def load_cost(file: Path | None) -> CostSpec:
    """Read the table [cost] of a file; None: the defaults. Raises UserError with one line per mistake."""
    if file is None:
        return CostSpec()
    try:
        return to_cost(CostConfig.model_validate(read_cost(file)))
    except ValidationError as error:
        raise UserError(_lines(problems_of(error, CostConfig), f"--cost {file}", {})) from None


def resolved_toml(scenario: ConfigTable, of_snapshot: Callable[[str], str] = str) -> str:
    """Return the scenario as TOML with all defaults written out. `load` reads it as an equal scenario.

    `of_snapshot` returns the text to write for the absolute path of a snapshot.
    """
    data = scenario.model_dump(exclude_none=True)
    for process in data.get("process", ()):
        if "snapshot" in process:
            process["snapshot"] = of_snapshot(process["snapshot"])
    return tomli_w.dumps(data)


def bundled() -> list[str]:
    """Return the names of the bundled scenarios of `ksmcluster simulate`."""
    return [name for name in _files() if not name.startswith(_COMPACTION)]


def bundled_compactions() -> list[str]:
    """Return the names of the bundled scenarios of `ksmcluster compact`."""
    return [name for name in _files() if name.startswith(_COMPACTION)]


def _files() -> list[str]:
    return sorted(file.stem for file in _SHIPPED.glob("*.toml"))


class _Document(NamedTuple):
    data: dict[str, Any]
    #: Name of the document in errors.
    label: str
    #: Where relative paths start.
    base: Path


def _read(source: str | os.PathLike[str] | Mapping[str, Any], overrides: Overrides) -> _Document:
    if not isinstance(source, Mapping) and source not in _files():
        # Imports pyarrow, which other scenarios do not need.
        from ksmcluster.snapshot.as_scenario import is_parquet, scenario_of

        path = Path(source)
        if is_parquet(path):
            data = scenario_of(path, overrides.nodes, overrides.count, overrides.advice)
            return _Document(data, str(path), path.parent)
    if overrides.count is not None or overrides.advice is not None:
        option = "--count" if overrides.count is not None else "--advice"
        raise UserError(f"{option} is for snapshots; use --set process[0].{option[2:]}=...")
    if isinstance(source, Mapping):
        data = dict(source)
        try:
            check_values(data)
        except ValueError as error:
            raise UserError(f"scenario: {error}") from None
        return _Document(copy.deepcopy(data), "scenario", Path())
    if source in _files():
        label = f"{source}.toml"
        content = (_SHIPPED / label).read_bytes()
        return _Document(_parse(content, label), label, Path())
    path = Path(source)
    return _Document(_parse(_content(path), str(path)), str(path), path.parent)


def _content(path: Path) -> bytes:
    try:
        return read_input(path, MOST_TEXT)
    except FileNotFoundError:
        if path.suffix or len(path.parts) > 1:
            raise UserError(f"there is no file {path}; check the name") from None
        names = _files()
        hint = did_you_mean(str(path), names) or f"; the bundled scenarios are {', '.join(names)}"
        raise UserError(f"there is no scenario {path}{hint}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _parse(content: bytes, label: str) -> dict[str, Any]:
    try:
        return parse_toml(content.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{label}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise UserError(f"{label}: not TOML: {error}") from None


def _lines(problems: list[ConfigProblem], label: str, changed: Mapping[KeyPath, str]) -> str:
    return "\n".join(_line(problem, label, changed) for problem in problems)


def _line(problem: ConfigProblem, label: str, changed: Mapping[KeyPath, str]) -> str:
    """Return the mistake, and where it was made: on the command line or in the file."""
    place = f"{label}: {dotted(problem.path)}" if problem.path else label
    where = changed.get(problem.path, place)
    return one_line(f"{where}: {problem.text}")
