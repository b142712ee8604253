"""What the simulated machine makes of frames that captured processes share; cases worked out by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ksmcluster
from cluster.machine import coordinator
from ksmcluster.snapshot import (
    KSM,
    MERGEABLE,
    SHARED_ZERO,
    WRITTEN,
    ZERO,
    HostInfo,
    Mapping,
    NumaNode,
    PageRows,
    SnapshotProcess,
    SnapshotWriter,
)
from ksmcluster.snapshot.as_scenario import scenario_of
from ksmcluster.snapshot.load import load_pages
from ksmcluster.system.errors import UserError
from tests.ksmcluster.snapshot.test_snapshot import metadata

#: One page: content (a letter, or "0"), frame, mappers outside, further flags.
Page = tuple[str, int, int, int]
PAGE = 4096


def page(content: str, frame: int = -1, outside: int = 0, flags: int = 0) -> Page:
    return content, frame, outside, flags


def snapshot(
    path: Path,
    *moments: list[list[Page]],
    advised: bool | None = True,
    interval: float | None = None,
    first: int = 0,
    **process: Any,
) -> Path:
    """A snapshot: by moment and process its pages, from page `first` on."""
    size = max(len(pages) for memories in moments for pages in memories)
    mapping = Mapping(first, size, "rw-p", "", True, advised)
    processes = tuple(
        SnapshotProcess(index + 1, "p", "process", (mapping,), **process) for index in range(len(moments[0]))
    )
    with SnapshotWriter(path) as writer:
        for moment, memories in enumerate(moments):
            for index, pages in enumerate(memories):
                writer.write(index, moment, _rows(pages, first))
        found = metadata(tuple(map(float, range(len(moments)))))
        writer.finish(replace(found, processes=processes, notes=(), interval=interval))
    return path


def _rows(pages: list[Page], first: int = 0) -> PageRows:
    zero = np.array([content == "0" for content, *_ in pages])
    kind = [SHARED_ZERO if flags & SHARED_ZERO else MERGEABLE for *_, flags in pages]
    flags = np.array(kind, np.uint16) | np.array([flags for *_, flags in pages], np.uint16)
    return PageRows(
        vpn=np.arange(first, first + len(pages), dtype=np.uint64),
        digests=np.array([[ord(content)] * 16 for content, *_ in pages], np.uint8),
        flags=flags | np.where(zero, ZERO, 0).astype(np.uint16),
        frame=np.array([frame for _, frame, *_ in pages]),
        outside=np.array([outside for _, _, outside, _ in pages]),
    )


def last(path: Path, *settings: str, passes: int = 4, **changes: Any) -> dict[str, int]:
    """The counters of all nodes after the last pass, with a window of a page for each write to show."""
    overrides = ksmcluster.Overrides(passes=passes, settings=("ksm.smart_scan=0", *settings), **changes)
    table = ksmcluster.simulate(ksmcluster.load(path, overrides), engine="inline").passes
    rows = table["pass"] == passes
    return {name: int(table[name][rows].sum()) for name in table if name not in ("pass", "node")}


def test_a_page_is_not_merged_with_itself(tmp_path: Path) -> None:
    """A parent and two children map eight frames: one mapper of each waits, the others stay volatile."""
    pages = [page("abcdefgh"[i], i) for i in range(8)]
    found = last(snapshot(tmp_path / "s", [pages, pages, pages]))
    counters = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    assert [found[name] for name in counters] == [0, 0, 8, 16]
    assert found["frames_used"] == 8


def test_equal_pages_in_two_frames_merge_with_all_their_mappers(tmp_path: Path) -> None:
    both = [page("a", 0), page("a", 1)]
    found = last(snapshot(tmp_path / "s", [both, both]))
    assert (found["pages_shared"], found["pages_sharing"], found["frames_used"]) == (1, 3, 1)


def test_a_frame_that_is_mapped_outside_stays_in_use(tmp_path: Path) -> None:
    """The page that is visited last gives the frame; that of the other goes, unless others map it."""
    for outside, frames in ((0, 1), (2, 2), (2**32 - 2, 2)):
        path = snapshot(tmp_path / f"{outside}", [[page("a", 0, outside=outside)], [page("a", 1)]])
        found = last(path)
        assert (found["pages_shared"], found["pages_sharing"], found["frames_used"]) == (1, 1, frames)


def test_addresses_of_up_to_48_bits(tmp_path: Path) -> None:
    memory = [[page("a"), page("b")], [page("a"), page("c")]]
    found = last(snapshot(tmp_path / "high", memory, first=2**36 - 2))
    assert (found["pages_mapped"], found["pages_shared"], found["pages_sharing"]) == (4, 1, 1)
    with pytest.raises(UserError, match="process 0 has memory at 0x1000000000000; addresses from 0x10"):
        last(snapshot(tmp_path / "higher", memory, first=2**36 - 1))


def test_processes_of_a_family_are_too_many_for_their_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes share frames, so all are on one of two nodes."""
    path = snapshot(tmp_path / "s", [[page("a", 0)]] * 3)
    monkeypatch.setattr(coordinator, "MAX_MMS_PER_NODE", 2)
    with pytest.raises(UserError, match="a node has 3 processes; the most is 2: use fewer, or more nodes"):
        last(path, nodes=2)


