"""What pages hold: content ids, the bytes of each id, and the patterns that fill regions.

Content id 0 is the page of zeros. Id n > 0 is the page of the first 512 outputs of splitmix64 from state n,
as little-endian words. Two pages are equal if and only if their ids are. All arithmetic is modulo 2**64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cluster.arrays.words import U8, U64, Bool

#: Bytes of a page. The only definition in the project.
PAGE_SIZE = 4096

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
    """Which pages of a range a `fill` writes, and with which contents.

    Page i of the range gets id 0 (zero), a (const), a + i (seq), a + i % b (mod), 1 + h % b (rand) or h % b
    (rand0), with h = mix(a * 0x100000001B3 + i). It is written if i is a multiple of `step` and, with
    `one_in` above 1, the hash of `seed` and i is a multiple of `one_in`.
    """

    kind: PatternKind
    a: int = 0
    b: int = 1
    step: int = 1
    seed: int = 0
    one_in: int = 1


def mix(states: U64) -> U64:
    """Return the first output of splitmix64 from each state: uint64[n] -> uint64[n]."""
    z = states + _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MUL1
    z = (z ^ (z >> np.uint64(27))) * _MUL2
    return z ^ (z >> np.uint64(31))


def page_bytes(ids: U64) -> U8:
    """Return the bytes of each content id: uint64[n] -> uint8[n, 4096]."""
    pages = mix(ids[:, None] + _WORD_STATES).astype("<u8", copy=False).view(np.uint8)
    pages[ids == 0] = 0
    return pages


def page_key(contents: U64) -> list[int]:
    """Return numbers that order pages as memcmp orders their bytes; -1 for the page of zeros.

    uint64[n] -> n integers. The first eight bytes of a page decide: no two ids share them, as splitmix64 is
    a bijection.
    """
    firsts = mix(contents).byteswap().tolist()
    return [key if content else -1 for content, key in zip(contents.tolist(), firsts, strict=True)]


def pattern_ids(pattern: Pattern, count: int) -> U64:
    """Return the content id of each page 0 .. count-1 of a fill, written or not: uint64[count]."""
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


def selected(pattern: Pattern, count: int) -> Bool:
    """Return which of the pages 0 .. count-1 a fill writes: bool[count]."""
    i = np.arange(count, dtype=np.uint64)
    chosen = np.ones(count, dtype=np.bool_)
    if pattern.step > 1:
        chosen &= i % np.uint64(pattern.step) == 0
    if pattern.one_in > 1:
        chosen &= _hashes(pattern.seed, _SELECT_OFFSET, i) % np.uint64(pattern.one_in) == 0
    return chosen


def _hashes(seed: int, offset: int, i: U64) -> U64:
    return mix(i + np.uint64((seed * _SEED_FACTOR + offset) & _MASK))
