"""VMAs that split, join and share an anon_vma: small cases, worked out by hand from the kernel's rules."""

from __future__ import annotations

import pytest

from cluster.mm.anon_vma import AnonVmas


def vmas(pages: int, *, mergeable: tuple[int, int] = (0, 0)) -> AnonVmas:
    """Pages 0 to `pages`, of which a part was advised before any of them was written."""
    made = AnonVmas()
    made.mmap(0, pages, mergeable=False)
    advise(made, *mergeable)
    return made


def advise(of: AnonVmas, start: int, end: int, *, mergeable: bool = True, into_bare: bool = True) -> None:
    of.madvise(start, end, mergeable=mergeable, into_bare=into_bare)


def copied(of: AnonVmas, pages: int) -> str:
    """One letter a page: whether fork copies it."""
    return "".join("x" if of.needs_copy(page) else "." for page in range(pages))


def test_a_write_gives_the_whole_vma_an_anon_vma() -> None:
    of = vmas(9, mergeable=(3, 6))
    assert copied(of, 9) == "........."
    of.prepare(4)
    assert copied(of, 9) == "...xxx..."
    of.prepare(8)
    assert copied(of, 9) == "...xxxxxx"


def test_a_split_leaves_it_on_both_parts_and_they_join_again() -> None:
    of = vmas(6)
    of.prepare(0)
    advise(of, 2, 4)
    assert copied(of, 6) == "xxxxxx"
    advise(of, 2, 4, mergeable=False)
    assert copied(of, 6) == "xxxxxx"


@pytest.mark.parametrize(("into_bare", "expected"), [(True, "xxxxxx"), (False, "...xxx")])
def test_who_has_one_alone_joins_since_6_16(into_bare: bool, expected: str) -> None:
    of = vmas(6, mergeable=(3, 6))
    of.prepare(4)
    advise(of, 3, 6, mergeable=False, into_bare=into_bare)
    assert copied(of, 6) == expected


@pytest.mark.parametrize("into_bare", [True, False])
def test_who_has_none_joins_one_that_has(into_bare: bool) -> None:
    of = vmas(6, mergeable=(3, 6))
    of.prepare(4)
    advise(of, 0, 3, into_bare=into_bare)
    assert copied(of, 6) == "xxxxxx"


@pytest.mark.parametrize("into_bare", [True, False])
def test_between_two_anon_vmas_one_is_joined(into_bare: bool) -> None:
    of = vmas(9, mergeable=(3, 6))
    of.prepare(0)
    of.prepare(8)
    assert copied(of, 9) == "xxx...xxx"
    advise(of, 3, 6, mergeable=False, into_bare=into_bare)
    assert copied(of, 9) == "xxxxxxxxx"


def test_an_edge_of_the_range_splits_no_vma_that_has_the_flag() -> None:
    of = vmas(9, mergeable=(3, 9))
    advise(of, 0, 5)
    of.prepare(0)
    assert copied(of, 9) == "xxxxxxxxx"


def test_empty_advice_does_nothing() -> None:
    of = vmas(6)
    advise(of, 3, 3)
    of.prepare(0)
    assert copied(of, 6) == "xxxxxx"


def test_the_prctl_joins_nothing_but_neighbours_share_from_then_on() -> None:
    of = vmas(9, mergeable=(0, 3))
    advise(of, 6, 9)
    of.prepare(8)
    of.merge_any(on=True)
    assert copied(of, 9) == "......xxx"
    of.prepare(4)
    assert copied(of, 9) == "...xxxxxx"
    # Sharing one they join; the first has none, and joins too.
    advise(of, 3, 6, mergeable=False)
    advise(of, 3, 6)
    assert copied(of, 9) == "xxxxxxxxx"


def test_a_hole_keeps_apart() -> None:
    of = vmas(7, mergeable=(0, 3))
    of.munmap(3, 4)
    of.prepare(5)
    advise(of, 0, 3, mergeable=False)
    assert not of.needs_copy(0)
    assert of.needs_copy(4)


def test_what_comes_of_a_fork_neither_joins_nor_lends() -> None:
    parent = vmas(6, mergeable=(0, 3))
    parent.prepare(0)
    child = parent.fork(7)
    advise(child, 3, 6)
    assert copied(child, 6) == "xxx..."
    child.prepare(4)
    grandchild = child.fork(8)
    assert grandchild.lineage(0) == (8, 7)
    # The child's own: no page of its parent's is there.
    assert grandchild.lineage(4) == (8,)
    advise(parent, 3, 6)
    assert copied(parent, 6) == "xxxxxx"
