"""Replays scripts and records of real kernels on an engine.

The only module outside tests that imports `cluster.exact`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.compaction.replay.compare import compare_file
from cluster.exact import ExactEngine
from cluster.exact.reason import Reason
from cluster.exact.shape_reasons import ShapeReasons, shape_reasons
from cluster.machine.fabric import Fabric, InlineFabric
from cluster.machine.replay.script_engine import ScriptEngine, spec_for
from cluster.script.engine import Engine
from cluster.script.parser import ScriptError, parse
from cluster.script.record import (
    Difference,
    Json,
    NoRecordsError,
    RecordError,
    chance_of,
    differences,
    load,
    read_documents,
)
from cluster.script.runner import ScriptTopology, run
from cluster.spec.errors import LostError, SimulationError
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_NODES, MOST_TEXT
from cluster.spec.profile import Profile, profile_of_release

if TYPE_CHECKING:
    from actors.simulation.actor_pool import ActorPool

SCRIPT_SUFFIX = ".scn"
RECORD_SUFFIXES = (".json", ".json.xz")


class ReplayError(Exception):
    """A script or record cannot be replayed; str() is one line: where, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class ReplayTarget:
    """The target of a replay: one of ENGINES and, for `ray`, the number of nodes per actor."""

    engine: str
    nodes_per_actor: int = 1
    #: For `inline` and `ray`: whether trees have the kernel's shape, unlike those of `simulate`.
    tree_shape: bool = True
    #: For `ray`: actors that serve one machine after another.
    pool: ActorPool | None = None

    @contextmanager
    def started(self) -> Iterator[ReplayTarget]:
        """Yield a target that can create machines; for `ray`, with Ray and a pool of actors.

        Raises RunFailedError if Ray does not start, or an actor dies.
        """
        if self.engine == "ray":
            from actors.runtime import connected
            from actors.simulation.actor_pool import ActorPool
            from ksmcluster.api.running import one_line

            with one_line(), connected(None), closing(ActorPool()) as pool:
                yield replace(self, pool=pool)
        else:
            yield self

    @contextmanager
    def machine(self, profile: Profile, topology: ScriptTopology) -> Iterator[Engine]:
        """Yield a fresh machine."""
        if self.engine == "exact":
            yield ExactEngine(profile, topology.nodes, swap=topology.swap)
            return
        spec = spec_for(profile, topology.nodes, tree_shape=self.tree_shape)
        fabric: Fabric
        if self.engine == "inline":
            fabric = InlineFabric(spec, {})
        else:
            assert self.pool, "machines of the ray engine need ReplayTarget.started()"
            fabric = self.pool.fabric(spec, self.nodes_per_actor)
        yield ScriptEngine(profile, topology.nodes, swap=topology.swap, fabric=fabric)


ENGINES = ("exact", "inline", "ray")


class NoRecordsHereError(ReplayError):
    """The file is JSON but has no records."""


class OnlyTimesError(NoRecordsHereError):
    """The file holds nothing but measured times, which are chance."""


@dataclass(frozen=True, slots=True)
class ReplayFile:
    """A file to replay, with a short name; `named` means that the user gave the file, not its folder."""

    name: str
    path: Path
    named: bool


@dataclass(frozen=True, slots=True)
class RecordComparison:
    """The result of replaying one record."""

    name: str
    difference: Difference | None
    #: Reasons why the record depends on tree shapes, and the steps after which they hold.
    reasons: ShapeReasons = field(default_factory=dict)
    #: The reasons that hold before the difference.
    causes: tuple[Reason, ...] = ()
    #: On another kernel than the recorded one: all differences.
    every: tuple[Difference, ...] = ()
    #: Paths of values that are chance, which are not compared.
    chance: tuple[str, ...] = ()
    #: Which part of a record of migration is compared, and which is chance. Of others, all is compared.
    scope: str = ""

    def __str__(self) -> str:
        chance = f" (chance, not compared: {', '.join(self.chance)})" if self.chance else ""
        return self._outcome() + chance

    def lines(self) -> Iterator[str]:
        """Yield the outcome, and on another kernel a line for each field that differs."""
        yield str(self)
        by_field: dict[str, list[Difference]] = {}
        for difference in self.every:
            by_field.setdefault(difference.field, []).append(difference)
        for name, of_field in by_field.items():
            first = of_field[0]
            more = f" and {len(of_field) - 1} more" if len(of_field) > 1 else ""
            yield f"  {name}: {first.values()} at {first.step}{more}"

    def _outcome(self) -> str:
        if self.difference is None:
            return f"{self.name} ok"
        causes = ", ".join(f"{cause} since {self.reasons[cause][0]}" for cause in self.causes)
        return f"{self.name} differs: {self.difference}{f' ({causes})' if causes else ''}"

    def as_json(self) -> Json:
        """Return the comparison as data, with the key `reasons` if there are any."""
        difference = None
        if self.difference is not None:
            difference = {**self.difference.as_json(), "reasons": list(self.causes)}
        answer: Json = {"name": self.name, "equal": difference is None, "difference": difference}
        more = {
            "scope": self.scope,
            "differences": [difference.as_json() for difference in self.every],
            "chance": list(self.chance),
            "reasons": self.reasons,
        }
        return answer | {key: value for key, value in more.items() if value}


