"""Digests of 128 bits whose first halves are equal get different names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.spec.captured_pages import CapturedPages
from ksmcluster.snapshot import KeyInfo, Mapping, PageRows, SnapshotProcess, SnapshotWriter
from ksmcluster.snapshot.contents import CheckedNames
from ksmcluster.snapshot.load import load_pages
from ksmcluster.snapshot.schema import MERGEABLE, ZERO
from tests.ksmcluster.snapshot.test_snapshot import metadata


def halves(*pairs: tuple[int, int]) -> NDArray[np.uint8]:
    return np.array(pairs, "<u8").view(np.uint8).reshape(-1, 16)


def snapshot(path: Path, *processes: list[tuple[int, int]]) -> Path:
    """A snapshot of processes that hold contents with these halves of digests; (0, 0) is a zero page."""
    with SnapshotWriter(path) as writer:
        for index, pages in enumerate(processes):
            digests = halves(*pages)
            zero = ~digests.any(axis=1)
            flags = np.where(zero, MERGEABLE | ZERO, MERGEABLE).astype(np.uint16)
            writer.write(index, 0, PageRows(np.arange(len(pages), dtype=np.uint64), digests, flags))
        described = tuple(
            SnapshotProcess(None, f"p{index}", "image", (Mapping(0, len(pages), "rw-p", "", True),))
            for index, pages in enumerate(processes)
        )
        writer.finish(replace(metadata(), key=KeyInfo("none", None), processes=described))
    return path


def names(loaded: CapturedPages) -> list[list[int]]:
    return [process.moments[0].content.tolist() for process in loaded.processes]


def test_equal_halves_are_found() -> None:
    for pairs, clash in (
        ([(5, 1), (5, 2)], True),
        ([(5, 1), (6, 1)], False),
        ([(5, 1), (5, 1)], False),
        ([(0, 1), (1, 1)], True),  # 0 is the name of zeros, so (0, 1) is called 1
        ([(0, 1), (2, 1)], False),
    ):
        check = CheckedNames()
        zero = np.zeros(len(pairs), np.bool_)
        check(halves(*pairs), zero)
        assert check.clash() is clash


def test_one_of_them_gets_a_free_name(tmp_path: Path) -> None:
    path = str(snapshot(tmp_path / "a", [(5, 1), (5, 2), (0, 0), (2, 7)], [(5, 2), (5, 3), (5, 1), (9, 9)]))
    first, second = names(load_pages([path])[path])
    assert first == [5, second[0], 0, 2]
    assert second[2:] == [5, 9]
    assert len({0, 2, 5, 9, *second[:2]}) == 6


def test_across_snapshots_equal_digests_keep_equal_names(tmp_path: Path) -> None:
    paths = [str(snapshot(tmp_path / name, [pair, (8, 8)])) for name, pair in (("a", (5, 1)), ("b", (5, 2)))]
    loaded = load_pages(paths)
    [[one, common]], [[other, same]] = (names(loaded[path]) for path in paths)
    assert (one, common) == (5, 8)
    assert same == common
    assert other not in (one, common, 0)


def test_zero_and_one_as_first_halves(tmp_path: Path) -> None:
    path = str(snapshot(tmp_path / "a", [(0, 1), (1, 1), (0, 2), (0, 0)]))
    [found] = names(load_pages([path])[path])
    assert found[3] == 0
    assert len(set(found)) == 4


@pytest.mark.parametrize("pairs", [[(5, 1), (6, 2)], [(5, 1), (5, 1)]])
def test_without_clashes_the_first_half_is_the_name(tmp_path: Path, pairs: list[tuple[int, int]]) -> None:
    path = str(snapshot(tmp_path / "a", pairs))
    assert names(load_pages([path])[path]) == [[first for first, _ in pairs]]