def test_three_mappings_of_one_frame_save_one_frame(tmp_path: Path) -> None:
    """A parent and two children share a frame, and a fourth process has the same content: two frames."""
    parent, stranger = [page("a", 0)], [page("a", 1)]
    found = last(snapshot(tmp_path / "s", [parent, parent, parent, stranger]))
    assert found["ksm_mappings"] == 4
    assert (found["frames_without_ksm"], found["frames_used"]) == (2, 1)


@pytest.mark.parametrize("others", [1, 2])
def test_a_write_leaves_a_frame_that_is_mapped_outside(tmp_path: Path, others: int) -> None:
    before, after = [page("a", 0, outside=3)], [[page("b", 1)], [page("c", 2)]][:others]
    found = last(snapshot(tmp_path / "s", [before] * others, after), passes=100)
    assert (found["frames_without_ksm"], found["frames_used"]) == (others + 1, others + 1)


def test_memory_before_is_what_was_in_use(tmp_path: Path) -> None:
    """Two copies of a family of three that share a frame each; the families' contents are equal."""
    family = [[page("a", 0), page("0")]] * 3
    path = snapshot(tmp_path / "s", family)
    settings = ("process[0].clones=identical", "ksm.use_zero_pages=1")
    changes = ksmcluster.Overrides(passes=4, count=6, settings=settings)
    result = ksmcluster.simulate(ksmcluster.load(path, changes), engine="inline")
    derived = result.summary["derived"]
    # Two frames of "a", and six of zeros.
    assert derived["memory_before_bytes"] == 8 * PAGE
    assert derived["memory_after_bytes"] == PAGE
    assert derived["saved_bytes"] == result.summary["by_pass"]["saved_bytes"][-1] == 7 * PAGE


def test_a_write_copies_an_inherited_page(tmp_path: Path) -> None:
    both = [page("a", 0), page("b", 1)]
    written = [page("a", 0), page("c", 2)]
    found = last(snapshot(tmp_path / "s", [both, both], [both, written]), "simulation.passes=300", passes=300)
    assert found["frames_used"] == 3


def test_a_write_of_the_same_bytes_breaks_sharing(tmp_path: Path) -> None:
    two = [[page("a", 0)], [page("a", 1)]]
    again = [[page("a", 0)], [page("a", 1, flags=WRITTEN)]]
    settings = ("ksm.pages_to_scan=1",)  # 20 ms a page: 40 ms a pass
    broken = snapshot(tmp_path / "s", two, again)
    kept = snapshot(tmp_path / "t", two, two)
    count = lambda path: sum(  # noqa: E731
        ksmcluster.simulate(
            ksmcluster.load(path, ksmcluster.Overrides(passes=40, settings=("ksm.smart_scan=0", *settings))),
            engine="inline",
        ).passes["cow_ksm"]
    )
    assert (count(kept), count(broken)) == (0, 1)


