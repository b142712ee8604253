"""Snapshots in scenarios: clones of what was captured, keys, moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ksmcluster
from ksmcluster.results.result import Result
from ksmcluster.snapshot import MERGEABLE, Mapping, SnapshotProcess
from ksmcluster.system.errors import UserError
from tests.ksmcluster.capture.conftest import Run
from tests.ksmcluster.snapshot.test_snapshot import metadata, write

PAGE = 4096


def captured(run: Run, output: Path, *memories: str, options: tuple[object, ...] = ()) -> str:
    """A snapshot of processes whose pages are full of these letters; 0 is a page of zeros."""
    arguments: list[object] = []
    for index, memory in enumerate(memories):
        image = output.with_suffix(f".{index}")
        image.write_bytes(b"".join((bytes(1) if page == "0" else page.encode()) * PAGE for page in memory))
        arguments += ["--image", image]
    assert run(*arguments, "--output", output, "--quiet", *options).exit_code == 0
    return str(output)


def of_moments(output: Path, times: tuple[float, ...], held: tuple[tuple[str, ...], ...]) -> str:
    """A snapshot with what each process holds at each moment, a letter for the content of a page."""
    rows = {
        (moment, process): {vpn: (letter.encode() * 16, MERGEABLE) for vpn, letter in enumerate(pages)}
        for moment, memories in enumerate(held)
        for process, pages in enumerate(memories)
    }
    process = SnapshotProcess(None, "image", "image", (Mapping(0, len(held[0][0]), "rw-p", "", True),))
    write(output, rows, replace(metadata(times), processes=(process,) * len(held[0]), notes=()))
    return str(output)


def simulated(*processes: dict[str, Any], nodes: int = 3, passes: int = 3, **ksm: Any) -> Result:
    """Passes of ksmd on processes that are replayed."""
    scenario = {
        "machine": {"nodes": nodes, "memory_per_node": "1MiB"},
        "simulation": {"passes": passes},
        "ksm": {"smart_scan": 0, **ksm},
        "process": [{"name": f"kind{i}", **process} for i, process in enumerate(processes)],
    }
    return ksmcluster.simulate(scenario, engine="inline")


def merged(result: Result) -> tuple[int, int, int]:
    """Contents that are shared, pages saved, and pages found once."""
    gauges = result.summary["gauges"]
    return gauges["pages_shared"], gauges["pages_sharing"], gauges["pages_unshared"]


@pytest.mark.parametrize(
    ("clones", "expected"),
    [
        # s, t and zeros five times each; in each process its own pair (a or c), and one page (b or d).
        ({}, (3 + 5, 3 * 4 + 5, 5)),
        ({"clones": "distinct"}, (3 + 5, 3 * 4 + 5, 5)),
        # All that three clones of the first hold, and two of the second: a 6, b 3, c 4, d 2 times.
        ({"clones": "identical"}, (3 + 4, 3 * 4 + 5 + 2 + 3 + 1, 0)),
    ],
)
def test_clones(run: Run, tmp_path: Path, clones: dict[str, str], expected: tuple[int, int, int]) -> None:
    two = captured(run, tmp_path / "two", "st0aab", "st0ccd")
    assert merged(simulated({"count": 5, "snapshot": two, **clones})) == expected


def test_as_many_as_captured_are_the_captured_ones(run: Run, tmp_path: Path) -> None:
    two = captured(run, tmp_path / "two", "st0aab", "st0ccd")
    found = {
        merged(simulated({"count": 2, "snapshot": two, "clones": clones}))
        for clones in ("distinct", "identical")
    }
    assert found == {(3 + 2, 3 + 2, 2)}


def test_clones_of_two_kinds_are_distinct_as_well(run: Run, tmp_path: Path) -> None:
    two = captured(run, tmp_path / "two", "sa", "sb")
    kind = {"count": 2, "snapshot": two}
    assert merged(simulated(kind, kind)) == (1, 3, 4)
    one = {"count": 1, "snapshot": captured(run, tmp_path / "one", "sa")}
    result = simulated(one, one)
    assert merged(result) == (0, 0, 4)
    assert [note.split(",")[0] for note in result.summary["notes"]] == [
        f"kind{i}: 2 clones of one process" for i in range(2)
    ]


def test_captured_processes_of_all_snapshots_count(run: Run, tmp_path: Path) -> None:
    key = ("--key-file", tmp_path / "key")
    paths = [captured(run, tmp_path / name, f"s{name}", options=key) for name in ("a", "b")]
    assert merged(simulated(*({"count": 2, "snapshot": path} for path in paths))) == (1, 3, 4)


def test_what_is_common_is_so_at_all_moments(tmp_path: Path) -> None:
    """The content m goes from the first process to the second; p is the first one's, and moves in it."""
    path = of_moments(tmp_path / "s", (0.0, 1e-3), (("mpq", "xyz"), ("pqp", "mmx")))
    result = simulated({"count": 4, "snapshot": path}, passes=4)
    # At last: m four times; p twice in each of two clones; q and x, once in each, belong to one alone.
    assert merged(result) == (3, 3 + 2, 4)
    assert result.summary["counters"]["pages_written"] == 4 * 3
    first = simulated({"count": 4, "snapshot": path, "replay_interval": 1e9})
    assert merged(first) == (1, 1, 10)


