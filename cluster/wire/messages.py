"""The messages that nodes send each other: every kind, its columns, and whether a node replies to it.

A new kind of message is declared here, in `Kind` and in `MESSAGES`, and gets its handler in the table of
`cluster/machine/node.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from cluster.arrays.words import Array
from cluster.spec.content import PAGE_SIZE


class Kind(IntEnum):
    """The kinds of messages; `MESSAGES` says what each means. A node takes in lower kinds first."""

    ALLOC = 0
    ALLOC_REPLY = 1
    SET_CONTENT = 2
    GET = 3
    PUT = 4
    CONTENT_REQUEST = 5
    CONTENT_REPLY = 6
    EVENT = 7
    WITHDRAW = 8
    STALE = 9
    DROPPED = 10
    DROPPED_AT = 11
    WAIT = 12
    REKEY = 13
    STABLE = 14
    MERGE = 15
    MAKE_KSM = 16
    COMPARE_SOURCE = 17
    COMPARE_TARGET = 18
    VERDICT = 19
    RECOUNT = 20
    WAIT_FRAME = 21
    COPY = 22
    FILL = 23
    ADDED_TO_STABLE = 24
    REMOVED_FROM_TREES = 25
    BREAK = 26
    MAP_ZERO = 27
    PIN = 28
    UNPIN = 29
    SWAP_REQUEST = 30
    SWAP_REPLY = 31
    MIGRATE = 32
    RMAP_WALK = 33
    RMAP_FOUND = 34
    MOVE_IN = 35
    MOVED = 36
    MOVED_OUT = 37
    MIGRATING = 38
    UNLINKED = 39
    LINKED = 40
    WAIT_CONTENT = 41
    HELD = 42
    MAPPED = 43
    CACHED = 44
    UNMAPPED = 45
    ORPHANED = 46
    ALLOC_HUGE = 47
    ALLOC_HUGE_REPLY = 48
    SPLIT_TRY = 49
    SPLIT_AT = 50
    ZEROED = 51
    SPLIT = 52
    REHOME = 53


#: Name and dtype of a column.
Column = tuple[str, type[np.generic]]


class Message(NamedTuple):
    """The schema of one kind of message."""

    meaning: str
    columns: tuple[Column, ...]
    #: A node sends nothing in reply, and the message may arrive together with the next command.
    quiet: bool = False
    #: If contents are bytes, one more column follows: uint8[n, PAGE_SIZE], the bytes of each page.
    data: bool = False


_SLOT: Column = ("slot", np.int64)
_KEY: Column = ("item_key", np.int64)
_FRAME: Column = ("frame", np.int64)
_DIGEST: Column = ("digest", np.uint64)
_ID: Column = ("content_id", np.uint64)
_COUNT: Column = ("count", np.int64)
_NODE: Column = ("node", np.int64)
_BLOCK: Column = ("block", np.int64)
_POSITION: Column = ("position", np.int64)
_NTH: Column = ("nth", np.int64)
_ALLOC: tuple[Column, ...] = (_ID, ("attempt", np.uint16), ("source", np.int64))

MESSAGES: dict[Kind, Message] = {
    # Frames and mappings.
    Kind.ALLOC: Message(
        "A page of the sender needs a frame; `source` as in `cluster.mm.page_alloc.PageAllocator`.",
        (_SLOT, _KEY, *_ALLOC),
    ),
    Kind.ALLOC_REPLY: Message("The frame, or -1 if there is no free one.", (_SLOT, _FRAME, *_ALLOC)),
    Kind.ALLOC_HUGE: Message("512 pages of the sender, from this one on, need a huge page.", (_SLOT, _KEY)),
    Kind.ALLOC_HUGE_REPLY: Message("The first frame of the huge page, or -1.", (_SLOT, _FRAME)),
    Kind.SET_CONTENT: Message("A private frame gets new content.", (_FRAME, _ID), quiet=True),
    # Before PUT, so that a frame is not freed just before it is mapped.
    Kind.GET: Message("A frame gets more mappings.", (_FRAME, _COUNT), quiet=True),
    Kind.PUT: Message("A frame loses one mapping.", (_FRAME,)),
    Kind.COPY: Message(
        "Copy a frame into a private frame; the original loses one mapping.",
        (_FRAME, ("private_frame", np.int64)),
    ),
    Kind.FILL: Message("A private frame holds this content.", (_FRAME, _DIGEST), quiet=True, data=True),
    # Swap.
    Kind.PIN: Message("The swap cache or a pinned page refers to a frame.", (_FRAME,), quiet=True),
    Kind.UNPIN: Message("The swap cache or a page no longer refers to a frame.", (_FRAME,)),
    Kind.SWAP_REQUEST: Message(
        "Does a frame have one mapping only, and what does it hold?", (_SLOT, _KEY, _FRAME)
    ),
    Kind.SWAP_REPLY: Message(
        "What a frame holds; only for pages that can be swapped out.", (_SLOT, _FRAME, _DIGEST), data=True
    ),
    Kind.CACHED: Message("The swap cache has a KSM frame: does any page map it?", (_FRAME,)),
    Kind.UNMAPPED: Message("No page maps a KSM frame.", (_DIGEST, _FRAME), quiet=True),
    Kind.ORPHANED: Message("The stable node of an unmapped KSM frame was removed.", (_FRAME,), quiet=True),
    # ksmd's scan.
    Kind.CONTENT_REQUEST: Message("What does a frame hold?", (_SLOT, _KEY, _FRAME)),
    Kind.CONTENT_REPLY: Message("The content of a frame.", (_SLOT, _KEY, _DIGEST)),
    Kind.EVENT: Message(
        "A visit of ksmd concerns the trees; `event` as in `cluster.ksm.visit.VisitKind`.",
        (_DIGEST, _KEY, _FRAME, ("event", np.uint8)),
    ),
    # What page tables tell the trees.
    Kind.WITHDRAW: Message("An unstable page leaves the unstable tree.", (_DIGEST, _KEY), quiet=True),
    Kind.WAIT_FRAME: Message(
        "An unstable page has another frame, or is gone (-1).", (_DIGEST, _KEY, _FRAME), quiet=True
    ),
    Kind.WAIT_CONTENT: Message(
        "An unstable page holds something else.", (_DIGEST, _KEY, ("holds", np.uint64)), quiet=True
    ),
    Kind.REHOME: Message(
        "The unstable tree's entry of a page is the receiver's from now on: merge_across_nodes has changed.",
        (_DIGEST, _KEY, _FRAME),
        quiet=True,
    ),
    Kind.STALE: Message("A KSM frame was freed.", (_DIGEST, _FRAME), quiet=True),
    Kind.RECOUNT: Message(
        "A stable node gains or loses rmap_items.", (_DIGEST, _FRAME, ("change", np.int64)), quiet=True
    ),
    # What the trees decide.
    Kind.DROPPED: Message("A stable node was removed with all its rmap_items.", (_FRAME,), quiet=True),
    # Before STABLE, which undoes visits.
    Kind.DROPPED_AT: Message(
        "The scan position at which a stable node was removed; where smart_scan needs it.",
        (_FRAME, _POSITION),
        quiet=True,
    ),
    Kind.WAIT: Message("A page was inserted into the unstable tree.", (_KEY, _DIGEST), quiet=True),
    # Before the kinds that merge the page.
    Kind.REKEY: Message("A page has the content of another digest.", (_KEY, _DIGEST), quiet=True),
    Kind.STABLE: Message("The frame of a page has become a KSM frame.", (_KEY, _FRAME)),
    Kind.MERGE: Message("A page maps a KSM frame in place of its own frame.", (_KEY, _FRAME)),
    Kind.MAKE_KSM: Message("A private frame becomes a KSM frame.", (_FRAME,), quiet=True),
    Kind.ADDED_TO_STABLE: Message(
        "A page's rmap_item joins the stable node of the KSM frame that the page maps; "
        "`checksum_skipped` is 1 if its checksum was not compared.",
        (_KEY, ("checksum_skipped", np.uint8)),
        quiet=True,
    ),
    Kind.REMOVED_FROM_TREES: Message(
        "A page's rmap_item is in no tree; `checksum_compared` is 1 if its checksum was compared.",
        (_KEY, ("checksum_compared", np.uint8)),
        quiet=True,
    ),
    Kind.BREAK: Message(
        "The frame of a page has become a KSM frame without a stable node.", (_KEY, _FRAME, _DIGEST)
    ),
    Kind.MAP_ZERO: Message("A page maps the shared zero page in place of its frame.", (_KEY,)),
    # Splits of huge pages.
    Kind.SPLIT_TRY: Message(
        "A visit at a scan position tries to split the huge page of an item's page; `nth` counts its tries.",
        (_BLOCK, _KEY, _POSITION, _NTH),
        quiet=True,
    ),
    Kind.SPLIT_AT: Message(
        "The try that splits a huge page; position -1: there is no try, the greatest one: all fail.",
        (_BLOCK, _POSITION, _NTH),
        quiet=True,
    ),
    Kind.SPLIT: Message("A huge page is split otherwise than by ksmd.", (_BLOCK,)),
    Kind.ZEROED: Message(
        "A frame of a huge page that was split holds zeros; the position is that of the split.",
        (_FRAME, _POSITION),
    ),
    # Byte comparison; only if contents are bytes.
    Kind.COMPARE_SOURCE: Message(
        "Compare a page with a KSM frame; to the node of the page's frame.",
        (_KEY, _FRAME, ("ksm_frame", np.int64), _DIGEST),
    ),
    Kind.COMPARE_TARGET: Message(
        "The bytes to compare; to the node of the KSM frame.",
        (_KEY, ("ksm_frame", np.int64), _DIGEST),
        data=True,
    ),
    Kind.VERDICT: Message(
        "The outcome of a comparison: `equal` is 1 or 0.",
        (_KEY, ("ksm_frame", np.int64), _DIGEST, ("equal", np.uint8)),
    ),
    # Frames that move to other nodes.
    Kind.MIGRATE: Message("Migrate a frame to a node.", (_FRAME, _NODE)),
    Kind.RMAP_WALK: Message("How many mappings of a KSM frame does reverse mapping find?", (_FRAME,)),
    Kind.RMAP_FOUND: Message("The mappings found.", (_FRAME, _COUNT)),
    Kind.MOVE_IN: Message(
        "A frame moves to the receiver, with its struct page.",
        (_FRAME, _DIGEST, ("mapping", np.uint16), ("pins", np.uint16), ("mapcount", np.int32)),
        data=True,
    ),
    Kind.MOVED: Message("A frame has a new name.", (_FRAME, ("new_frame", np.int64), _DIGEST)),
    Kind.MOVED_OUT: Message("A frame has left the receiver.", (_FRAME,)),
    Kind.MIGRATING: Message(
        "The frame of a stable node has moved to the receiver, whose tree does not have the node yet; "
        "`dead` is 1 if the frame was freed.",
        (_DIGEST, _FRAME, ("count", np.int32), ("dead", np.int8)),
    ),
    Kind.UNLINKED: Message("A migrated stable node has left its old tree.", (_FRAME,), quiet=True),
    Kind.LINKED: Message("A migrated stable node is in the tree of its frame's node.", (_FRAME,), quiet=True),
    # Before compactions and relocations.
    Kind.HELD: Message(
        "References to a frame of the receiver: mappings that reverse mapping does not find, "
        "and those of the swap cache.",
        (_FRAME, ("unfound", np.int64), ("cached", np.int64)),
    ),
    Kind.MAPPED: Message(
        "How often a node maps a frame of the receiver.", (_FRAME, _NODE, _COUNT), quiet=True
    ),
}

#: Messages in reply to which a node sends nothing. They may arrive together with the next command; a node
#: takes them in before it carries out the command.
QUIET = frozenset(kind for kind, message in MESSAGES.items() if message.quiet)


def check_columns(kind: Kind, columns: Sequence[Array]) -> None:
    """Raise TypeError unless these columns are those of the schema."""
    schema = MESSAGES[kind]
    expected: list[tuple[np.dtype[Any], tuple[int, ...]]] = [
        (np.dtype(dtype), ()) for _, dtype in schema.columns
    ]
    if schema.data and len(columns) > len(expected):
        expected.append((np.dtype(np.uint8), (PAGE_SIZE,)))
    if [(column.dtype, column.shape[1:]) for column in columns] != expected:
        sent = ", ".join(f"{column.dtype}{list(column.shape)}" for column in columns)
        raise TypeError(f"{kind.name} has columns {schema.columns}, but {sent} were sent")
    if len({len(column) for column in columns}) != 1:
        raise TypeError(f"{kind.name} has columns of different lengths")
