"""Changes to a scenario, from the command line or as keyword arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as File
from tomllib import TOMLDecodeError
from typing import Any, Self, TypedDict

from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_TEXT
from ksmcluster.config.problems import Path, did_you_mean, dotted, parse_path
from ksmcluster.system.errors import UserError
from ksmcluster.system.toml import parse_toml

#: Tables that may be written as a text, which is then the value of this key.
SHORT_FORMS = {"topology": "kind", "policy": "kind"}
#: The keys of [simulation] that say when a run ends; a scenario has one of them.
ENDS = ("passes", "seconds", "until")
#: Keys of [simulation] that only `until = "converged"` allows, and their defaults.
UNTIL_CONVERGED = {"tolerance": 0.001, "most_passes": 100}


Settings = Iterable[str] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Overrides:
    """What to change in a scenario; None leaves a key as it is. Raises UserError for unknown arguments."""

    nodes: int | None = None
    seed: int | None = None
    passes: int | None = None
    #: Scales all regions (memory.scaled).
    pages_per_node: int | None = None
    #: `key=value` each, the key a dotted path such as process[0].count, the value as in TOML; or values by
    #: key, `{"ksm.pages_to_scan": 400}`, also by table, `{"ksm": {"pages_to_scan": 400}}`.
    settings: Settings = ()
    #: Nodes to drain, besides what the scenario moves.
    drain: tuple[int, ...] = ()
    #: For a snapshot: how many processes, and which memory ksmd scans.
    count: int | None = None
    advice: str | None = None
    #: A TOML file with a table [cost] to use, such as `ksmcluster calibrate` writes.
    cost: File | None = None
    #: When the run ends, instead of `passes`: a simulated time, or "converged".
    seconds: float | None = None
    until: str | None = None
    #: Keys, written as in `settings`, to reset to their defaults; or list elements to remove.
    unset: tuple[str, ...] = ()

    def __new__(cls, *arguments: object, **keywords: object) -> Self:
        """Refuse keywords that are not fields, and suggest similar names."""
        check_keywords("Overrides", keywords, cls.__annotations__)
        return object.__new__(cls)

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the settings as `key=value` each."""
        if isinstance(self.settings, Mapping):
            return tuple(_assignments("", self.settings))
        if isinstance(self.settings, str):
            raise UserError(f'settings: give a dict or a list of texts, as in settings=("{self.settings}",)')
        return tuple(self.settings)

    def apply(self, data: dict[str, Any]) -> dict[Path, str]:
        """Change the TOML data in place. Return the name of each changed key in errors."""
        changed: dict[Path, str] = {}
        for name in self.unset:
            path = _path(name.strip(), option := f"--unset {name}")
            remove(data, path, option)
            changed[path] = option
        if self.cost:
            changed |= _put_cost(data, self.cost)
        for setting in self.lines:
            path, value = _parse(setting)
            _put(data, path, value)
            changed[path] = f"--set {dotted(path)}"
        options = {
            ("machine", "nodes"): (self.nodes, "--nodes"),
            ("simulation", "seed"): (self.seed, "--seed"),
            ("simulation", "passes"): (self.passes, "--passes"),
            ("simulation", "seconds"): (self.seconds, "--seconds"),
            ("simulation", "until"): (self.until, "--until"),
        }
        for path, (value, option) in options.items():
            if value is not None:
                _put(data, path, value.item() if hasattr(value, "item") else value)  # a numpy number
                changed[path] = option
        _replace_end(data, changed)
        if self.drain:
            changed[_drain(data, self.drain)] = "--drain"
        return changed


class ScenarioKeywords(TypedDict, total=False):
    """The fields of `Overrides`, as keyword arguments."""

    nodes: int | None
    seed: int | None
    passes: int | None
    pages_per_node: int | None
    settings: Settings
    drain: tuple[int, ...]
    count: int | None
    advice: str | None
    cost: File | None
    seconds: float | None
    until: str | None
    unset: tuple[str, ...]


