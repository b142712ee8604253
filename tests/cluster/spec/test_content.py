"""Content ids, patterns and their order, against the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.spec.content import Pattern, mix, page_bytes, page_key, pattern_ids, selected

MASK = (1 << 64) - 1
FIRST_WORD_ZERO = 0x61C8864680B583EB  # splitmix64 puts out 0 first
ids = st.integers(min_value=0, max_value=MASK)


def splitmix(state: int, outputs: int) -> list[int]:
    words = []
    for _ in range(outputs):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(z ^ (z >> 31))
    return words


def mix1(x: int) -> int:
    return splitmix(x & MASK, 1)[0]


def test_splitmix64_reference_values() -> None:
    assert splitmix(0, 2) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert mix(np.array([0], dtype=np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def one_page(content: int) -> bytes:
    return page_bytes(np.array([content], dtype=np.uint64))[0].tobytes()


@given(ids)
def test_page_bytes(content: int) -> None:
    words = splitmix(content, 512) if content else [0] * 512
    assert one_page(content) == b"".join(word.to_bytes(8, "little") for word in words)


@given(st.lists(ids | st.just(0), min_size=2, max_size=8))
@example([0, FIRST_WORD_ZERO, 0])
def test_keys_order_as_bytes_do(contents: list[int]) -> None:
    keys = page_key(np.array(contents, dtype=np.uint64))
    by_key = [content for _, content in sorted(zip(keys, contents, strict=True))]
    assert by_key == sorted(contents, key=one_page)


@pytest.mark.parametrize("kind", ["zero", "const", "seq", "mod", "rand", "rand0"])
@given(a=ids, b=st.integers(min_value=1, max_value=MASK))
def test_patterns(kind: str, a: int, b: int) -> None:
    def plain(i: int) -> int:
        h = mix1(a * 0x100000001B3 + i)
        values = {"zero": 0, "const": a, "seq": a + i, "mod": a + i % b, "rand": 1 + h % b, "rand0": h % b}
        return values[kind] & MASK

    assert pattern_ids(Pattern(kind, a, b), 20).tolist() == [plain(i) for i in range(20)]


@given(seed=ids, one_in=st.integers(0, 5), step=st.integers(0, 5))
def test_selected(seed: int, one_in: int, step: int) -> None:
    def plain(i: int) -> bool:
        if step > 1 and i % step:
            return False
        return not (one_in > 1 and mix1(seed * 0x100000001B3 + i + (1 << 40)) % one_in)

    chosen = selected(Pattern("zero", step=step, seed=seed, one_in=one_in), 30)
    assert chosen.tolist() == [plain(i) for i in range(30)]
