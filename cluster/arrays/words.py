"""The packed words that name frames, pages and processes, and the names of array types.

All words are non-negative int64, so that they mix with numpy's signed arithmetic without becoming floats:

- frame word: `generation (19 bits) | node (12) | huge (1) | pfn (31)`. A private frame has generation 0. The
  generation of a KSM frame comes from the sequence number of the scan window or migration that made it. It
  tells the frame from earlier KSM frames with the same pfn. The largest generation is that of a pinned
  frame's word in the trees: like a KSM frame, it cannot be replaced. `huge` is 1 for the frames of a huge
  page, which are 512 aligned ones.
- block: `node (12) | huge (1) | pfn (22)`, the frame word of a frame of a huge page without its last 9 bits:
  names the huge page.
- mm id: `node (12) | index of the mm on its node (15)`: names a process of the machine.
- item key: `mm id (27) | virtual page number (36)`: names an rmap_item.
- scan position: `rank of the mm in ksmd's list (27) | virtual page number (36)`: ascends in scan order.

A uint64 digest names a content; 0 is the page of zeros.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Array = NDArray[Any]

# What the numbers of an array name. For arithmetic, I64 and U64 remain.
#: int64: indices into the columns of a node's page table, one slot for each virtual page.
Slots = I64
#: int64: page frame numbers on one node.
Pfns = I64
#: int64: item keys; each names an rmap_item.
ItemKeys = I64
#: int64: frame words.
FrameWords = I64
#: uint64: digests of contents.
Digests = U64

#: With the bit that says whether the frame is part of a huge page.
PFN_BITS = 32
NODE_BITS = 12
GENERATION_BITS = 19
VPN_BITS = 36
MM_INDEX_BITS = 15

FRAME_BITS = PFN_BITS + NODE_BITS

#: How many nodes the node field of a word can tell apart. The limit of a machine is lower:
#: `cluster.spec.limits.MOST_NODES`.
NODE_FIELD_SIZE = 1 << NODE_BITS
_NODE_FIELD = (NODE_FIELD_SIZE - 1) << PFN_BITS
MAX_MMS_PER_NODE = 1 << MM_INDEX_BITS
VPN_MASK = (1 << VPN_BITS) - 1
#: A frame is part of a huge page.
HUGE_FRAME = 1 << (PFN_BITS - 1)
PFN_MASK = HUGE_FRAME - 1
#: Small pages of a huge page, as a power of two.
HUGE_ORDER = 9
HUGE_SIZE = 1 << HUGE_ORDER
_HUGE_OR_NEGATIVE = HUGE_FRAME - (1 << 63)

#: Generation of pinned frames.
_PINNED = (1 << GENERATION_BITS) - 1

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def frame_word(node: int, pfn: Pfns) -> FrameWords:
    """Return the frame words of private frames of `node`: int64[n] -> int64[n]."""
    return pfn | (node << PFN_BITS)


Words = TypeVar("Words", int, I64)


def ksm_word(frame: Words, number: int) -> Words:
    """Return the words of private frames that scan window or migration `number` made KSM frames."""
    generation = number % (_PINNED - 1) + 1
    return frame & ~HUGE_FRAME | (generation << FRAME_BITS)


def pinned_word(frame: FrameWords) -> FrameWords:
    """Return the words by which trees know private frames that are pinned: int64[n] -> int64[n]."""
    return frame & ~HUGE_FRAME | (_PINNED << FRAME_BITS)


def private_word(frame: Words) -> Words:
    """Return the words with generation 0, and not huge: two words of the same frame become equal."""
    return frame & ((1 << FRAME_BITS) - 1 - HUGE_FRAME)


@overload
def is_huge_word(frame: int) -> bool: ...
@overload
def is_huge_word(frame: FrameWords) -> Bool: ...
def is_huge_word(frame: int | FrameWords) -> bool | Bool:
    """Return whether words name frames of huge pages; negative values do not: int64[n] -> bool[n]."""
    return (frame & _HUGE_OR_NEGATIVE) == HUGE_FRAME


def block_of(frame: Words) -> Words:
    """Return the block of each frame of a huge page."""
    return frame >> HUGE_ORDER


def frames_of_blocks(blocks: I64) -> FrameWords:
    """Return the frame words of huge pages: int64[n] -> int64[n * HUGE_SIZE]."""
    frames: FrameWords = ((blocks << HUGE_ORDER)[:, None] + np.arange(HUGE_SIZE)).ravel()
    return frames


@overload
def is_ksm_word(frame: int) -> bool: ...
@overload
def is_ksm_word(frame: FrameWords) -> Bool: ...
def is_ksm_word(frame: int | FrameWords) -> bool | Bool:
    """Return whether frame words name KSM frames: int64[n] -> bool[n]."""
    return (frame >> FRAME_BITS) != 0


def generation_of(frame: FrameWords) -> I64:
    """Return the generation of each frame word; 0 for private frames."""
    return frame >> FRAME_BITS


def pfn_of(frame: FrameWords) -> Pfns:
    """Return the page frame number of each frame on its node."""
    return frame & PFN_MASK


def node_of_frame(frame: Words) -> Words:
    """Return the node of each frame."""
    return (frame >> PFN_BITS) & (NODE_FIELD_SIZE - 1)


def on_node(frame: FrameWords, node: int) -> Bool:
    """Return which frames are on `node`: quicker than a comparison of `node_of_frame`."""
    found: Bool = (frame & _NODE_FIELD) == node << PFN_BITS
    return found


def mm_id(node: int, index: int) -> int:
    """Return the id of the mm with this index on `node`."""
    return (node << MM_INDEX_BITS) | index


def node_of_mm(mm: Words) -> Words:
    """Return the node of each mm id."""
    return mm >> MM_INDEX_BITS


def mm_of_key(key: ItemKeys) -> I64:
    """Return the mm id of each item key."""
    return key >> VPN_BITS


def node_of_key(key: ItemKeys) -> I64:
    """Return the node of the process of each item key."""
    return key >> (VPN_BITS + MM_INDEX_BITS)


def scramble(digest: Digests) -> U64:
    """Return a 32-bit hash of each digest, spread evenly: uint64[n] -> uint64[n], each below 2**32."""
    return (digest * _MULTIPLIER) >> np.uint64(32)


def checksum(digest: Digests) -> U32:
    """Return what an rmap_item remembers of a content: 32 bits, as many as the kernel's checksum has."""
    return scramble(digest).astype(np.uint32)


def empty(dtype: Any = np.int64) -> Array:
    """Return a new array of no elements."""
    return np.empty(0, dtype)
