"""What an actor does with the mail that is under way to it: it reads or maps it, wherever it is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

from actors.links.far_mail import FarLocation, fetched
from actors.links.shared_mail import UnreadableMailError
from cluster.wire.mailbox import Mail


def read_mail(pickled: Mapping[int, bytes], low: int, high: int) -> tuple[list[Mail], list[int]]:
    """Read the mail of each sender to nodes low..high-1, and maybe more.

    Returns the mail, and the senders whose mail cannot be read.
    """
    mail: list[Mail] = []
    unreadable = []
    far: dict[int, FarLocation] = {}
    for sender, packed in pickled.items():
        try:
            found = pickle.loads(packed)
        except UnreadableMailError:
            unreadable.append(sender)
            continue
        if isinstance(found, FarLocation):
            far[sender] = found
        else:
            mail += found
    read = fetched(far, low, high)
    mail += (sent for of_sender in read.values() for sent in of_sender)
    return mail, [*unreadable, *(far.keys() - read.keys())]