def at_the_end(path: Path, **changes: Any) -> dict[str, int]:
    """Counters long after the moments of a snapshot."""
    return last(path, passes=300, **changes)


def test_a_forked_newcomer_shares_the_frames_of_its_parent(tmp_path: Path) -> None:
    """A child begins at the second moment with two pages of its parent and one of its own."""
    parent = [page("a", 0), page("b", 1)]
    later = [page("a", 5), page("b", 3)]  # frames have other numbers at each moment
    child = [page("a", 5), page("b", 3), page("c", 4)]
    found = at_the_end(snapshot(tmp_path / "s", [parent, []], [later, child]))
    assert (found["frames_used"], found["pages_unshared"], found["pages_volatile"]) == (3, 3, 2)
    alone = [page("a", 6), page("b", 7), page("c", 4)]
    found = at_the_end(snapshot(tmp_path / "t", [parent, []], [later, alone]))
    assert (found["frames_used"], found["pages_sharing"]) == (3, 2)  # ksmd had to merge them


def test_a_newcomer_s_write_copies_what_it_inherited(tmp_path: Path) -> None:
    parent, child = [page("a", 0), page("b", 1)], [page("a", 0), page("b", 1)]
    written = [page("a", 0), page("c", 2)]
    path = snapshot(tmp_path / "s", [parent, []], [parent, child], [parent, written])
    assert at_the_end(path)["frames_used"] == 3


@pytest.mark.parametrize(("interval", "written"), [(None, 4), (1.0, 4), (0.5, 6), (0.25, 10)])
def test_pages_are_written_in_gaps(tmp_path: Path, interval: float | None, written: int) -> None:
    """Two pages are written before both later moments, a second apart; the last is written before one."""
    pages = [page("a", 0), page("a", 1), page("a", 2)]
    again = [page("a", 0, flags=WRITTEN), page("a", 1, flags=WRITTEN), page("a", 2)]
    path = snapshot(tmp_path / "s", [pages], [again], [again], interval=interval)
    overrides = ksmcluster.Overrides(passes=100, settings=("ksm.smart_scan=0",))
    passes = ksmcluster.simulate(ksmcluster.load(path, overrides), engine="inline").passes
    assert passes["pages_written"].sum() == written
    assert passes["cow_ksm"].sum() == written
    assert passes["pages_sharing"][-1] == 2


def test_moments_between_two_looks_come_one_after_the_other(tmp_path: Path) -> None:
    """The child writes a page, and the parent the other, before ksmd looks at what the child began with."""
    parent, rewritten = [page("a", 0), page("b", 1)], [page("a", 0), page("d", 7)]
    path = snapshot(tmp_path / "s", [parent, []], [parent, parent], [rewritten, [page("c", 2), page("b", 1)]])
    overrides = ksmcluster.Overrides(
        settings=("process[0].replay_interval=1e-9", "ksm.smart_scan=0"), passes=5
    )
    table = ksmcluster.simulate(ksmcluster.load(path, overrides), engine="inline").passes
    assert (table["frames_used"][-1], table["pages_mapped"][-1]) == (4, 4)


def test_a_newcomer_shares_what_ksmd_has_merged_meanwhile(tmp_path: Path) -> None:
    parent = [page("a", 0), page("a", 1)]
    path = snapshot(tmp_path / "s", [parent, []], [parent, parent])
    found = at_the_end(path)
    assert (found["pages_shared"], found["pages_sharing"], found["frames_used"]) == (1, 3, 1)


def test_newcomers_are_the_same_on_several_nodes_and_on_ray(tmp_path: Path) -> None:
    parent = [page("abcabc"[i], i) for i in range(6)]
    path = snapshot(tmp_path / "s", [parent, [], []], [parent, parent, []], [parent, parent, parent])
    settings = ("ksm.smart_scan=0", "ksm.pages_to_scan=1")
    config = ksmcluster.load(path, ksmcluster.Overrides(nodes=3, passes=9, count=9, settings=settings))
    inline = ksmcluster.simulate(config, engine="inline").passes
    on_ray = ksmcluster.simulate(config, engine="ray", nodes_per_actor=2).passes
    assert all(np.array_equal(inline[name], on_ray[name]) for name in inline)


