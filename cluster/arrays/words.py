"""The packed words in which frames and pages are named, and the array types used everywhere.

All are non-negative int64, so that they mix with numpy's signed arithmetic without becoming floats:

- frame word: `generation (19 bits) | node (12) | pfn (32)`. A private frame has generation 0; a KSM frame
  carries the number of the scan window or migration that made it, and so is told from earlier ones there.
- item key: `node (12) | index of the mm on its node (15) | virtual page number (36)`: names an rmap_item.
- scan position: `rank of the mm in ksmd's list (27) | virtual page number (36)`: ascending in scan order.

Contents are named by uint64 digests; 0 is the page of zeros.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Array = NDArray[Any]

# What an array of numbers names.
#: int64: indices of a node's page table slots.
Slots = I64
#: int64: page frame numbers on one node.
Pfns = I64
#: int64: item keys (rmap_items), as above.
ItemKeys = I64
#: int64: frame words, as above.
FrameWords = I64
#: uint64: digests of contents.
Digests = U64

PFN_BITS = 32
NODE_BITS = 12
GENERATION_BITS = 19
VPN_BITS = 36
MM_INDEX_BITS = 15

FRAME_BITS = PFN_BITS + NODE_BITS

#: How many nodes the node field of a word can tell apart. A machine has fewer: `MAX_SCENARIO_NODES` in
#: `cluster.spec.topology`.
NODE_FIELD_SIZE = 1 << NODE_BITS
_NODE_FIELD = (NODE_FIELD_SIZE - 1) << PFN_BITS
MAX_MMS_PER_NODE = 1 << MM_INDEX_BITS
VPN_MASK = (1 << VPN_BITS) - 1
PFN_MASK = (1 << PFN_BITS) - 1

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def frame_word(node: int, pfn: I64) -> I64:
    """Names of private frames of `node`."""
    return pfn | (node << PFN_BITS)


Words = TypeVar("Words", int, I64)


def ksm_word(frame: Words, number: int) -> Words:
    """The names that private frames have as KSM frames made by scan window or migration `number`."""
    generation = number % ((1 << GENERATION_BITS) - 1) + 1
    return frame | (generation << FRAME_BITS)


def private_word(frame: Words) -> Words:
    """The same frames, whatever they are used for."""
    return frame & ((1 << FRAME_BITS) - 1)


@overload
def is_ksm_word(frame: int) -> bool: ...
@overload
def is_ksm_word(frame: I64) -> Bool: ...
def is_ksm_word(frame: int | I64) -> bool | Bool:
    """Whether frame words are those of KSM frames."""
    return (frame >> FRAME_BITS) != 0


def generation_of(frame: I64) -> I64:
    return frame >> FRAME_BITS


def pfn_of(frame: I64) -> I64:
    return frame & PFN_MASK


def node_of_frame(frame: Words) -> Words:
    return (frame >> PFN_BITS) & (NODE_FIELD_SIZE - 1)


def on_node(frame: I64, node: int) -> Bool:
    """Which frames are on this node: quicker than to compare `node_of_frame`."""
    found: Bool = (frame & _NODE_FIELD) == node << PFN_BITS
    return found


def mm_id(node: int, index: int) -> int:
    return (node << MM_INDEX_BITS) | index


def node_of_mm(mm: Words) -> Words:
    return mm >> MM_INDEX_BITS


def mm_of_key(key: I64) -> I64:
    return key >> VPN_BITS


def node_of_key(key: I64) -> I64:
    return key >> (VPN_BITS + MM_INDEX_BITS)


def scramble(digest: U64) -> U64:
    """Spreads digests evenly over the upper 32 bits' worth of values, returned in the lower 32 bits."""
    return (digest * _MULTIPLIER) >> np.uint64(32)


def checksum(digest: U64) -> U32:
    """What an rmap_item remembers of a content: 32 bits, as many as the kernel's own checksum has."""
    return scramble(digest).astype(np.uint32)


def empty(dtype: Any = np.int64) -> Array:
    return np.empty(0, dtype)