def test_clones_do_not_hang_on_the_nodes(run: Run, tmp_path: Path) -> None:
    two = captured(run, tmp_path / "two", "st0aab", "st0ccd")
    found = {merged(simulated({"count": 5, "snapshot": two}, nodes=nodes)) for nodes in (1, 2, 5)}
    assert len(found) == 1


def test_clones_of_one_process_are_a_lower_bound(run: Run, tmp_path: Path) -> None:
    one, two = captured(run, tmp_path / "one", "sa0"), captured(run, tmp_path / "two", "sa", "sb")
    result = simulated({"count": 4, "snapshot": one})
    assert merged(result) == (1, 3, 8)
    (note,) = result.summary["notes"]
    assert note.startswith("kind0: 4 clones of one process")
    assert 'clones = "identical" gives' in note
    assert "\nNotes\n  kind0: 4 clones of one process" in str(result)
    for kind in (
        {"count": 1, "snapshot": one},
        {"count": 4, "snapshot": two},
        {"count": 4, "snapshot": one, "clones": "identical"},
    ):
        result = simulated(kind)
        assert result.summary["notes"] == []
        assert "Notes" not in str(result)


def test_snapshots_of_different_keys_are_refused(run: Run, tmp_path: Path) -> None:
    keyed = {
        "a": ("--key-file", tmp_path / "key"),
        "b": (),
        "c": (),
        "d": ("--unkeyed",),
        "e": ("--unkeyed",),
    }
    paths = {name: captured(run, tmp_path / name, "sa", options=key) for name, key in keyed.items()}

    def of(*names: str) -> Result:
        return simulated(*({"count": 1, "snapshot": paths[name]} for name in names))

    for names in ("ab", "bc", "ad", "aad", "bd"):
        with pytest.raises(UserError, match=r"different keys.*with the same --key-file") as refused:
            of(*names)
        assert paths[names[0]] in str(refused.value)
        assert paths[names[-1]] in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
    assert merged(of("d", "e")) == (2, 2, 0)


def test_memory_stands_still_after_the_last_moment(tmp_path: Path) -> None:
    """A pass sleeps three times, after each page and at its end, for 256 jiffies: 3.072 s.

    The second moment comes in the second pass, before its last page is scanned at 5.12 s.
    """
    slow = {"pages_to_scan": 1, "sleep_millisecs": 1000}
    path = of_moments(tmp_path / "s", (0.0, 4.25), (("ab",), ("ac",)))
    kind = {"count": 1, "snapshot": path}
    result = simulated(kind, passes=4, **slow)
    assert result.by_node("pages_written").sum(axis=1).tolist() == [0, 1, 0, 0]
    note = "kind0: the 2 moments end at 4.2 s of 12 s of simulated time; after that, memory does not change"
    assert result.summary["notes"] == [note]
    assert f"Notes {note}" in " ".join(str(result).split())

    late = "kind0: 1 of 2 moments come after the end of the run ({} of simulated time)"
    first, *notes = simulated(kind, passes=1, **slow).summary["notes"]
    assert first.startswith("the run ended with ksmd's first pass, which took 3.1 s ")
    assert notes == [late.format("3.1 s")]
    slower = kind | {"replay_interval": 13.0}
    assert simulated(slower, passes=4, **slow).summary["notes"] == [late.format("12 s")]
    assert simulated(slower, passes=5, **slow).summary["notes"] == [
        "kind0: the 2 moments end at 13 s of 15 s of simulated time; after that, memory does not change"
    ]
    still = of_moments(tmp_path / "still", (0.0,), (("ab",),))
    assert simulated({"count": 1, "snapshot": still}, passes=4, **slow).summary["notes"] == []