def test_a_process_that_ends_gives_back_its_pages(tmp_path: Path) -> None:
    """Of three mappers of a KSM page two stay; a frame of its own goes."""
    three = [[page("a", 0)], [page("a", 1)], [page("a", 2), page("b", 3)]]
    path = snapshot(tmp_path / "s", three, [*three[:2], []])
    found = at_the_end(path)
    counters = ("pages_shared", "pages_sharing", "pages_unshared", "pages_mapped", "frames_used")
    assert [found[name] for name in counters] == [1, 1, 0, 2, 1]


def test_what_ksmd_merged_begins_unmerged(tmp_path: Path) -> None:
    merged = [page("a", 5, flags=KSM)]
    found = last(snapshot(tmp_path / "s", [merged, merged]), passes=1)
    assert (found["pages_shared"], found["frames_used"]) == (0, 2)


def test_zero_pages_of_ksmd_are_drawn_by_their_number(tmp_path: Path) -> None:
    zeros = [page("0", flags=SHARED_ZERO) for _ in range(6)]
    path = snapshot(tmp_path / "s", [zeros], ksm_stat={"ksm_zero_pages": 2})
    assert last(path, "ksm.use_zero_pages=1")["ksm_zero_pages"] == 2
    path = snapshot(tmp_path / "t", [[*zeros, page("a", 0)]], ksm_stat={"ksm_zero_pages": 0})
    assert last(path, "ksm.use_zero_pages=1")["ksm_zero_pages"] == 0


def test_families_stay_on_one_node(tmp_path: Path) -> None:
    """Two families of two; on four nodes each copy of a family has a node of its own."""
    families = [[page("a", 0)], [page("a", 0)], [page("b", 1)], [page("b", 1)]]
    path = snapshot(tmp_path / "s", families)
    result = ksmcluster.simulate(
        ksmcluster.load(path, ksmcluster.Overrides(nodes=4, passes=1)), engine="inline"
    )
    assert sorted(result.passes["frames_used"].tolist()) == [0, 0, 1, 1]


def test_what_one_family_holds_is_each_copy_s_own(tmp_path: Path) -> None:
    """Copies of a family share what another family holds, too, and nothing else."""
    families = [[page("a", 0), page("x", 1)], [page("a", 0), page("x", 1)], [page("x", 2), page("b", 3)]]
    path = snapshot(tmp_path / "s", families)
    found = last(path, count=6)
    assert (found["pages_shared"], found["pages_sharing"]) == (1, 5)
    assert found["frames_used"] == 1 + 2 + 2


@pytest.mark.parametrize(
    ("advised", "advice", "merged"),
    [
        (True, None, 1),
        (False, None, 1),  # ksmd scans nothing there: all is asked for
        (False, "as-captured", 0),
        (None, None, 1),
        (True, "all", 1),
    ],
)
def test_advice(tmp_path: Path, advised: bool | None, advice: str | None, merged: int) -> None:
    path = snapshot(tmp_path / "s", [[page("a", 0)], [page("a", 1)]], advised=advised)
    assert last(path, advice=advice)["pages_shared"] == merged


def test_the_engines_agree(tmp_path: Path) -> None:
    """Shared frames on several nodes: as many actors, or none."""
    rng = np.random.default_rng(5)
    processes = [
        [page("abcdefghij"[rng.integers(10)], frame=int(frame)) for frame in rng.permutation(90)[:60]]
        for _ in range(6)
    ]
    contents: dict[int, str] = {}
    for pages in processes:  # a frame has one content
        for index, (content, frame, *rest) in enumerate(pages):
            pages[index] = (contents.setdefault(frame, content), frame, *rest)
    path = snapshot(tmp_path / "s", processes)
    config = ksmcluster.load(path, ksmcluster.Overrides(nodes=3, passes=3, count=18))
    inline = ksmcluster.simulate(config, engine="inline").passes
    on_ray = ksmcluster.simulate(config, engine="ray", nodes_per_actor=2).passes
    assert all(np.array_equal(inline[name], on_ray[name]) for name in inline)


