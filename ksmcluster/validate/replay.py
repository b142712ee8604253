"""Replaying scenario scripts, and records of real kernels, on an engine."""

from __future__ import annotations

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
from cluster.machine.script_engine import ScriptEngine, spec_for
from cluster.script.engine import Engine
from cluster.script.parser import MAX_NODES, ScenarioError, parse
from cluster.script.record import Difference, Json, NoRecordsError, RecordError, compare, load
from cluster.script.runner import Topology, run
from cluster.spec.errors import SimulationError
from cluster.spec.profile import Profile, profile_of_release

if TYPE_CHECKING:
    from actors.actor_pool import ActorPool

SCRIPT_SUFFIX = ".scn"
RECORD_SUFFIXES = (".json", ".json.xz")


class ReplayError(Exception):
    """What the user gave cannot be replayed; str() is one line that says where, what, and what to do."""


@dataclass(frozen=True, slots=True)
class On:
    """What to replay on: one of ENGINES, and for `ray` how many nodes each actor has."""

    engine: str
    nodes_per_actor: int = 1
    #: Whether `inline` and `ray` keep the shapes of trees; `simulate` does not.
    tree_shape: bool = True
    #: Actors for one machine after the other.
    pool: ActorPool | None = None

    @contextmanager
    def started(self) -> Iterator[On]:
        """With what all machines have in common: Ray and its actors, if need be."""
        if self.engine == "ray":
            from actors.actor_pool import ActorPool
            from actors.runtime import connected

            with connected(None), closing(ActorPool()) as pool:
                yield replace(self, pool=pool)
        else:
            yield self

    @contextmanager
    def machine(self, profile: Profile, topology: Topology) -> Iterator[Engine]:
        """A fresh machine."""
        if self.engine == "exact":
            yield ExactEngine(profile, topology.nodes, swap=topology.swap)
            return
        spec = spec_for(profile, topology.nodes, tree_shape=self.tree_shape)
        fabric: Fabric
        if self.engine == "inline":
            fabric = InlineFabric(spec, {})
        else:
            assert self.pool, "machines of the ray engine need On.started()"
            fabric = self.pool.fabric(spec, self.nodes_per_actor)
        yield ScriptEngine(profile, topology.nodes, swap=topology.swap, fabric=fabric)


ENGINES = ("exact", "inline", "ray")


class NoRecordsHereError(ReplayError):
    """The file is JSON of another kind."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file to replay, with a short name; `named` if the user named the file itself, not its folder."""

    name: str
    path: Path
    named: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the replay of one record went."""

    name: str
    difference: Difference | None
    #: Why the record hangs on the shapes of trees, and at which steps.
    reasons: ShapeReasons = field(default_factory=dict)
    #: Those that were there before the difference.
    causes: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.name} ok"
        causes = ", ".join(f"{cause} since {self.reasons[cause][0]}" for cause in self.causes)
        return f"{self.name} differs: {self.difference}{f' ({causes})' if causes else ''}"

    def as_json(self) -> Json:
        """The same as data; `reasons` is there only if there are any."""
        difference = None
        if self.difference is not None:
            difference = {**self.difference.as_json(), "reasons": list(self.causes)}
        answer: Json = {"name": self.name, "equal": difference is None, "difference": difference}
        return {**answer, "reasons": self.reasons} if self.reasons else answer


def find(paths: Iterable[Path], suffixes: tuple[str, ...]) -> list[Found]:
    """The files among paths, and those below folders, sorted.

    Raises ReplayError for a path that does not exist, and for a folder without any such file.
    """
    found: list[Found] = []
    for path in paths:
        if path.is_dir():
            below = sorted(
                file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()
            )
            if not below:
                raise ReplayError(f"{path}: no *{' or *'.join(suffixes)} in this folder; give another one")
            found += [Found(_stem(file.relative_to(path), suffixes), file, False) for file in below]
        elif path.exists():
            found.append(Found(_stem(Path(path.name), suffixes), path, True))
        else:
            raise ReplayError(f"{path}: no such file or folder; check the name")
    return found


def replay_script(name: str, path: Path, on: On, profile: Profile, nodes: int | None) -> Json:
    """Run one script; the document of its records. Without `nodes`, on as many as the script requires.

    Raises ReplayError if the script has a mistake or cannot be read.
    """
    try:
        scenario = parse(_read_text(path))
        topology = Topology(nodes or scenario.nodes(), swap=scenario.swap())
        with on.machine(profile, topology) as machine:
            return run(scenario, machine, topology, name=name, kernel=profile.name)
    except SimulationError as error:
        raise ReplayError(f"{path}: {error}") from error
    except ScenarioError as error:
        raise ReplayError(f"{path}:{error}") from error


def compare_records(name: str, path: Path, on: On, *, explain_equal: bool = False) -> Iterator[Comparison]:
    """Replay the records of one file, each with the kernel and the topology it was recorded on.

    What differs gets its reasons; with `explain_equal` all records do.

    Raises ReplayError if the file holds no records.
    """
    try:
        documents = load(path)
    except NoRecordsError as error:
        if migration := _compare_migration(name, path):
            yield from migration
            return
        raise NoRecordsHereError(f"{path}: {error}; give files or folders of records") from error
    except RecordError as error:
        raise ReplayError(f"{path}: {error}; give files or folders of records") from error
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}; give a file that can be read") from error
    for document in documents:
        full_name = name if len(documents) == 1 else f"{name}/{document['scenario']}"
        yield _compare_document(full_name, path, document, on, explain_equal)


def _compare_migration(name: str, path: Path) -> list[Comparison]:
    """The same for records of page migration; none if the file holds no such records."""
    try:
        return [Comparison(f"{name}/{record}", difference) for record, difference in compare_file(path)]
    except RecordError as error:
        raise ReplayError(f"{path}: {error}; give files or folders of records") from error


def _compare_document(name: str, path: Path, document: Json, on: On, explain_equal: bool) -> Comparison:
    nodes, swap = document["topology"]["nodes"], document["topology"]["swap"]
    try:
        if not 1 <= nodes <= MAX_NODES:
            raise ValueError(f"a machine of {nodes} nodes; it must have 1 to {MAX_NODES}")
        profile = profile_of_release(document["kernel"])
        topology = Topology(nodes, swap=swap)
        scenario = parse(document["text"])
        with on.machine(profile, topology) as machine:
            ours = run(scenario, machine, topology, name=document["scenario"], kernel=document["kernel"])
        difference = compare(ours, document)
        if difference is None and not explain_equal:
            return Comparison(name, None)
        reasons = shape_reasons(scenario, profile, topology)
    except (ValueError, SimulationError) as error:
        raise ReplayError(f"{path}: record {document['scenario']}: {error}") from error
    except ScenarioError as error:
        raise ReplayError(f"{path}: script of record {document['scenario']}:{error}") from error
    labels = [record["label"] for record in ours["records"]]
    return Comparison(name, difference, reasons, _before(difference, reasons, labels))


def _before(difference: Difference | None, reasons: ShapeReasons, labels: list[str]) -> tuple[Reason, ...]:
    """The reasons that were there no later than the difference; `labels` are those of all steps."""
    if difference is None:
        return ()
    until = labels[: labels.index(difference.step) + 1] if difference.step in labels else labels
    return tuple(reason for reason, steps in reasons.items() if steps[0] in until)


def _stem(path: Path, suffixes: tuple[str, ...]) -> str:
    name = path.as_posix()
    return next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}; give a file that can be read") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ScenarioError("this byte is not UTF-8; save the script as text", line, column) from error
