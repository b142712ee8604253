"""Records of a real kernel replay to the single move and call."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.compaction.replay.compare import compare, comparison_of
from cluster.compaction.replay.migration_record import chosen, hashed, load, moves_of
from cluster.script.record import RecordError
from cluster.spec.profile import profile_of_release
from ksmcluster.validate.replay import ReplayError, compare_records
from tests.paths import DATA, DOCS

ORACLE = DATA / "oracle_migrate"
#: By kind and name those of 6.1; by kernel, kind and name the others.
RECORDS: dict[str, dict[str, Any]] = {
    f"{path.relative_to(ORACLE).as_posix().removesuffix('.json.xz')}/{record['name']}": record
    for path in sorted([*ORACLE.glob("*.json.xz"), *ORACLE.glob("*/*.json.xz")])
    if path.parent == ORACLE or not path.name.startswith("direct")
    for record in load(path)
}


@pytest.mark.parametrize("name", RECORDS)
def test_record(name: str) -> None:
    assert compare(RECORDS[name]) is None


def test_there_are_records_of_every_kind() -> None:
    kinds = [name.rpartition("/")[0] for name in RECORDS]
    of_6_1 = {"blocks": 23, "callbacks": 51, "concurrent": 4, "direct": 7, "offline": 5, "zram": 6}
    others = {"blocks": 4, "callbacks": 53, "concurrent": 4, "contend": 2, "lru": 2, "offline": 5}
    of_newer = {f"{kernel}/{kind}": n for kernel in ("6.12", "6.18", "7.2") for kind, n in others.items()}
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **of_6_1,
        **of_newer,
        "6.12/callbacks": 57,
        "6.12/zram": 2,
        "6.18/lru": 1,
    }


def test_the_page_on_validity_counts_them() -> None:
    paths = [*ORACLE.glob("*.json.xz"), *ORACLE.glob("*/*.json.xz")]
    counts = Counter(
        (comparison_of(record).kind, "6.1" if path.parent == ORACLE else path.parent.name)
        for path in paths
        for record in load(path)
    )
    text = (DOCS / "explanation" / "validity.md").read_text()
    assert f"There are {counts.total()} records of page migration" in text
    for kind in {kind for kind, _kernel in counts}:
        numbers = " | ".join(str(counts[kind, kernel]) for kernel in ("6.1", "6.12", "6.18", "7.2"))
        assert f"| {kind} | {numbers} |" in text


def _copy(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(RECORDS[name]))
    return record


def test_a_wrong_call_is_named() -> None:
    record = _copy("callbacks/eagain_k3")
    record["runs"][0]["seq"]["1"] = "I M(-11)*4 M"
    assert str(compare(record)) == 'run 0 page 1 "I M(-11)*3 M" "I M(-11)*4 M"'


def test_a_wrong_order_of_calls_is_named() -> None:
    record = _copy("callbacks/ebusy_after_eagain_mix_9")
    events = record["runs"][0]["events"]
    puts = [i for i, event in enumerate(events) if event[0] == "P"]
    events[puts[0]], events[puts[1]] = events[puts[1]], events[puts[0]]
    assert "events[" in str(compare(record))


def test_a_wrong_counter_is_named() -> None:
    record = _copy("callbacks/success_8")
    record["runs"][0]["vmstat_delta"]["pgmigrate_success"] = 9
    assert str(compare(record)) == "run 0 pgmigrate_success 8 9"
    record = _copy("blocks/p90_u1_rand50")
    record["runs"][1]["vmstat_delta"]["compact_isolated"] += 1
    assert "run 1 compact_isolated" in str(compare(record))
    record = _copy("6.12/blocks/p100_u1_rand50")
    record["runs"][0]["vmstat_delta"]["compact_migrate_scanned"] += 1
    assert str(compare(record)) == "run 0 compact_migrate_scanned 38911 38912"


def test_a_wrong_move_is_named() -> None:
    record = _copy("blocks/p25_u1_rand50")
    moves = moves_of(record["runs"][0]).copy()
    moves[17, 1] += 1
    packed = zlib.compress(moves.astype("<u4").tobytes())
    record["runs"][0]["moves_zb64"] = base64.b64encode(packed).decode()
    source, target = moves[17].tolist()
    assert str(compare(record)) == f"run 0 moves[17] [{source},{target - 1}] [{source},{target}]"


def test_wrong_numbers_of_blocks_are_named() -> None:
    record = _copy("direct/direct_kmayfail_p100")
    record["runs"][0]["o9_at"] = record["runs"][0]["o9_at"][:20]
    assert str(compare(record)) == "run 0 blocks obtained 37 20"
    record = _copy("zram/zram_2000_rand50")
    state = record["states"]["compacted"]
    kinds = bytearray(zlib.decompress(base64.b64decode(state["map_zb64"])))
    blocks = [kinds[at : at + 512] for at in range(0, len(kinds), 512)]
    used = next(n for n, block in enumerate(blocks) if b"Z" not in block and block.strip(b"."))
    kinds[used * 512 : (used + 1) * 512] = b"." * 512
    state["map_zb64"] = base64.b64encode(zlib.compress(kinds)).decode()
    assert str(compare(record)) == "compacted order9_free_blocks 29 30"


def test_a_wrong_move_of_a_large_folio_is_named() -> None:
    record = _copy("7.2/lru/lru_o2_rand50")
    run = record["runs"][0]
    moves = (
        np.frombuffer(zlib.decompress(base64.b64decode(run["all_moves_zb64"])), "<u4").reshape(-1, 4).copy()
    )
    large = int(np.flatnonzero(moves[:, 2])[5])
    moves[large, 2] = 3
    run["all_moves_zb64"] = base64.b64encode(zlib.compress(moves.tobytes())).decode()
    source, target = moves[large, :2].tolist()
    assert str(compare(record)) == f"run 0 moves[{large}] [{source},{target},2] [{source},{target},3]"


def test_wrong_numbers_of_zram_with_a_reader_are_named() -> None:
    record = _copy("6.18/contend/zram_contend_2000")
    record["runs"][1]["zs_page_migrate"] = "ok 7000 again 3 busy 1 other 0 last_other 0"
    assert str(compare(record)) == "run 1 zs_page_migrate refused 0 4"
    record["data_check"] = "good 29852 bad 1"
    assert str(compare(record)) == 'run 0 data_check "good 29853 bad 0" "good 29852 bad 1"'


def test_a_wrong_type_of_a_pageblock_is_named() -> None:
    record = _copy("6.12/callbacks/contig_success_kernel_block")
    record["runs"][0]["answer"] = record["runs"][0]["answer"].replace("mt 0 1", "mt 0 0")
    assert "mt 0 1" in str(compare(record))
    assert compare(RECORDS["6.18/callbacks/contig_success_kernel_block"]) is None


def test_a_page_isolated_twice_is_named() -> None:
    record = _copy("concurrent/two_compactors_race_1500")
    run = record["runs"][0]
    granted = next(event for event in run["events"] if event[0] == "I" and event[5])
    run["events"].insert(0, granted)
    assert "I while isolated" in str(compare(record))


def test_damaged_records(tmp_path: Path) -> None:
    record = _copy("callbacks/success_8")
    del record["guest"]
    with pytest.raises(RecordError, match="record success_8: KeyError: 'guest'"):
        compare(record)
    record = _copy("blocks/p0_u1_rand50")
    record["states"][0]["map_zb64"] = "!"
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(ReplayError, match=r"damaged.json: not base64\(zlib\(data\)\)"):
        list(compare_records("damaged", path, "exact"))


def test_through_replay(tmp_path: Path) -> None:
    path = tmp_path / "offline.json"
    path.write_text(json.dumps([RECORDS["offline/offline_eagain_k25"], RECORDS["callbacks/contig_enomem"]]))
    comparisons = list(compare_records("some", path, "exact"))
    assert list(map(str, comparisons)) == ["some/offline_eagain_k25 ok", "some/contig_enomem ok"]
    # which part is compared is said with them
    assert "compared: all calls in their order" in comparisons[0].scope
    newer = profile_of_release("6.18")
    assert [c.difference is None for c in compare_records("some", path, "exact", newer)] == [False, False]


def test_the_hash_of_random_rules() -> None:
    # splitmix64 of 0, of its published test sequence
    assert int(hashed(0, np.array([0]))[0]) == 0xE220A8397B1DCDAF
    assert chosen(np.arange(10000), 7, 1, 30).mean() == pytest.approx(0.3, abs=0.02)
    assert len(set(chosen(np.arange(512), 7, 512, 50).tolist())) == 1