# The scenario that a snapshot stands for.

HOST = HostInfo(
    "6.12.117-generic",
    250,
    {
        "pages_to_scan": "500",
        "run": "0",
        "smart_scan": "0",
        "advisor_mode": "[none] scan-time",
        "unknown": "1",
    },
    {},
    (NumaNode(0, 2**30, (10, 21)), NumaNode(1, 2**31, (21, 10))),
)


def described(path: Path, host: HostInfo | None) -> Path:
    process = SnapshotProcess(1, "p", "process", (Mapping(0, 4, "rw-p", "", True, False),))
    with SnapshotWriter(path) as writer:
        writer.write(0, 0, _rows([page("a", 0)]))
        writer.finish(replace(metadata(), processes=(process,), host=host))
    return path


def test_kernel_knobs_and_nodes_come_from_the_host(tmp_path: Path) -> None:
    scenario = ksmcluster.load(described(tmp_path / "job.parquet", HOST))
    ksm, machine = scenario.ksm, scenario.machine
    assert (ksm.kernel, ksm.pages_to_scan, ksm.smart_scan, ksm.run) == ("6.12", 500, 0, 1)
    assert (machine.nodes, machine.memory_per_node) == (2, 2**30 // PAGE)
    assert machine.topology.matrix == ((10, 21), (21, 10))
    assert scenario.simulation.title == "job.parquet: KSM if every process enabled it"


def test_other_nodes_and_processes(tmp_path: Path) -> None:
    path = described(tmp_path / "job.parquet", HOST)
    scenario = ksmcluster.load(path, ksmcluster.Overrides(nodes=5, count=7, advice="as-captured"))
    assert (scenario.machine.nodes, scenario.machine.topology.kind) == (5, "fully-connected")
    assert (scenario.process[0].count, scenario.process[0].advice) == (7, "as-captured")
    assert scenario.simulation.title == "job.parquet: KSM with the host's settings"


def test_a_snapshot_without_a_host(tmp_path: Path) -> None:
    data = scenario_of(described(tmp_path / "image", None))
    assert (data["machine"]["nodes"], data["ksm"]) == (1, {})
    assert ksmcluster.load(tmp_path / "image").ksm.kernel == "6.18"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advice": "some"}, '"some" is not one of "as-captured", "all"'),
        ({"nodes": 0}, "--nodes"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = described(tmp_path / "job.parquet", HOST)
    with pytest.raises(UserError, match=message):
        ksmcluster.load(path, ksmcluster.Overrides(**changes))


def test_count_and_advice_are_for_snapshots() -> None:
    with pytest.raises(UserError, match="--advice is for snapshots"):
        ksmcluster.load("tiny", ksmcluster.Overrides(advice="all"))


def test_pinned_pages_are_spread_over_those_that_can_be(tmp_path: Path) -> None:
    """Of six equal pages two share a frame, and one is a KSM page; two of the other three are pinned.

    Pages 0 and 1 are pinned: the first waits, and each other page breaks when it meets it.
    """
    equal = [page("a", 1), page("a", 2), page("a", 3), page("a", 4), page("a", 4), page("a", 5, flags=KSM)]
    file = snapshot(tmp_path / "s.parquet", [equal], pinned_pages=2)
    process = load_pages([str(file)])[str(file)].processes[0]
    assert process.pinned.tolist() == [0, 1]
    result = last(file)
    assert (result["pages_sharing"], result["pages_unshared"]) == (0, 1)
    assert result["cow_ksm"] > 0
    loaded = ksmcluster.load(file, ksmcluster.Overrides(passes=1))
    notes = ksmcluster.simulate(loaded, engine="inline").summary["notes"]
    assert any("s: 2 captured pages are pinned and never merge" in note for note in notes)


def test_no_more_pages_are_pinned_than_there_are(tmp_path: Path) -> None:
    pages = [page("a", 1), page("b", 2), page("a", 3)]
    file = snapshot(tmp_path / "s.parquet", [pages], pinned_pages=1000)
    assert load_pages([str(file)])[str(file)].processes[0].pinned.tolist() == [0, 1, 2]
    result = last(file)
    assert (result["pages_shared"], result["pages_unshared"], result["pages_volatile"]) == (0, 2, 1)


def huge_snapshot(
    path: Path, *memories: list[tuple[int, int]], start: int = 0, same: range = range(0), **process: Any
) -> Path:
    """A snapshot of processes that map frames by (frame, number of the huge page), -1 for small ones.

    The contents of frames differ, but those of `same` are equal.
    """
    with SnapshotWriter(path) as writer:
        processes = []
        for index, frames in enumerate(memories):
            frame, huge = np.array(frames).T
            content = np.where(np.isin(frame, same), 1, frame + 1).astype("<u8")
            mapping = Mapping(start, start + len(frame), "rw-p", "", True, True)
            processes.append(SnapshotProcess(index + 1, "p", "process", (mapping,), **process))
            rows = PageRows(
                vpn=np.arange(start, start + len(frame), dtype=np.uint64),
                digests=np.repeat(content, 2).view(np.uint8).reshape(-1, 16),
                flags=np.full(len(frame), MERGEABLE, np.uint16),
                frame=frame,
                outside=np.zeros(len(frame), np.int64),
                huge=huge,
            )
            writer.write(index, 0, rows)
        writer.finish(replace(metadata((0.0,)), processes=tuple(processes), notes=(), interval=None))
    return path


def whole(number: int) -> list[tuple[int, int]]:
    return [(512 * number + i, number) for i in range(512)]


def small(first: int, pages: int) -> list[tuple[int, int]]:
    return [(first + i, -1) for i in range(pages)]


def placed(path: Path) -> tuple[list[list[int]], list[dict[int, int]], int]:
    """First pages of whole huge pages, how many pages of which others, and how many are not placed."""
    pages = load_pages([str(path)])[str(path)]
    parts = [Counter(process.huge_parts.number.tolist()) for process in pages.processes]
    return [process.huge.tolist() for process in pages.processes], parts, pages.huge_in_parts


def test_huge_pages_are_placed_whole_or_in_parts(tmp_path: Path) -> None:
    """Two whole ones, one of which is not at a multiple of 2 MiB, and a part of a third."""
    memory = [*whole(0), *small(9000, 100), *whole(1), *whole(2)[:255], *small(8000, 256)]
    assert placed(huge_snapshot(tmp_path / "s", memory)) == ([[0]], [{1: 512, 2: 255}], 0)
    assert placed(huge_snapshot(tmp_path / "t", memory, start=412)) == ([[1024]], [{0: 512, 2: 255}], 0)


def test_neighbours_are_no_huge_page(tmp_path: Path) -> None:
    memory = [*small(9000, 255), *whole(0)[255:], *whole(1)[:255], *whole(2)[255:], *whole(3)]
    assert placed(huge_snapshot(tmp_path / "s", memory)) == ([[1024]], [{0: 257, 1: 255, 2: 257}], 0)


def test_a_whole_folio_of_another_size_is_no_huge_page(tmp_path: Path) -> None:
    """Sixteen pages at a multiple of sixteen; seventeen, or others, are a part of a huge page."""
    memory = [*small(9000, 16), *whole(0)[:16], *whole(1)[:17], *whole(2)[:16]]
    assert placed(huge_snapshot(tmp_path / "s", memory)) == ([[]], [{1: 17, 2: 16}], 1)


@pytest.mark.parametrize("nodes", [1, 2])
def test_parts_are_split_and_lose_their_zeros(tmp_path: Path, nodes: int) -> None:
    """Of a huge page 300 pages are mapped, two of them equal to small pages, and 200 of them zeros."""
    frame = np.arange(302)
    content = np.where(frame < 200, 0, frame)
    content[300:] = 250, 251
    rows = PageRows(
        vpn=(frame + 7).astype(np.uint64),
        digests=np.repeat(content.astype("<u8"), 2).view(np.uint8).reshape(-1, 16),
        flags=np.where(content == 0, MERGEABLE | ZERO, MERGEABLE).astype(np.uint16),
        frame=frame,
        outside=np.zeros(302, np.int64),
        huge=np.where(frame < 300, 0, -1),
    )
    process = SnapshotProcess(1, "p", "process", (Mapping(7, 302, "rw-p", "", True, True),))
    with SnapshotWriter(tmp_path / "s") as writer:
        writer.write(0, 0, rows)
        writer.finish(replace(metadata((0.0,)), processes=(process,), notes=(), interval=None))
    changes = ksmcluster.Overrides(passes=4, nodes=nodes, settings=("ksm.use_zero_pages=1",))
    found = ksmcluster.simulate(ksmcluster.load(tmp_path / "s", changes), engine="inline").passes
    names = ("pages_shared", "pages_sharing", "pages_unshared", "ksm_zero_pages", "frames_used")
    assert [int(found[name][-nodes:].sum()) for name in names] == [2, 2, 98, 0, 100]


def test_a_huge_page_is_shared_as_it_was(tmp_path: Path) -> None:
    """A child maps all of the first and, since it wrote a page, most of the second one: three PMDs."""
    child = [*whole(0), *whole(1)]
    child[700] = (5000, -1)
    path = huge_snapshot(tmp_path / "s", [*whole(0), *whole(1)], child)
    assert placed(path) == ([[0, 512], [0]], [{}, {}], 0)
    found = last(path, passes=1)
    assert (found["huge_pages"], found["frames_used"]) == (3, 1025)


def test_a_page_of_a_huge_page_that_a_later_process_maps_first_is_small(tmp_path: Path) -> None:
    """Here the parent wrote a page, so the first to map that frame is the child."""
    parent = whole(0)
    parent[5] = (5000, -1)
    path = huge_snapshot(tmp_path / "s", parent, whole(0))
    assert placed(path) == ([[], []], [{0: 511}, {}], 0)


def test_a_pinned_huge_page_is_not_placed(tmp_path: Path) -> None:
    path = huge_snapshot(tmp_path / "s", [*whole(0), *whole(1)], pinned_pages=1)
    assert placed(path) == ([[512]], [{}], 1)
    result = ksmcluster.simulate(ksmcluster.load(path, ksmcluster.Overrides(passes=1)), engine="inline")
    assert any("1 captured huge page taken as small pages" in note for note in result.summary["notes"])


def test_huge_pages_of_a_snapshot_can_be_small_pages(tmp_path: Path) -> None:
    path = huge_snapshot(tmp_path / "s", [*whole(0), *whole(0)[:10]])
    scenario = scenario_of(path) | {"simulation": {"passes": 3}}
    results = []
    for chosen in ("as-captured", "none"):
        scenario["process"][0]["huge_pages"] = chosen
        results.append(ksmcluster.simulate(scenario, engine="inline"))
    assert results[0].summary["huge_pages"]["before"] == 1
    assert "huge_pages" not in results[1].summary
    assert any('huge_pages = "none"' in note for note in results[1].summary["notes"])


def test_what_a_split_saves(tmp_path: Path) -> None:
    """Four pages of a huge page are equal, and the other huge page stays."""
    path = huge_snapshot(tmp_path / "s", [*whole(0), *whole(1)], same=range(4))
    result = ksmcluster.simulate(ksmcluster.load(path, ksmcluster.Overrides(passes=4)), engine="inline")
    found = {
        "before": 2,
        "after": 1,
        "split": 1,
        "saved_bytes_per_split": 3 * PAGE,
        "split_to_move": 0,
        "fallback": 0,
    }
    assert result.summary["huge_pages"] == found
    assert any("the model has no khugepaged" in note for note in result.summary["notes"])
    assert "Huge pages\n  before" in str(result)
