"""Parcels hold what was sent to the nodes of their receiver, in order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cluster.wire.mailbox import Mail, Outbox, among, deliveries, merged
from cluster.wire.messages import Kind
from cluster.wire.parcels import Parcel, packed, together
from tests.cluster.wire.test_mailbox import NODES, ROWS, mail_of


@given(
    st.lists(ROWS, min_size=NODES, max_size=NODES),
    st.sets(st.integers(1, NODES - 1)),
    st.integers(0, NODES - 1),
    st.lists(st.sampled_from(["parcel", "columns", "narrow"]), min_size=NODES, max_size=NODES),
    st.booleans(),
)
def test_every_actor_gets_what_was_sent_to_its_nodes(
    rows: list[list[tuple[Kind, int]]], cuts: set[int], receiver: int, ways: list[str], merging: bool
) -> None:
    """From nodes of several actors, of which some send no parcels."""
    ranges = list(pairwise([0, *sorted(cuts), NODES]))
    low, high = next(range_ for range_ in ranges if range_[0] <= receiver < range_[1])
    mail: list[Mail] = []
    parcels: list[Parcel] = []
    for (first, last), way in zip(ranges, ways, strict=False):
        sent = [mail_of(sender, rows[sender]) for sender in range(first, last)]
        if merging:
            sent = merged(sent)
        if way == "parcel":
            made = packed(sent, ranges)[ranges.index((low, high))]
            parcels.append(Parcel(first, memoryview(made)))
        else:
            mail += among([part.narrowed() if way == "narrow" else part for part in sent], low, high)
    got = dict(zip(range(low, high), deliveries(together(mail, parcels), range(low, high)), strict=True))
    for node, inbox in got.items():
        for kind in (Kind.PUT, Kind.GET, Kind.FILL):
            wanted = [n for sent in rows for n, row in enumerate(sent) if row == (kind, node)]
            assert inbox[kind][0].tolist() == wanted if wanted else kind not in inbox
            if wanted and kind is Kind.FILL:
                assert inbox[kind][2].tolist() == [[number] * 4096 for number in wanted]


def test_each_kind_has_the_columns_of_its_schema() -> None:
    out = Outbox(2, NODES)
    keys, digests = np.array([1 << 62, -1]), np.array([1, (1 << 64) - 1], np.uint64)
    out.send(Kind.EVENT, 1, digests, keys, keys + 1, np.array([7, 255], np.uint8))
    out.send(Kind.PUT, np.array([1, 4]), keys)
    (parcel,) = packed([out.pack()], [(0, 2)])
    (mail,) = together([], [Parcel(2, parcel)])
    assert (mail.sender, mail.to) == (2, (1,))
    (event,), (put,) = mail.tables[Kind.EVENT], mail.tables[Kind.PUT]
    assert [column.tolist() for column in event.columns] == [
        digests.tolist(),
        keys.tolist(),
        [(1 << 62) + 1, 0],
        [7, 255],
    ]
    assert put.columns[0].tolist() == [1 << 62]
    assert all(column.flags.owndata and column.flags.writeable for column in (*event.columns, *put.columns))