def check_keywords(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UserError for an unknown keyword argument, and suggest similar names."""
    names = list(known)
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names) or f"; the arguments are {', '.join(names)}"
            key = f'; keys of scenarios go into settings={{"{name}": ...}}' if "." in name else hint
            raise UserError(f"{call}: no argument {name}{key}")


def _assignments(path: str, settings: Mapping[str, object]) -> Iterator[str]:
    """Yield `key=value` for each value, with dotted paths for values of tables."""
    for name, value in settings.items():
        key = f"{path}{name}"
        if isinstance(value, Mapping):
            yield from _assignments(f"{key}.", value)
        elif key.endswith("kernel") and isinstance(value, float):
            raise UserError(f'{key}: the number {value} may mean another kernel; give a text, as in "6.10"')
        else:
            yield f"{key}={toml_value(key, value)}"


def toml_value(name: str, value: object) -> str:
    """Return a Python value as TOML. Raises UserError with its name if TOML has no such value."""
    if isinstance(value, File):
        value = str(value)
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple | range):
        return f"[{', '.join(toml_value(name, part) for part in value)}]"
    if isinstance(value, Mapping):
        parts = (f"{json.dumps(key)} = {toml_value(name, part)}" for key, part in value.items())
        return f"{{{', '.join(parts)}}}"
    item = getattr(value, "item", None)  # a numpy number
    if callable(item):
        return toml_value(name, item())
    raise UserError(f"{name}: a value is a number, a text, a truth value, a list or a table, not {value!r}")


def _replace_end(data: dict[str, Any], changed: Mapping[Path, str]) -> None:
    """Remove the scenario's end condition if the command line has another one."""
    ends: set[Path] = {("simulation", name) for name in ENDS}
    if given := ends & changed.keys():
        for *_, name in ends - given:
            data["simulation"].pop(name, None)
        if ("simulation", "until") not in given:
            for name in UNTIL_CONVERGED:
                if ("simulation", name) not in changed:
                    data["simulation"].pop(name, None)


def _put_cost(data: dict[str, Any], file: File) -> dict[Path, str]:
    """Apply the costs of a file. Return the name of each key in errors."""
    changed = {}
    for name, value in read_cost(file).items():
        path: Path = ("cost", name)
        _put(data, path, value)
        changed[path] = f"--cost {file}: {name}"
    return changed


def read_cost(file: File) -> dict[str, Any]:
    """Return the table [cost] of a file. Raises UserError if there is none."""
    try:
        found = parse_toml(read_input(file, MOST_TEXT).decode()).get("cost")
    except OSError as error:
        raise UserError(f"--cost {file}: {error.strerror}; give a file that can be read") from None
    except ValueError as error:
        raise UserError(f"--cost {file}: not TOML: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"--cost {file}: has no table [cost]; `ksmcluster calibrate` writes one")
    return found


def _drain(data: dict[str, Any], nodes: tuple[int, ...]) -> Path:
    """Append a relocation that drains the nodes; return the path of its key `nodes`."""
    migration = data.get("migration")
    others = migration.get("relocate") if isinstance(migration, dict) else None
    number = len(others) if isinstance(others, list) else 0
    relocation: Path = ("migration", "relocate", number)
    _put(data, relocation, {"kind": "drain", "nodes": list(nodes)})
    return (*relocation, "nodes")


def _parse(setting: str) -> tuple[Path, Any]:
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise UserError(f"--set {setting}: not of the form key=value")
    path, text = _path(name.strip(), f"--set {setting}"), text.strip()
    try:
        value = parse_value(text)
    except ValueError as error:
        raise UserError(f"--set {dotted(path)}: {error}") from None
    if path[-1] == "kernel" and isinstance(value, float):
        return path, text  # 6.10 and 6.1 are different kernels
    return path, _from_here(path, value)


def _path(name: str, option: str) -> Path:
    """Parse a dotted path. Raises UserError, which names the option, if it is invalid."""
    try:
        if path := parse_path(name):
            return path
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    raise UserError(f"{option}: no key")


def remove(data: dict[str, Any], path: Path, option: str) -> Any:
    """Remove a key, or an element of a list, and return it. Raises UserError if it is not there."""
    here: Any = data
    for step in path[:-1]:
        here = here[step] if _has(here, step) else None
    if not _has(here, path[-1]):
        hint = did_you_mean(str(path[-1]), here) if isinstance(here, dict) else ""
        raise UserError(f"{option}: the scenario does not set it{hint}")
    return here.pop(path[-1])


def _has(here: Any, step: str | int) -> bool:
    if isinstance(step, int):
        return isinstance(here, list) and step < len(here)
    return isinstance(here, dict) and step in here


def parse_value(text: str) -> Any:
    """Return the TOML value, or the text itself if it is not TOML, as in `--set process[0].name=rank`.

    Raises ValueError for a value beyond the limits.
    """
    try:
        data = parse_toml(f"value = {text}")
    except TOMLDecodeError:
        return text
    return data["value"] if data.keys() == {"value"} else text


def _from_here(path: Path, value: Any) -> Any:
    """Make files named on the command line relative to the working directory, not to the scenario's."""
    if not isinstance(value, str) or path[-1] not in ("snapshot", "path", "topology"):
        return value
    if path[-1] == "topology" and not os.path.exists(value):  # noqa: PTH110 (long names)
        return value
    return str(File(value).absolute())


def _put(here: Any, path: Path, value: Any, depth: int = 0) -> None:
    """Set the key of a path whose first `depth` steps led to `here`.

    Missing tables on the way are created; so is a new last element of a list.
    """
    step = path[depth]
    _check_step(here, path, depth)
    if isinstance(step, int) and step == len(here):
        here.append({})
    if depth == len(path) - 1:
        here[step] = value
        return
    if isinstance(here, dict):
        here.setdefault(step, [] if isinstance(path[depth + 1], int) else {})
    if step in SHORT_FORMS and isinstance(here[step], str):
        here[step] = {SHORT_FORMS[str(step)]: here[step]}
    _put(here[step], path, value, depth + 1)


def _check_step(here: Any, path: Path, depth: int) -> None:
    step, place = path[depth], dotted(path[:depth])
    wrong = ""
    if not isinstance(step, int):
        wrong = "" if isinstance(here, dict) else f"{place} is not a table"
    elif not isinstance(here, list):
        wrong = f"{place} is not a list"
    elif step > len(here):
        have = f"the last is {place}[{len(here) - 1}]" if here else "the list is empty"
        wrong = f"there is no {place}[{step}]; {have}"
    if wrong:
        raise UserError(f"--set {dotted(path)}: {wrong}")
