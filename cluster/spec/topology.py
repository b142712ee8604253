"""Distance matrices of NUMA machines, in SLIT units: 10 from a node to itself, more to any other node.

Every public function but `squarest` returns a validated int64[nodes, nodes]; row i has the distances from
node i. A matrix need not be symmetric: not all real ones are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.spec.limits import MOST_DISTANCE, MOST_NODES

Distances = NDArray[np.int64]

#: Characters of a number in a matrix.
_LONGEST_NUMBER = 20
#: Distance of a node to itself (LOCAL_DISTANCE).
LOCAL = 10
#: Distance of two nodes if the firmware does not give one (REMOTE_DISTANCE).
REMOTE = 20
#: What one hop adds: an eight-socket Opteron has the distances 10, 16 and 22.
HOP = 6
#: Nodes in a socket, sockets in a board, and the distances in a socket, in a board, and beyond.
GROUPS = (4, 4)
LEVELS = (12, 21, 32)

HOST_NODES = Path("/sys/devices/system/node")


def fully_connected(nodes: int, remote: int = REMOTE) -> Distances:
    """Return the distances of nodes that all have links to each other; `remote` for each pair."""
    return validated(np.where(np.eye(nodes, dtype=bool), LOCAL, remote))


def ring(nodes: int, hop: int = HOP) -> Distances:
    """Return the distances of nodes in a circle; `hop` for each link on the shorter way."""
    return validated(LOCAL + hop * _line(nodes, wrap=True))


def mesh(rows: int, columns: int, hop: int = HOP) -> Distances:
    """Return the distances in a grid, with nodes numbered row by row; `hop` for each link."""
    return validated(LOCAL + hop * _grid(rows, columns, wrap=False))


def torus(rows: int, columns: int, hop: int = HOP) -> Distances:
    """Return the distances in a grid whose rows and columns are rings."""
    return validated(LOCAL + hop * _grid(rows, columns, wrap=True))


def sockets(nodes: int, groups: Sequence[int] = GROUPS, distances: Sequence[int] = LEVELS) -> Distances:
    """Return the distances of nodes in sockets, sockets in boards, and so on.

    `groups` has the number of members of a group at each level, innermost first. `distances` has the distance
    of two nodes in the same group at each level, and last that of nodes in no common group; distances of
    levels above one group of all nodes may be missing. Raises ValueError if the number of distances does not
    fit.
    """
    sizes = [math.prod(groups[: level + 1]) for level in range(len(groups))]
    needed = next((level + 1 for level, size in enumerate(sizes) if size >= nodes), len(groups) + 1)
    if not needed <= len(distances) <= len(groups) + 1:
        raise ValueError(f"{len(groups)} levels of groups need {needed} distances, not {len(distances)}")
    node = np.arange(nodes)
    matrix = np.full((nodes, nodes), distances[needed - 1])
    for level in reversed(range(min(needed, len(groups)))):
        group = node // sizes[level]
        matrix[group[:, None] == group[None, :]] = distances[level]
    np.fill_diagonal(matrix, LOCAL)
    return validated(matrix)


def squarest(nodes: int) -> tuple[int, int]:
    """Return rows and columns of the grid with so many nodes that is nearest to a square."""
    rows = next(r for r in range(math.isqrt(nodes), 0, -1) if nodes % r == 0)
    return rows, nodes // rows


def parse(text: str) -> Distances:
    """Return the matrix that a text holds: rows of numbers, or the output of `numactl --hardware`.

    Ignores empty lines, and everything after a #. Raises ValueError if the text is no matrix of distances.
    """
    _, _, table = text.rpartition("node distances:")
    lines = [line.partition("#")[0].strip() for line in table.splitlines()]
    rows = [re.sub(r"^\d+:", "", line).split() for line in lines if line and not line.startswith("node ")]
    return from_rows(numbers(rows))


def numbers(rows: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the distances that words are. Raises ValueError if they are too many, or no distances."""
    if max([len(rows), *map(len, rows)]) > MOST_NODES:
        raise ValueError(f"a matrix of more than {MOST_NODES} nodes")
    if wrong := [word for row in rows for word in row if len(word) > _LONGEST_NUMBER]:
        raise ValueError(f"{wrong[0][:_LONGEST_NUMBER]}... is no distance")
    try:
        return [[int(word) for word in row] for row in rows]
    except ValueError as error:
        raise ValueError(f"not a matrix of whole numbers ({error})") from None


def host(root: Path = HOST_NODES) -> Distances:
    """Return the distances of this host, from sysfs. Raises ValueError if sysfs has none."""
    files = sorted(root.glob("node[0-9]*/distance"), key=lambda file: int(file.parent.name[4:]))
    if not files:
        raise ValueError(f"this host does not list its NUMA nodes ({root})")
    return from_rows([[int(word) for word in file.read_text().split()] for file in files])


def from_rows(rows: Sequence[Sequence[int]]) -> Distances:
    """Return a matrix from rows of numbers. Raises ValueError if it is not square, or as `validated` does."""
    for number, row in enumerate(rows):
        if len(row) != len(rows):
            raise ValueError(f"not square: {len(rows)} rows, but row {number} has {len(row)} numbers")
    if rows and max(max(row) for row in rows) > MOST_DISTANCE:
        raise ValueError(f"a distance is above {MOST_DISTANCE}")
    if rows and min(min(row) for row in rows) < 0:
        raise ValueError("a distance is below 0")
    return validated(np.array(rows, dtype=np.int64).reshape(len(rows), len(rows)))


def validated(matrix: NDArray[np.integer]) -> Distances:
    """Return the matrix as int64. Raises ValueError if it cannot be a matrix of distances."""
    if matrix.size == 0:
        raise ValueError("no nodes")
    if matrix.max() > MOST_DISTANCE:
        raise ValueError(f"the distance {matrix.max()} is above {MOST_DISTANCE}")
    wrong = np.flatnonzero(np.diagonal(matrix) != LOCAL)
    if wrong.size:
        raise ValueError(f"a node's distance to itself is {LOCAL}, not {matrix[wrong[0], wrong[0]]}")
    near = np.argwhere((matrix <= LOCAL) & ~np.eye(len(matrix), dtype=bool))
    if near.size:
        source, target = near[0]
        raise ValueError(
            f"the distance from node {source} to node {target} is {matrix[source, target]}, not above {LOCAL}"
        )
    return matrix.astype(np.int64)


def _line(nodes: int, *, wrap: bool) -> Distances:
    node = np.arange(nodes)
    apart: Distances = np.abs(node[:, None] - node[None, :])
    if wrap:
        apart = np.minimum(apart, nodes - apart)
    return apart


def _grid(rows: int, columns: int, *, wrap: bool) -> Distances:
    row, column = np.divmod(np.arange(rows * columns), columns)
    down, across = _line(rows, wrap=wrap), _line(columns, wrap=wrap)
    grid: Distances = down[np.ix_(row, row)] + across[np.ix_(column, column)]
    return grid
