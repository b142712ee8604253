from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.spec import topology
from ksmcluster.config import Overrides, load
from ksmcluster.config.machine import TopologyConfig
from ksmcluster.system.errors import UserError


def test_fully_connected() -> None:
    assert topology.fully_connected(3, 21).tolist() == [[10, 21, 21], [21, 10, 21], [21, 21, 10]]


def test_ring_goes_the_shorter_way() -> None:
    assert topology.ring(5, 10)[0].tolist() == [10, 20, 30, 30, 20]


def test_mesh_counts_rows_and_columns() -> None:
    # 0 1 2
    # 3 4 5
    assert topology.mesh(2, 3, 6)[0].tolist() == [10, 16, 22, 16, 22, 28]


def test_torus_closes_rows_and_columns() -> None:
    assert topology.torus(1, 4, 6)[0].tolist() == [10, 16, 22, 16]
    assert topology.torus(4, 1, 6)[0].tolist() == [10, 16, 22, 16]


def test_sockets_and_boards() -> None:
    row = topology.sockets(8, groups=(2, 2), distances=(12, 21, 32))[0]
    assert row.tolist() == [10, 12, 21, 21, 32, 32, 32, 32]


def test_sockets_need_a_distance_more_than_levels() -> None:
    with pytest.raises(ValueError, match="2 levels of groups need 3 distances"):
        topology.sockets(8, groups=(2, 2), distances=(12, 21))
    with pytest.raises(ValueError, match="1 levels of groups need 1 distances, not 3"):
        topology.sockets(2, groups=(2,), distances=(12, 21, 32))


def test_sockets_need_no_distance_that_no_two_nodes_have() -> None:
    full = topology.sockets(4, groups=(2, 2), distances=(12, 21, 32))
    assert topology.sockets(4, groups=(2, 2), distances=(12, 21)).tolist() == full.tolist()
    assert topology.sockets(2, groups=(2, 2), distances=(12,)).tolist() == [[10, 12], [12, 10]]
    assert topology.sockets(1, groups=(2, 2), distances=(12,)).tolist() == [[10]]
    assert (
        topology.sockets(3, groups=(), distances=(21,)).tolist() == topology.fully_connected(3, 21).tolist()
    )


@pytest.mark.parametrize(
    ("nodes", "groups", "size"),
    [(8, [4, 4], None), (3, [4], None), (6, [4], 4), (24, [4, 4], 16), (64, [4, 4], None), (7, [1, 7], None)],
)
def test_groups_are_full_unless_all_nodes_are_in_one(nodes: int, groups: list[int], size: int | None) -> None:
    found = TopologyConfig.model_validate({"kind": "sockets", "groups": groups})
    assert found.incomplete_group(nodes) == size


def test_a_refusal_of_incomplete_groups_names_the_option() -> None:
    with pytest.raises(UserError) as error:
        load("default", Overrides(nodes=100))
    assert str(error.value) == (
        "--nodes: 100 nodes cannot form groups of 16, which topology.groups = [4, 4] requires"
    )


@pytest.mark.parametrize(("nodes", "shape"), [(1, (1, 1)), (7, (1, 7)), (12, (3, 4)), (64, (8, 8))])
def test_squarest(nodes: int, shape: tuple[int, int]) -> None:
    assert topology.squarest(nodes) == shape


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 20))
def test_grids_are_metrics(rows: int, columns: int, hop: int) -> None:
    for matrix in (topology.mesh(rows, columns, hop), topology.torus(rows, columns, hop)):
        assert matrix.dtype == np.int64
        assert (matrix == matrix.T).all()
        apart = matrix - topology.LOCAL
        assert (apart[:, None, :] <= apart[:, :, None] + apart[None, :, :]).all()


NUMACTL = """\
available: 2 nodes (0-1)
node 0 cpus: 0 1
node 0 size: 64000 MB
node 1 cpus: 2 3
node 1 size: 64000 MB
node distances:
node   0   1
  0:  10  21
  1:  20  10
"""


@pytest.mark.parametrize("text", [NUMACTL, "10 21\n20 10\n", "# mine\n\n10\t21 # first\n20 10"])
def test_text_of_distances(text: str) -> None:
    assert topology.parse(text).tolist() == [[10, 21], [20, 10]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no nodes"),
        ("10 20\n", "not square: 1 rows, but row 0 has 2 numbers"),
        ("10 far\n20 10\n", "not a matrix of whole numbers"),
        ("11 20\n20 10\n", "a node's distance to itself is 10, not 11"),
        ("10 -9999999999999999999\n20 10\n", "a distance is below 0"),
        ("10 20\n10 10\n", "the distance from node 1 to node 0 is 10, not above 10"),
    ],
)
def test_what_is_no_matrix(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.parse(text)


def test_nodes_of_the_host_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for node in range(11):
        directory = tmp_path / f"node{node}"
        directory.mkdir()
        distances = ["10" if other == node else str(20 + other) for other in range(11)]
        (directory / "distance").write_text(" ".join(distances) + "\n")
    assert topology.host(tmp_path)[10].tolist() == [*range(20, 30), 10]


def test_a_host_without_numa(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not list its NUMA nodes"):
        topology.host(tmp_path)