def find(paths: Iterable[Path], suffixes: tuple[str, ...]) -> list[ReplayFile]:
    """Return the files in `paths` and below its folders, sorted.

    Raises ReplayError for a path that does not exist, and for a folder without such files.
    """
    found: list[ReplayFile] = []
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 (that of Path raises for long names)
            below = sorted(
                file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()
            )
            if not below:
                raise ReplayError(f"{path}: no *{' or *'.join(suffixes)} in this folder; give another one")
            found += [ReplayFile(_stem(file.relative_to(path), suffixes), file, False) for file in below]
        elif os.path.exists(path):  # noqa: PTH110
            found.append(ReplayFile(_stem(Path(path.name), suffixes), path, True))
        else:
            raise ReplayError(f"{path}: no such file or folder; check the name")
    return found


def replay_script(name: str, path: Path, on: ReplayTarget, profile: Profile, nodes: int | None) -> Json:
    """Run a script and return its record. By default, the machine has as many nodes as the script requires.

    Raises ReplayError if the script has a mistake or cannot be read.
    """
    try:
        script = parse(_read_text(path))
        topology = ScriptTopology(nodes or script.nodes(), swap=script.swap())
        with on.machine(profile, topology) as machine:
            return run(script, machine, topology, name=name, kernel=profile.name)
    except LostError:
        raise
    except SimulationError as error:
        raise ReplayError(f"{path}: {error}") from error
    except ScriptError as error:
        raise ReplayError(f"{path}:{error}") from error


def compare_records(
    name: str, path: Path, on: ReplayTarget, profile: Profile | None = None, *, explain_equal: bool = False
) -> Iterator[RecordComparison]:
    """Replay the records of one file, each with the topology on which it was recorded.

    By default, each is replayed with the kernel on which it was recorded.

    Records that differ get reasons; with `explain_equal`, all records do. Raises ReplayError if the file has
    no records, OnlyTimesError if it has measured times.
    """
    try:
        documents = load(path)
    except NoRecordsError as error:
        if migration := _compare_migration(name, path, profile):
            yield from migration
            return
        if all(_is_of_times(document) for document in read_documents(path)):
            raise OnlyTimesError(f"{path}: measured times, which are chance: nothing is compared") from error
        raise NoRecordsHereError(f"{path}: {error}; give files or folders of records") from error
    except RecordError as error:
        raise ReplayError(f"{path}: {error}; give files or folders of records") from error
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}; give a file that can be read") from error
    for document in documents:
        full_name = name if len(documents) == 1 else f"{name}/{document['scenario']}"
        yield _compare_document(full_name, path, document, on, profile, explain_equal)


def _is_of_times(document: object) -> bool:
    """Return whether a document is the result of measuring the speed of ksmd."""
    return isinstance(document, dict) and {"kernel", "cpu", "results"} <= document.keys()


def _compare_migration(name: str, path: Path, profile: Profile | None) -> list[RecordComparison]:
    """Return the comparisons of records of page migration; empty if the file has none."""
    try:
        return [
            RecordComparison(f"{name}/{record}", difference, scope=str(comparison))
            for record, comparison, difference in compare_file(
                path, None if profile is None else profile.name
            )
        ]
    except RecordError as error:
        raise ReplayError(f"{path}: {error}; give files or folders of records") from error


def _compare_document(
    name: str, path: Path, document: Json, on: ReplayTarget, profile: Profile | None, explain_equal: bool
) -> RecordComparison:
    nodes, swap = document["topology"]["nodes"], document["topology"]["swap"]
    try:
        if not 1 <= nodes <= MOST_NODES:
            raise ValueError(f"a machine of {nodes} nodes; it must have 1 to {MOST_NODES}")
        another = profile is not None
        profile = profile or profile_of_release(document["kernel"])
        topology = ScriptTopology(nodes, swap=swap)
        script = parse(document["text"])
        with on.machine(profile, topology) as machine:
            ours = run(script, machine, topology, name=document["scenario"], kernel=document["kernel"])
        found = differences(ours, document)
        difference = next(found, None)
        chance = tuple(sorted(chance_of(document)))
        if difference is None and not explain_equal:
            return RecordComparison(name, None, chance=chance)
        reasons = shape_reasons(script, profile, topology)
    except LostError:
        raise
    except (ValueError, SimulationError) as error:
        raise ReplayError(f"{path}: record {document['scenario']}: {error}") from error
    except ScriptError as error:
        raise ReplayError(f"{path}: script of record {document['scenario']}:{error}") from error
    labels = [record["label"] for record in ours["records"]]
    causes = _before(difference, reasons, labels)
    every = (difference, *found) if another and difference is not None else ()
    return RecordComparison(name, difference, reasons, causes, every, chance)


def _before(difference: Difference | None, reasons: ShapeReasons, labels: list[str]) -> tuple[Reason, ...]:
    """Return the reasons that hold by the time of the difference; `labels` has the labels of all steps."""
    if difference is None:
        return ()
    until = labels[: labels.index(difference.step) + 1] if difference.step in labels else labels
    return tuple(reason for reason, steps in reasons.items() if steps[0] in until)


def _stem(path: Path, suffixes: tuple[str, ...]) -> str:
    name = path.as_posix()
    return next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)


def _read_text(path: Path) -> str:
    try:
        data = read_input(path, MOST_TEXT)
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}; give a file that can be read") from error
    if path.name.endswith(RECORD_SUFFIXES):
        raise ReplayError(f"{path}: a record, not a script; add --compare to replay and compare it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ScriptError("this byte is not UTF-8; save the script as text", line, column) from error
