"""The messages that nodes send each other: every kind, and its columns."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What a message says; the columns of its table are given behind it."""

    #: Give me a frame: slot, item key, content id, attempt, source (see `PageAllocator`).
    ALLOC = 0
    #: The frame, or -1: slot, frame, content id, attempt, source.
    ALLOC_REPLY = 1
    #: New content of a private frame: frame, content id.
    SET_CONTENT = 2
    #: More mappings: frame, how many. Before PUT, so that no frame goes that is about to be mapped.
    GET = 3
    #: One mapping less: frame.
    PUT = 4
    #: What is in this frame: slot, item key, frame.
    CONTENT_REQUEST = 5
    #: slot, item key, content.
    CONTENT_REPLY = 6
    #: A visit of ksmd that concerns the trees: digest, item key, frame, event.
    EVENT = 7
    #: A page that waited in the unstable tree does so no longer: digest, item key.
    WITHDRAW = 8
    #: A KSM frame was freed: digest, frame.
    STALE = 9
    #: A stable node was dropped with all its items: frame.
    DROPPED = 10
    #: This page waits in the unstable tree now: item key, digest.
    WAIT = 11
    #: This page has the content of another digest by now: item key, digest. Before those that merge it.
    REKEY = 12
    #: This page's frame has become a KSM frame: item key, frame.
    STABLE = 13
    #: Map this KSM frame instead: item key, frame.
    MERGE = 14
    #: A private frame becomes a KSM frame: frame.
    MAKE_KSM = 15
    #: Byte comparison, at the node of the page: item key, old frame, KSM frame, digest.
    COMPARE_SOURCE = 16
    #: ... at the node of the KSM frame: item key, KSM frame, digest, uint8[4096] the bytes.
    COMPARE_TARGET = 17
    #: ... and what came of it: item key, KSM frame, digest, 1 if equal.
    VERDICT = 18
    #: More or fewer items hang on this stable node: digest, frame, how many more.
    RECOUNT = 19
    #: The page waiting with this digest has another frame now, or is gone (-1): digest, item key, frame.
    WAIT_FRAME = 20
    #: Copy this frame, which then loses a mapping, into a private one: frame, private frame.
    COPY = 21
    #: What a private frame holds: frame, digest and, with bytes, uint8[4096].
    FILL = 22
    #: The item of this page hangs on the stable node of the KSM frame that the page maps: item key, 1 if its
    #: checksum was not compared.
    ADDED_TO_STABLE = 23
    #: It is in no tree: item key, 1 if its checksum was compared.
    REMOVED_FROM_TREES = 24
    #: This page's frame has become a KSM frame without a stable node: item key, frame, digest.
    BREAK = 25
    #: Map the shared zero page instead: item key.
    MAP_ZERO = 26
    #: The swap cache refers to this frame; it does so no longer: frame.
    PIN = 27
    UNPIN = 28
    #: Is this the only mapping, and what does it hold: slot, item key, frame.
    SWAP_REQUEST = 29
    #: slot, frame, digest, and, with bytes, uint8[4096]; only of those that can be swapped out.
    SWAP_REPLY = 30
    #: Migrate this frame: frame, node.
    MIGRATE = 31
    #: How many mappings of this KSM frame does reverse mapping find: frame.
    RMAP_WALK = 32
    #: frame, how many.
    RMAP_FOUND = 33
    #: A frame moves in: old frame, digest, mapping word, pins, map count, and uint8[4096] if
    #: there are bytes.
    MOVE_IN = 34
    #: It is here now: old frame, new frame, digest.
    MOVED = 35
    #: It has left: old frame.
    MOVED_OUT = 36
    #: A stable node whose frame has moved to this node, but not into its tree: digest, frame, items, dead.
    MIGRATING = 37
    #: The tree that had such a stable node before has it no longer: frame.
    UNLINKED = 38
    #: It is in the tree of its frame's node now: frame.
    LANDED = 39
    #: The page waiting with this digest holds something else now: digest, item key, digest.
    WAIT_CONTENT = 40
    #: What a node has of this frame before a compaction: frame, mappings that reverse mapping does not find,
    #: references of the swap cache.
    HELD = 41
    #: A node maps this frame of another one: frame, node, how often.
    MAPPED = 42
    #: The swap cache has this KSM frame: does anybody map it: frame.
    CACHED = 43
    #: Nobody does: digest, frame.
    UNMAPPED = 44
    #: Its stable node was removed all the same: frame.
    ORPHANED = 45
