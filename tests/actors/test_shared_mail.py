"""Mail in memory that actors of one machine share."""

from __future__ import annotations

import os
import pickle
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from actors.links.mail_file import MailFile, columns_file, parcels_file
from actors.links.shared_file import UnreadableMailError
from actors.links.shared_mail import SharedMail, read_mail
from cluster.wire.mailbox import Mail, Outbox, among, deliveries
from cluster.wire.messages import Kind
from cluster.wire.parcels import packed, together

#: Unpickles mail, and prints the columns in it.
READER = """
import sys
from actors.links.shared_mail import read_mail
from cluster.wire.parcels import together
mail, parcels, _ = read_mail({0: sys.stdin.buffer.read()})
for mail in together(mail, parcels):
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


def in_columns(*sent: Mail) -> MailFile:
    """To actor 1, which has nodes 1 and 2, and to actor 2."""
    return columns_file(list(sent), [1, 2])


def in_parcels(*sent: Mail) -> MailFile:
    return parcels_file(sent[0].sender, dict(zip([1, 2], packed(sent, [(1, 3), (3, 4)]), strict=True)))


LAYOUTS = pytest.mark.parametrize("made", [in_columns, in_parcels])


def put(shared_mail: SharedMail, seq: int, made: MailFile) -> bytes:
    """Return where the mail to actor 1 is."""
    return shared_mail.put(seq, made)[1]


def read_by_another_process(location: bytes) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", READER], input=location, capture_output=True, check=True)
    return ran.stdout.decode().splitlines()


def test_another_process_reads_it(shared_mail: SharedMail) -> None:
    sent = mail(0, [5, 6, 7]), mail(3, [8])
    assert read_by_another_process(put(shared_mail, 1, in_columns(*sent))) == [
        "0 [7, 6, 5] [5, 6, 7] [1, 1, 1]",
        "3 [8] [8] [1]",
    ]
    assert read_by_another_process(put(shared_mail, 2, in_parcels(*sent))) == [
        "0 [7, 6, 5, 8] [5, 6, 7, 8] [1, 1, 1, 1]",
    ]


@LAYOUTS
def test_it_stays_for_one_superstep_more(shared_mail: SharedMail, made: Callable[..., MailFile]) -> None:
    location = put(shared_mail, 3, made(mail(0, [5])))
    shared_mail.begin(4)
    shared_mail.put(4, made(mail(0, [6])))
    assert not unreadable(location)
    shared_mail.begin(5)
    with pytest.raises(UnreadableMailError):
        pickle.loads(location)


def test_a_receiver_has_columns_of_its_own(shared_mail: SharedMail) -> None:
    (read,) = pickle.loads(put(shared_mail, 1, in_columns(mail(0, [5, 6]))))
    (view,) = read.tables[Kind.PUT][0].columns
    assert not view.flags.writeable
    inbox = list(deliveries([read], range(4)))[2]
    (column,) = inbox[Kind.PUT]
    assert not np.shares_memory(column, view)
    column += 1
    assert column.tolist() == [7, 6]


def test_a_parcel_is_of_its_receiver_alone(shared_mail: SharedMail) -> None:
    out = Outbox(0, 4)
    out.send(Kind.PUT, np.array([1, 3, 2, 3]), np.arange(4))
    locations = shared_mail.put(1, in_parcels(out.pack()))
    (one,), (two,) = (together([], [pickle.loads(locations[actor])]) for actor in (1, 2))
    assert (one.to, two.to) == ((1, 2), (3,))
    (column,) = two.tables[Kind.PUT][0].columns
    assert column.tolist() == [1, 3]


def path_of(location: bytes) -> str:
    match = re.search(rb"/proc/\d+/fd/\d+", location)
    assert match
    return match[0].decode()


def unreadable(location: bytes) -> bool:
    return read_mail({3: location}) == ([], [], [3])


@LAYOUTS
def test_what_is_not_the_file_of_the_sender(
    shared_mail: SharedMail, tmp_path: Path, made: Callable[..., MailFile]
) -> None:
    """As where the sender's number is that of another process: its descriptors may be anything."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "pickle").write_bytes(pickle.dumps([mail(0, [5])]) * 100)
    for seq, name in enumerate(("pipe", "empty", "pickle"), 1):
        location = put(shared_mail, seq, made(mail(0, [5])))
        other = os.open(tmp_path / name, os.O_RDWR)
        os.dup2(other, int(Path(path_of(location)).name))
        os.close(other)
        assert unreadable(location)


@LAYOUTS
def test_a_file_that_was_written_again(shared_mail: SharedMail, made: Callable[..., MailFile]) -> None:
    location = put(shared_mail, 1, made(mail(0, [5])))
    with Path(path_of(location)).open("r+b") as file:
        file.write(b"another")
    assert unreadable(location)


def test_too_large_a_file(shared_mail: SharedMail) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
    try:
        assert shared_mail.works
        assert shared_mail.put(1, in_columns(mail(0, list(range(1000))))) == {}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert not shared_mail.works


@LAYOUTS
def test_the_sender_reads_what_receivers_cannot(
    shared_mail: SharedMail, made: Callable[..., MailFile]
) -> None:
    for seq in (1, 2):
        put(shared_mail, seq, made(mail(seq, [5])))
    shared_mail.begin(2)
    assert [(sent.sender, sent.to) for sent in among(shared_mail.take_back(1), 1, 3)] == [(1, (1, 2))]
