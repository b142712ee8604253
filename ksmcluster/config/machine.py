"""The tables [machine] and [machine.topology]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_serializer, field_validator, model_validator

from cluster.spec import topology
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_DISTANCE, MOST_NODES, MOST_TEXT
from ksmcluster.config.problems import did_you_mean, refusal
from ksmcluster.config.sizes import MemoryPages
from ksmcluster.config.tables import ConfigTable, Numbers, Switched, base_directory, key

TopologyKind = Literal["fully-connected", "ring", "mesh", "torus", "sockets", "matrix", "host", "file"]
#: Nested groups of nodes.
_MOST_LEVELS = 16
Distance = Annotated[int, Field(ge=1, le=MOST_DISTANCE)]
TOPOLOGIES: tuple[str, ...] = get_args(TopologyKind)
Side = Annotated[int, Field(ge=1, le=MOST_NODES)]
Groups = Annotated[tuple[Side, ...], Field(strict=False, max_length=_MOST_LEVELS)]
Matrix = Annotated[tuple[Numbers, ...], Field(strict=False)]


class TopologyConfig(ConfigTable):
    """The source of the distances between nodes. A text alone is the kind, or the name of a file."""

    kind: TopologyKind = key(
        "fully-connected",
        "Shape of the machine. `host` takes the distances of this machine from sysfs, `file` those of a text "
        "file (rows of numbers, or the output of `numactl --hardware`); both become a `matrix`.",
    )
    remote: Distance | None = key(None, "Distance between any two nodes.", "SLIT units")
    hop: Distance | None = key(None, "Distance that each link on the way adds.", "SLIT units")
    rows: Side | None = key(None, "Rows of the grid; by default it is as square as possible.")
    columns: Side | None = key(None, "Columns of the grid.")
    groups: Groups | None = key(
        None,
        "Nodes per socket, sockets per board, and so on. Each group must be full, except one that has all "
        "nodes.",
    )
    distances: Numbers | None = key(
        None,
        "Distances within a socket, within a board, and so on; the last one between nodes that share no "
        "group. Distances above a group of all nodes may be left out.",
        "SLIT units",
    )
    matrix: Matrix | None = key(None, 'Distances, a text for each node: `["10 21", "21 10"]`.', "SLIT units")
    path: str | None = key(None, "The text file. A relative path starts at the scenario's directory.")

    KEYS: ClassVar[Switched] = {
        "remote": (("fully-connected",), topology.REMOTE),
        "hop": (("ring", "mesh", "torus"), topology.HOP),
        "rows": (("mesh", "torus"), None),
        "columns": (("mesh", "torus"), None),
        "groups": (("sockets",), topology.GROUPS),
        "distances": (("sockets",), topology.LEVELS),
        "matrix": (("matrix",), ...),
        "path": (("file",), ...),
    }

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: object, info: ValidationInfo) -> object:
        if isinstance(data, str):
            data = {"kind": data} if data in TOPOLOGIES else {"kind": "file", "path": data}
        if not isinstance(data, dict) or data.get("kind") not in ("host", "file"):
            return data
        others = {name: value for name, value in data.items() if name not in ("kind", "path")}
        return {**others, "kind": "matrix", "matrix": _read_matrix(data, info)}

    @field_validator("matrix", mode="before")
    @classmethod
    def _rows_of_text(cls, rows: object) -> object:
        if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
            return rows
        return topology.numbers([row.split() for row in rows])

    @field_serializer("matrix")
    def _text_of_rows(self, rows: tuple[tuple[int, ...], ...] | None) -> list[str] | None:
        return None if rows is None else [" ".join(map(str, row)) for row in rows]

    @model_validator(mode="after")
    def _settle(self) -> Self:
        given = self.distances is not None
        self.settle("kind", self.KEYS)
        if self.groups is not None and not given:
            self.distances = topology.LEVELS[: len(self.groups) + 1]
        return self

    def incomplete_group(self, nodes: int) -> int | None:
        """Return the size of the first groups that are not all full; None if there are none."""
        sizes = (math.prod((self.groups or ())[:level]) for level in range(1, len(self.groups or ()) + 1))
        return next((size for size in sizes if size < nodes and nodes % size), None)

    def shape(self, nodes: int) -> None:
        """Fill in the missing sides of a grid of `nodes` nodes."""
        if self.kind not in ("mesh", "torus"):
            return
        if self.rows is None and self.columns is None:
            self.rows, self.columns = topology.squarest(nodes)
        self.rows = self.rows or max(1, nodes // (self.columns or 1))
        self.columns = self.columns or max(1, nodes // self.rows)

    def build(self, nodes: int) -> topology.Distances:
        """Return the distance matrix. Raises ValueError if the numbers are inconsistent."""
        sides = (self.rows or 0) * (self.columns or 0)
        if self.kind in ("mesh", "torus") and sides != nodes:
            rows, columns = topology.squarest(nodes)
            raise ValueError(
                f"has {sides} nodes, but machine.nodes is {nodes}; "
                f"for example, give rows = {rows} and columns = {columns}"
            )
        match self.kind:
            case "ring":
                matrix = topology.ring(nodes, self.hop or 0)
            case "mesh":
                matrix = topology.mesh(self.rows or 0, self.columns or 0, self.hop or 0)
            case "torus":
                matrix = topology.torus(self.rows or 0, self.columns or 0, self.hop or 0)
            case "sockets":
                matrix = topology.sockets(nodes, self.groups or (), self.distances or ())
            case "matrix":
                matrix = topology.from_rows(self.matrix or ())
            case _:
                matrix = topology.fully_connected(nodes, self.remote or 0)
        if len(matrix) != nodes:
            raise ValueError(
                f"has {len(matrix)} nodes, but machine.nodes is {nodes}; give a topology of as many"
            )
        return matrix


def fit(topology: TopologyConfig, nodes: int) -> None:
    """Fill in the shape of a machine with `nodes` nodes. Raises a refusal if the numbers do not fit."""
    if size := topology.incomplete_group(nodes):
        groups = ", ".join(map(str, topology.groups or ()))
        text = f"{nodes} nodes cannot form groups of {size}, which topology.groups = [{groups}] requires"
        raise refusal([("nodes", text)])
    topology.shape(nodes)
    try:
        topology.build(nodes)
    except ValueError as error:
        raise refusal([("topology", str(error))]) from None


def _read_matrix(data: Mapping[str, object], info: ValidationInfo) -> list[list[int]]:
    if data["kind"] == "host":
        return _rows(topology.host())
    path = data.get("path")
    if not isinstance(path, str):
        raise refusal([("path", 'is missing; kind = "file" needs it')])
    file = base_directory(info) / path
    try:
        text = read_input(file, MOST_TEXT).decode()
    except FileNotFoundError:
        hint = did_you_mean(path, TOPOLOGIES)
        raise ValueError(f'"{path}" is neither a topology nor an existing file{hint}') from None
    except OSError as error:
        raise ValueError(f'"{path}" is not a topology, and not a readable file: {error.strerror}') from None
    try:
        return _rows(topology.parse(text))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _rows(matrix: topology.Distances) -> list[list[int]]:
    return [[int(distance) for distance in row] for row in matrix]


class MachineConfig(ConfigTable):
    """The NUMA machine."""

    nodes: int = Field(ge=1, le=MOST_NODES, description="NUMA nodes.")
    memory_per_node: MemoryPages = key(..., "Physical memory of each node.", "size")
    content: Literal["symbolic", "bytes"] = key(
        "symbolic",
        "What a page holds: a 64-bit name of its content (scales well), or real bytes, hashed and compared.",
    )
    topology: TopologyConfig = Field(
        default_factory=lambda: TopologyConfig(), description="Distances between the nodes."
    )

    @model_validator(mode="after")
    def _shape(self) -> Self:
        fit(self.topology, self.nodes)
        return self
