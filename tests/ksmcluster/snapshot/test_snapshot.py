"""The snapshot format: round trips, order, files that are no snapshots."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmcluster.snapshot import (
    KSM,
    MERGEABLE,
    WRITTEN,
    ZERO,
    HostInfo,
    KeyInfo,
    Mapping,
    Metadata,
    Note,
    NumaNode,
    PageRows,
    Snapshot,
    SnapshotProcess,
    SnapshotWriter,
    content_ids,
    cover,
)
from ksmcluster.snapshot.schema import METADATA_KEY, SCHEMA, SCHEMA_1
from ksmcluster.system.errors import UserError

WHOLE = (Mapping(0, 2**51, "rw-p", "", True), Mapping(2**51, 2**51, "rw-p", "", True))
FILE_MAPPING = Mapping(0, 2**52, "r-x?", "/a b", False, True, False)
PROCESSES = (
    SnapshotProcess(7, "näme", "process", (Mapping(0, 2**52, "rw-p", "[heap]", True),)),
    SnapshotProcess(
        None, "image", "image", (Mapping(0, 2**51, "rw-p", "", True), Mapping(2**51, 2**51, "rw-p", "", True))
    ),
    SnapshotProcess(2**22, "", "core", (FILE_MAPPING,), 0, 5, {"ksm_rmap_items": 3}),
)

Rows = dict[tuple[int, int], dict[int, tuple[bytes, int]]]
"""By moment and process: by vpn, digest and flags."""


def metadata(moments: tuple[float, ...] = (0.0,), version: int = 2) -> Metadata:
    return Metadata(
        version=version,
        page_size=4096,
        key=KeyInfo("file", "00" * 16),
        captured_at="2024-01-01T00:00:00.000+00:00",
        kernel_release=None,
        all_pages=True,
        vanished_pages=3,
        moments=moments,
        processes=PROCESSES,
        host=HostInfo(
            "6.18.44", 250, {"run": "1"}, {"enabled": "[always] never"}, (NumaNode(0, 2**30, (10,)),)
        ),
        tracking="ptrace",
        notes=(Note("one-moment", "One moment only."),),
    )


def write(path: Path, rows: Rows, found: Metadata, row_group_rows: int = 2**18) -> None:
    with SnapshotWriter(path, row_group_rows) as writer:
        for (moment, process), pages in sorted(rows.items()):
            vpn = np.array(sorted(pages), np.uint64)
            digests = np.frombuffer(b"".join(pages[n][0] for n in sorted(pages)), np.uint8).reshape(-1, 16)
            flags = np.array([pages[n][1] for n in sorted(pages)], np.uint16)
            writer.write(process, moment, PageRows(vpn, digests, flags))
        assert writer.finish(found) == path.stat().st_size


def expected(digest: bytes, flags: int) -> int:
    return 0 if flags & ZERO else int.from_bytes(digest[:8], "little") or 1


digests = st.one_of(st.binary(min_size=16, max_size=16), st.just(bytes(16)))
flags = st.sampled_from([0, ZERO, MERGEABLE, MERGEABLE | ZERO, 2, 4 | MERGEABLE, KSM | WRITTEN | MERGEABLE])
pages = st.dictionaries(st.integers(0, 2**52 - 1), st.tuples(digests, flags), max_size=20)
rows = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 2)), pages)


@settings(max_examples=60, deadline=None)
@given(rows=rows, row_group_rows=st.integers(1, 50))
def test_round_trip(tmp_path_factory: Any, rows: Rows, row_group_rows: int) -> None:
    path = tmp_path_factory.mktemp("round") / "s"
    written = metadata((0.0, 0.5, 1.25, 100.0))
    write(path, rows, written, row_group_rows)
    with Snapshot.open(path) as snapshot:
        assert snapshot.metadata == written
        assert snapshot.processes == PROCESSES
        for moment in range(4):
            for process in range(3):
                pages = sorted(rows.get((moment, process), {}).items())
                for all_pages in (False, True):
                    vpn, content = snapshot.pages(process, moment, all_pages=all_pages)
                    wanted = [(n, *page) for n, page in pages if all_pages or page[1] & MERGEABLE]
                    assert vpn.dtype == content.dtype == np.uint64
                    assert vpn.tolist() == [n for n, _, _ in wanted]
                    assert content.tolist() == [expected(digest, flag) for _, digest, flag in wanted]
    table = pq.read_table(path)
    for row in table.to_pylist():
        digest, flag = rows[row["moment"], row["process"]][row["vpn"]]
        assert row["flags"] == flag
        assert row["digest"] == (None if flag & ZERO else digest)
    keys = list(zip(*(table[name].to_pylist() for name in ("moment", "process", "vpn")), strict=True))
    assert keys == sorted(keys)


def test_content_ids() -> None:
    found = content_ids(
        np.array([[1] + [0] * 15, [0] * 8 + [5] * 8, [0] * 7 + [1] + [9] * 8, [7] * 16], np.uint8),
        np.array([False, False, False, True]),
    )
    assert found.tolist() == [1, 1, 1 << 56, 0]


@pytest.mark.parametrize("second", [(0, 0, 5), (0, 0, 4), (0, 0, 1)])
def test_order_is_kept(tmp_path: Path, second: tuple[int, int, int]) -> None:
    digest, flag = np.zeros((1, 16), np.uint8), np.zeros(1, np.uint16)
    with SnapshotWriter(tmp_path / "s") as writer:
        writer.write(0, 0, PageRows(np.array([5], np.uint64), digest, flag))
        process, moment, vpn = second
        with pytest.raises(ValueError, match="ascending"):
            writer.write(process, moment, PageRows(np.array([vpn], np.uint64), digest, flag))
    assert not list(tmp_path.iterdir())


def test_unknown_process_and_moment(tmp_path: Path) -> None:
    write(tmp_path / "s", {}, metadata())
    with Snapshot.open(tmp_path / "s") as snapshot:
        for process, moment in ((3, 0), (-1, 0), (0, 1), (0, -1)):
            with pytest.raises(IndexError):
                snapshot.pages(process, moment)


def put(path: Path, schema: pa.Schema, text: bytes | None) -> Path:
    table = schema.empty_table().replace_schema_metadata({METADATA_KEY: text} if text else None)
    pq.write_table(table, path)
    return path


def test_not_snapshots(tmp_path: Path) -> None:
    write(tmp_path / "s", {}, metadata())
    text = json.loads(pq.read_metadata(tmp_path / "s").metadata[METADATA_KEY])
    good = json.dumps(text).encode()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_text("")
    (tmp_path / "cut").write_bytes((tmp_path / "s").read_bytes()[:-1])
    other = pa.schema([pa.field("moment", pa.uint16())])
    for path, message in (
        (tmp_path / "none", "no snapshot"),
        (tmp_path, "not a snapshot"),
        (tmp_path / "text", "not a snapshot"),
        (tmp_path / "empty", "not a snapshot"),
        (tmp_path / "cut", "not a snapshot"),
        (put(tmp_path / "1", SCHEMA, None), "not a snapshot"),
        (put(tmp_path / "2", SCHEMA, b"{"), "damaged snapshot metadata"),
        (put(tmp_path / "3", SCHEMA, b"[]"), "damaged snapshot metadata"),
        (put(tmp_path / "4", SCHEMA, b'{"version": 1}'), "damaged snapshot metadata"),
        (put(tmp_path / "5", SCHEMA, b'{"version": 3}'), "snapshot format 3, newer than 2"),
        (put(tmp_path / "6", other, good), "does not have the columns"),
    ):
        with pytest.raises(UserError, match=message):
            Snapshot.open(path)
    Snapshot.open(put(tmp_path / "7", SCHEMA, good)).close()


def test_damaged_pages(tmp_path: Path) -> None:
    pages = {n: (bytes([n % 251]) * 16, MERGEABLE) for n in range(1000)}
    write(tmp_path / "s", {(0, 0): pages}, metadata())
    whole = bytearray((tmp_path / "s").read_bytes())
    middle = len(whole) // 3
    whole[100:middle] = bytes(middle - 100)
    (tmp_path / "s").write_bytes(whole)
    with pytest.raises(UserError, match="damaged"), Snapshot.open(tmp_path / "s") as snapshot:
        snapshot.pages(0)


def test_a_later_page_of_a_column_is_damaged(tmp_path: Path) -> None:
    """It is found when it is read, and not before."""
    rng = np.random.default_rng(1)
    pages = {n: (rng.bytes(16), MERGEABLE) for n in range(100_000)}
    write(tmp_path / "s", {(0, 0): pages}, metadata())
    whole = bytearray((tmp_path / "s").read_bytes())
    whole[1_500_000:1_500_100] = bytes(100)
    (tmp_path / "s").write_bytes(whole)
    with Snapshot.open(tmp_path / "s") as snapshot, pytest.raises(UserError, match="damaged"):
        snapshot.pages(0)


def test_metadata_of_which_pyarrow_would_abort(tmp_path: Path) -> None:
    """One bit of the footer is wrong. Of some that are, pyarrow throws where nothing catches it."""
    write(tmp_path / "s", {(0, 0): {n: (bytes([n]) * 16, MERGEABLE) for n in range(5)}}, metadata())
    whole = (tmp_path / "s").read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for at in range(footer, len(whole) - 8):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        (tmp_path / "changed").write_bytes(changed)
        try:
            Snapshot.open(tmp_path / "changed").close()
        except UserError:
            refused += 1
    assert refused > 100


def spans(names: str) -> st.SearchStrategy[list[Mapping]]:
    """Disjoint ascending mappings within 40 pages, each page named by its mapping."""

    def build(letters: str) -> list[Mapping]:
        single = [Mapping(n, 1, "rw-p", name, True) for n, name in enumerate(letters) if name != " "]
        return list(cover(single, []))

    return st.text(names + " ", max_size=40).map(build)


def by_page(mappings: list[Mapping] | tuple[Mapping, ...]) -> dict[int, str]:
    return {page: m.name for m in mappings for page in range(m.start_vpn, m.end_vpn)}


@given(spans("ab"), spans("bc"))
def test_cover(earlier: list[Mapping], later: list[Mapping]) -> None:
    found = cover(earlier, later)
    assert by_page(found) == by_page(later) | by_page(earlier)
    for first, second in pairwise(found):
        assert first.end_vpn <= second.start_vpn
        assert first.end_vpn < second.start_vpn or first.name != second.name


def test_what_came_in_the_way_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "s"
    with pytest.raises(UserError, match="did not write"), SnapshotWriter(output) as writer:
        output.write_bytes(b"years")
        writer.finish(metadata())
    assert output.read_bytes() == b"years"
    assert list(tmp_path.iterdir()) == [output]


def test_what_is_known_of_frames_comes_back(tmp_path: Path) -> None:
    vpn = np.arange(4, dtype=np.uint64)
    columns = {
        "frame": np.array([0, 0, -1, 2**31]),
        "outside": np.array([0, 70_000, -1, 1]),
        "huge": np.array([-1, -1, -1, 9]),
        "node": np.array([0, 0, -1, 3]),
    }
    with SnapshotWriter(tmp_path / "s") as writer:
        flags = np.full(4, MERGEABLE, np.uint16)
        writer.write(0, 0, PageRows(vpn, np.ones((4, 16), np.uint8), flags, **columns))
        writer.write(1, 0, PageRows(vpn, np.ones((4, 16), np.uint8), flags))
        writer.finish(metadata())
    with Snapshot.open(tmp_path / "s") as snapshot:
        (_, _, known), (_, _, unknown) = snapshot.blocks()
    for name, values in columns.items():
        assert getattr(known, name).tolist() == values.tolist()
        assert getattr(unknown, name).tolist() == [-1] * 4


def test_format_1_is_still_read(tmp_path: Path) -> None:
    old = metadata(version=1)
    text = json.loads(pq.read_metadata(_written(tmp_path)).metadata[METADATA_KEY])
    for key in ("host", "tracking", "notes"):
        del text[key]
    for process in text["processes"]:
        for key in ("parent", "pinned_pages", "ksm_stat"):
            del process[key]
        for mapping in process["mappings"]:
            del mapping["advised"], mapping["thp_eligible"]
    text["version"] = 1
    columns = [[0, 0], [0, 0], [5, 6], [b"x" * 16, None], [MERGEABLE, MERGEABLE | ZERO]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA_1, strict=True)]
    table = pa.table(arrays, schema=SCHEMA_1).replace_schema_metadata({METADATA_KEY: json.dumps(text)})
    pq.write_table(table, tmp_path / "old")
    with Snapshot.open(tmp_path / "old") as snapshot:
        assert [process.name for process in snapshot.processes] == [process.name for process in old.processes]
        assert snapshot.metadata.host is None
        assert [mapping.advised for mapping in snapshot.processes[0].mappings] == [None]
        ((_, _, pages),) = snapshot.blocks()
    assert pages.vpn.tolist() == [5, 6]
    assert pages.content.tolist() == [expected(b"x" * 16, 0), 0]
    assert pages.frame.tolist() == [-1, -1]


def _written(folder: Path) -> Path:
    write(folder / "s", {(0, 0): {1: (b"x" * 16, MERGEABLE)}}, metadata())
    return folder / "s"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"page_size": 16384}, "16384 bytes"),
        ({"moments": []}, "0 moments"),
        ({"moments": [0.0, float("nan")]}, "not finite or do not start at 0"),
        ({"moments": [1.0]}, "not finite or do not start at 0"),
        ({"moments": [0.0, 2.0, 1.0]}, "do not ascend"),
        ({"moments": [0.0, 2e9]}, "last moment is at 2000000000.0 s"),
        ({"moments": [0.0, 9.0], "interval": 1e-6}, "with an interval of 1e-06 s"),
        ({"processes": []}, "no process"),
        ({"version": 0}, "never existed"),
    ],
)
def test_metadata_that_breaks_the_rules(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    text = json.loads(pq.read_metadata(_written(tmp_path)).metadata[METADATA_KEY]) | change
    put(tmp_path / "bad", SCHEMA, json.dumps(text).encode())
    with pytest.raises(UserError, match=message):
        Snapshot.open(tmp_path / "bad")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 0, 5, 0), (0, 0, 5, 0)], "are repeated or not in ascending order"),
        ([(0, 0, 6, 0), (0, 0, 5, 0)], "are repeated or not in ascending order"),
        ([(0, 1, 5, 0), (0, 0, 5, 0)], "ascending order of moment and process"),
        ([(1, 0, 5, 0)], "process 0 at moment 1"),
        ([(0, 9, 5, 0)], "process 9 at moment 0"),
        ([(0, 0, 2**52, 0)], "in none of its mappings"),
        ([(0, 0, 5, ZERO)], "both a digest and the zero flag"),
    ],
)
def test_rows_that_break_the_rules(
    tmp_path: Path, rows: list[tuple[int, int, int, int]], message: str
) -> None:
    text = pq.read_metadata(_written(tmp_path)).metadata[METADATA_KEY]
    columns = [list(column) for column in zip(*((m, p, v, b"x" * 16, f) for m, p, v, f in rows), strict=True)]
    known = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=False)]
    missing = [pa.nulls(len(rows), field.type) for field in list(SCHEMA)[5:]]
    table = pa.table([*known, *missing], schema=SCHEMA).replace_schema_metadata({METADATA_KEY: text})
    pq.write_table(table, tmp_path / "bad")
    with Snapshot.open(tmp_path / "bad") as snapshot, pytest.raises(UserError, match=message):
        list(snapshot.blocks())
