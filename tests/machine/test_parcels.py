"""Parcels that go to another process arrive as they were sent."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cluster.mailbox import Inbox, Kind, receive
from cluster.parcels import Parcels, packed, unpacked
from cluster.words import Array

NODES = 4
#: Some kinds with columns of theirs; a byte column leaves the one behind it unaligned.
COLUMNS = {
    Kind.PUT: (np.int64,),
    Kind.EVENT: (np.uint64, np.int64, np.int64, np.uint8),
    Kind.FILL: (np.int64, np.uint64),
}


def table(kind: Kind, rows: int, seed: int) -> tuple[Array, ...]:
    draws = np.random.default_rng(seed)
    return tuple(draws.integers(0, 200, rows).astype(dtype) for dtype in COLUMNS[kind])


inboxes = st.dictionaries(st.sampled_from(list(COLUMNS)), st.integers(1, 5), min_size=1)
sent = st.dictionaries(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), inboxes, min_size=1)


def received(parcels: Parcels, node: int) -> Inbox:
    return receive(inbox for _, to, inbox in sorted(parcels, key=lambda p: p[0]) if to == node)


@given(sent, st.integers(0, 1000), st.booleans())
def test_every_node_gets_what_was_sent_to_it(
    rows: dict[tuple[int, int], dict[Kind, int]], seed: int, as_bytes: bool
) -> None:
    parcels: Parcels = [
        (sender, to, {kind: table(kind, count, seed + 10 * sender + to) for kind, count in of.items()})
        for (sender, to), of in rows.items()
    ]
    buffer = packed(parcels)
    arrived = unpacked(buffer.tobytes() if as_bytes else buffer, range(1, NODES))
    assert {to for _, to, _ in arrived} == {to for _, to, _ in parcels} - {0}
    for node in range(1, NODES):
        ours, theirs = received(arrived, node), received(parcels, node)
        assert list(ours) == list(theirs)
        for kind, columns in theirs.items():
            for mine, column in zip(ours[kind], columns, strict=True):
                assert mine.dtype == column.dtype
                assert mine.tolist() == column.tolist()


def test_pages_go_with_their_rows() -> None:
    pages = np.arange(2 * 4096, dtype=np.uint64).astype(np.uint8).reshape(2, 4096)
    inbox: Inbox = {Kind.FILL: (np.array([7, 8]), np.array([1, 2], np.uint64), pages)}
    ((sender, to, arrived),) = unpacked(packed([(3, 2, inbox)]), [2])
    assert (sender, to) == (3, 2)
    assert np.array_equal(arrived[Kind.FILL][2], pages)
