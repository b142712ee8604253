"""What pages hold: content ids, the bytes they stand for, and the patterns that fill regions.

Content id 0 is the page of zeros. Id n > 0 is the 512 little-endian words that splitmix64 puts out when it
starts at state n. Two pages are equal if and only if their ids are. All arithmetic is modulo 2**64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Bytes of a page. The whole project imports it from here.
PAGE_SIZE = 4096

UInt64s = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MUL1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL2 = np.uint64(0x94D049BB133111EB)
_WORD_STATES = np.arange(PAGE_SIZE // 8, dtype=np.uint64) * _GAMMA
_SEED_FACTOR = 0x100000001B3
_SELECT_OFFSET = 1 << 40
_MASK = (1 << 64) - 1

PatternKind = Literal["zero", "const", "seq", "mod", "rand", "rand0"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which content each page of a fill gets, and which pages are written at all.

    Page i gets id 0 (zero), a (const), a + i (seq), a + i % b (mod), 1 + h % b (rand) or h % b (rand0),
    with h = mix(a * 0x100000001B3 + i). It is written if i is a multiple of `step` and, where `one_in` is
    above 1, the hash of `seed` and i is a multiple of `one_in`.
    """

    kind: PatternKind
    a: int = 0
    b: int = 1
    step: int = 1
    seed: int = 0
    one_in: int = 1


def mix(states: UInt64s) -> UInt64s:
    """First output of splitmix64 from each state."""
    z = states + _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MUL1
    z = (z ^ (z >> np.uint64(27))) * _MUL2
    return z ^ (z >> np.uint64(31))


def page_bytes(ids: UInt64s) -> NDArray[np.uint8]:
    """The pages that content ids stand for: uint8[n, 4096]."""
    pages = mix(ids[:, None] + _WORD_STATES).astype("<u8", copy=False).view(np.uint8)
    pages[ids == 0] = 0
    return pages


def page_key(contents: UInt64s) -> list[int]:
    """Numbers that order pages as memcmp orders their bytes: -1 for the page of zeros.

    The first word decides, in memory order; no two ids share it, as splitmix64 is a bijection.
    """
    firsts = mix(contents).byteswap().tolist()
    return [key if content else -1 for content, key in zip(contents.tolist(), firsts, strict=True)]


def pattern_ids(pattern: Pattern, count: int) -> UInt64s:
    """Content id of each page 0 .. count-1 of a fill, written or not."""
    i = np.arange(count, dtype=np.uint64)
    a, b = np.uint64(pattern.a & _MASK), np.uint64(pattern.b & _MASK)
    match pattern.kind:
        case "zero":
            return np.zeros(count, dtype=np.uint64)
        case "const":
            return np.full(count, a, dtype=np.uint64)
        case "seq":
            return i + a
        case "mod":
            return i % b + a
        case "rand":
            return _hashes(pattern.a, 0, i) % b + np.uint64(1)
        case "rand0":
            return _hashes(pattern.a, 0, i) % b


def selected(pattern: Pattern, count: int) -> NDArray[np.bool_]:
    """Whether each page 0 .. count-1 of a fill is written."""
    i = np.arange(count, dtype=np.uint64)
    chosen = np.ones(count, dtype=np.bool_)
    if pattern.step > 1:
        chosen &= i % np.uint64(pattern.step) == 0
    if pattern.one_in > 1:
        chosen &= _hashes(pattern.seed, _SELECT_OFFSET, i) % np.uint64(pattern.one_in) == 0
    return chosen


def _hashes(seed: int, offset: int, i: UInt64s) -> UInt64s:
    return mix(i + np.uint64((seed * _SEED_FACTOR + offset) & _MASK))
