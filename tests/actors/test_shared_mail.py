"""Mail in memory that actors of one machine share."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from actors.simulation.shared_mail import SharedMail
from cluster.wire.mailbox import Mail, Outbox, receive
from cluster.wire.messages import Kind

#: Unpickles mail, and prints the item keys in it.
READER = """
import pickle, sys
for mail in pickle.load(sys.stdin.buffer):
    print(mail.sender, *(column.tolist() for table in mail.tables.values() for column in table.columns))
"""


def mail(sender: int, keys: list[int]) -> Mail:
    out = Outbox(sender, 4)
    # Columns of eight bytes and of one: what comes behind would not be aligned by itself.
    out.send(Kind.ADDED_TO_STABLE, 1, np.array(keys), np.ones(len(keys), np.uint8))
    out.send(Kind.PUT, 2, np.array(keys[::-1]))
    return out.pack()


@pytest.fixture
def shared_mail() -> Iterator[SharedMail]:
    with closing(SharedMail()) as shared_mail:
        yield shared_mail


def test_another_process_reads_it(shared_mail: SharedMail) -> None:
    location = shared_mail.put(1, [mail(0, [5, 6, 7]), mail(3, [8])])
    ran = subprocess.run([sys.executable, "-c", READER], input=location, capture_output=True, check=True)
    assert ran.stdout.decode().splitlines() == [
        "0 [7, 6, 5] [5, 6, 7] [1, 1, 1]",
        "3 [8] [8] [1]",
    ]


def test_it_stays_for_one_superstep_more(shared_mail: SharedMail) -> None:
    location = shared_mail.put(3, [mail(0, [5])])
    shared_mail.begin(4)
    shared_mail.put(4, [mail(0, [6])])
    assert [sent.sender for sent in pickle.loads(location)] == [0]
    shared_mail.begin(5)
    with pytest.raises(FileNotFoundError):
        pickle.loads(location)


def test_a_receiver_has_columns_of_its_own(shared_mail: SharedMail) -> None:
    (read,) = pickle.loads(shared_mail.put(1, [mail(0, [5, 6])]))
    views = read.inboxes()[2][Kind.PUT]
    assert not views[0].flags.writeable
    (column,) = receive([read.inboxes()[2]])[Kind.PUT]
    assert not np.shares_memory(column, views[0])
    column += 1
    assert column.tolist() == [7, 6]
