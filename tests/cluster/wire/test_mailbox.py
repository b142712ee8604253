"""Rows arrive where they were sent, in order, however mail is cut into parts on its way."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.wire import mailbox
from cluster.wire.mailbox import Mail, Outbox
from cluster.wire.messages import Kind

NODES = 5
ONE = np.ones(1, np.int64)
ROWS = st.lists(
    st.tuples(st.sampled_from([Kind.PUT, Kind.GET, Kind.FILL]), st.integers(0, NODES - 1)), max_size=30
)


def mail_of(sender: int, rows: list[tuple[Kind, int]]) -> Mail:
    """The first column of a row is its number; a row of FILL has a page full of it."""
    out = Outbox(sender, NODES)
    for number, (kind, to) in enumerate(rows):
        page = np.full((1, 4096), number, np.uint8)
        more = {Kind.PUT: [], Kind.GET: [ONE], Kind.FILL: [ONE.astype(np.uint64), page]}[kind]
        out.send(kind, to, np.array([number]), *more)
    return out.pack()


@given(
    st.tuples(ROWS, ROWS),
    st.sets(st.integers(1, NODES - 1)),
    st.integers(0, NODES - 1),
    st.sampled_from([1, 4, mailbox.TABLE_ROWS]),
    st.sampled_from([1, 2, mailbox.BLOCK]),
    st.sampled_from([0, mailbox.FEW_ROWS]),
    st.sampled_from([0, mailbox.NARROW_ROWS]),
    st.booleans(),
)
def test_every_node_gets_what_was_sent_to_it(
    rows: tuple[list[tuple[Kind, int]], list[tuple[Kind, int]]],
    cuts: set[int],
    node: int,
    table_rows: int,
    block: int,
    few_rows: int,
    narrow_rows: int,
    merging: bool,
) -> None:
    """However rows are cut into tables, and put together on their way."""
    changed = {"TABLE_ROWS": table_rows, "BLOCK": block, "FEW_ROWS": few_rows, "NARROW_ROWS": narrow_rows}
    with mock.patch.multiple(mailbox, **changed):
        _check_mail(rows, cuts, node, merging=merging)


def _check_mail(
    rows: tuple[list[tuple[Kind, int]], list[tuple[Kind, int]]], cuts: set[int], node: int, *, merging: bool
) -> None:
    edges = [0, *sorted(cuts), NODES]
    parts: list[Mail] = []
    for sender, sent in enumerate(rows):
        whole = mail_of(sender, sent)
        assert whole.to == tuple(sorted({to for _, to in sent}))
        # The sender's process keeps its own mail as it is.
        ours, others = whole.among(*edges[:2]), whole.among(edges[1], NODES).narrowed()
        pieces = [ours, *(others.among(low, high) for low, high in pairwise(edges[1:]))]
        parts += pickle.loads(pickle.dumps(pieces, 5))
    if merging:
        parts = mailbox.merged(parts)
    got = list(mailbox.deliveries(parts, range(NODES)))[node]
    assert not parts
    wanted = {
        kind: [number for sent in rows for number, row in enumerate(sent) if row == (kind, node)]
        for kind in (Kind.PUT, Kind.GET, Kind.FILL)
    }
    assert list(got) == [kind for kind in sorted(wanted) if wanted[kind]]
    assert all(columns[0].tolist() == wanted[kind] for kind, columns in got.items())
    if wanted[Kind.FILL]:
        assert got[Kind.FILL][2].tolist() == [[number] * 4096 for number in wanted[Kind.FILL]]


def test_bytes_sent_are_those_to_others() -> None:
    out = Outbox(1, NODES)
    out.send(Kind.PUT, np.array([0, 1, 1, 2]), np.arange(4))
    out.send(Kind.FILL, 3, np.arange(2), np.arange(2, dtype=np.uint64), np.zeros((2, 4096), np.uint8))
    out.pack()
    assert out.bytes_sent == 2 * 8 + 2 * (8 + 8 + 4096)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        (Kind.PUT, [np.ones(1, np.uint64)]),
        (Kind.GET, [ONE]),
        (Kind.PUT, [ONE, ONE]),
        (Kind.GET, [ONE, np.arange(2)]),
        (Kind.GET, [ONE, np.ones((1, 4096), np.uint8)]),
        (Kind.FILL, [ONE, ONE.astype(np.uint64), np.ones((1, 4095), np.uint8)]),
    ],
)
def test_only_the_columns_of_the_schema_can_be_sent(kind: Kind, columns: list[Any]) -> None:
    with pytest.raises(TypeError, match=f"{kind.name} has columns"):
        Outbox(0, NODES).send(kind, 1, *columns)
