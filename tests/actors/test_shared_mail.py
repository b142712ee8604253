"""Mail in memory that actors of one machine share."""

from __future__ import annotations

import os
import pickle
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from actors.links.shared_mail import SharedMail, UnreadableMailError, read_mail
from cluster.wire.mailbox import Mail, Outbox, deliveries
from cluster.wire.messages import Kind

#: Unpickles mail, and prints the item keys in it.
READER = """
import pickle, sys
for mail in pickle.load(sys.stdin.buffer):
    tables = [table for of_kind in mail.tables.values() for table in of_kind]
    print(mail.sender, *(column.tolist() for table in tables for column in table.columns))
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


def put(shared_mail: SharedMail, seq: int, sent: list[Mail]) -> bytes:
    location = shared_mail.put(seq, sent)
    assert location is not None
    return location


def test_another_process_reads_it(shared_mail: SharedMail) -> None:
    location = put(shared_mail, 1, [mail(0, [5, 6, 7]), mail(3, [8])])
    ran = subprocess.run([sys.executable, "-c", READER], input=location, capture_output=True, check=True)
    assert ran.stdout.decode().splitlines() == [
        "0 [7, 6, 5] [5, 6, 7] [1, 1, 1]",
        "3 [8] [8] [1]",
    ]


def test_it_stays_for_one_superstep_more(shared_mail: SharedMail) -> None:
    location = put(shared_mail, 3, [mail(0, [5])])
    shared_mail.begin(4)
    shared_mail.put(4, [mail(0, [6])])
    assert [sent.sender for sent in pickle.loads(location)] == [0]
    shared_mail.begin(5)
    with pytest.raises(UnreadableMailError):
        pickle.loads(location)


def test_a_receiver_has_columns_of_its_own(shared_mail: SharedMail) -> None:
    (read,) = pickle.loads(put(shared_mail, 1, [mail(0, [5, 6])]))
    (view,) = read.tables[Kind.PUT][0].columns
    assert not view.flags.writeable
    inbox = list(deliveries([read], range(4)))[2]
    (column,) = inbox[Kind.PUT]
    assert not np.shares_memory(column, view)
    column += 1
    assert column.tolist() == [7, 6]


def path_of(location: bytes) -> str:
    match = re.search(rb"/proc/\d+/fd/\d+", location)
    assert match
    return match[0].decode()


def unreadable(location: bytes) -> bool:
    return read_mail({3: location}) == ([], [3])


def test_what_is_not_the_file_of_the_sender(shared_mail: SharedMail, tmp_path: Path) -> None:
    """As where the sender's number is that of another process: its descriptors may be anything."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "pickle").write_bytes(pickle.dumps([mail(0, [5])]) * 100)
    for seq, name in enumerate(("pipe", "empty", "pickle"), 1):
        location = put(shared_mail, seq, [mail(0, [5])])
        other = os.open(tmp_path / name, os.O_RDWR)
        os.dup2(other, int(Path(path_of(location)).name))
        os.close(other)
        assert unreadable(location)


def test_a_file_that_was_written_again(shared_mail: SharedMail) -> None:
    location = put(shared_mail, 1, [mail(0, [5])])
    with Path(path_of(location)).open("r+b") as file:
        file.write(b"another")
    assert unreadable(location)


def test_too_large_a_file(shared_mail: SharedMail) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
    try:
        assert shared_mail.works
        assert shared_mail.put(1, [mail(0, list(range(1000)))]) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert not shared_mail.works


def test_the_sender_reads_what_receivers_cannot(shared_mail: SharedMail) -> None:
    for seq in (1, 2):
        put(shared_mail, seq, [mail(seq, [5])])
    shared_mail.begin(2)
    assert [sent.sender for sent in shared_mail.take_back(1)] == [1]
