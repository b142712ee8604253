"""Records of what a real kernel did with movable pages: reading them, and building their first memory.

Kinds of records: `callbacks` (calls of a driver, page by page; also two compactors at once, offlining and
alloc_contig_range), `blocks` (whole memories before and after compaction, with every move), `zram`, and
`zram_contend` (zram with another CPU that reads).
"""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np

from cluster.arrays.words import I64, U64, Bool
from cluster.compaction.drivers.chance import splitmix64
from cluster.compaction.drivers.scripted import ScriptedDriver
from cluster.compaction.kernel_rules import CompactionRules, rules_of_release
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PageKind, PageMap
from cluster.mm.frames import PAGE_MAPPING_ANON
from cluster.script.record import Json, RecordError, read_documents
from cluster.spec.limits import MOST_JSON

_LOWMEM_RESERVE_RATIO = 256
KINDS = ("callbacks", "blocks", "zram", "zram_contend")
_USED_PAGES = np.frombuffer(b"MULXSKCRZH123456789", np.uint8)


def load(path: Path) -> list[Json]:
    """Return the migration records of a `.json` or `.json.xz` file; nothing if it holds something else.

    Raises RecordError if the file is not JSON, OSError if it cannot be read.
    """
    documents = read_documents(path)
    return documents if all(map(_is_record, documents)) else []


def _is_record(document: object) -> bool:
    return isinstance(document, dict) and document.get("kind") in KINDS and "name" in document


def rules_of(record: Json) -> CompactionRules:
    """Return the rules of the kernel that the record is of. Raises UnknownKernelError."""
    return rules_of_release(record["guest"]["kernel"])


def unpack(text: str) -> bytes:
    """Decode a `_zb64` field, which is base64(zlib(data)). Raises RecordError for anything else."""
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(text, validate=True), MOST_JSON)
    except (ValueError, zlib.error) as error:
        raise RecordError(f"not base64(zlib(data)): {error}") from error
    if not stream.eof:
        raise RecordError(f"not base64(zlib(data)), or more than {MOST_JSON:,} bytes of it")
    return data


def moves_of(run: Json) -> I64:
    """Return (source, target) of each recorded move, in order. int64[moves, 2]."""
    return np.frombuffer(unpack(run["moves_zb64"]), "<u4").astype(np.int64).reshape(-1, 2)


def free_lists_of(state: Json, zones: int) -> list[list[tuple[int, int, I64]]]:
    """Return the free lists of each zone as (order, type, blocks from the head); none if not recorded."""
    if "free_lists_zb64" not in state:
        return []
    words = np.frombuffer(unpack(state["free_lists_zb64"]), "<u4").astype(np.int64)
    lists: list[list[tuple[int, int, I64]]] = [[] for _ in range(zones)]
    at = 0
    while at < len(words):
        zone, order, migratetype, count = words[at : at + 4].tolist()
        lists[zone].append((order, migratetype, words[at + 4 : at + 4 + count]))
        at += 4 + count
    return lists


def memory_of(record: Json, state: Json) -> tuple[Memory, ScriptedDriver, LruPages]:
    """Build the memory that a state of the record shows; return it with the owners of its movable pages."""
    kinds = np.frombuffer(unpack(state["map_zb64"]), np.uint8)
    pages = PageMap(len(kinds))
    pages.kind[:] = kinds
    pages.set_free(kinds == PageKind.FREE)
    types = np.frombuffer(state["mt"].encode(), np.uint8) - ord("0")
    pages.pageblock_type[: len(types)] = types
    pages.refcount[~np.isin(kinds, _USED_PAGES)] = 0
    zones = []
    for above, z in enumerate(record["zones"], 1):
        end = z["start_pfn"] + z["spanned"]
        reserve = sum(other["managed"] for other in record["zones"][above:]) // _LOWMEM_RESERVE_RATIO
        zones.append(Zone(pages, z["start_pfn"], end, z["zone"], z["min"], z["low"], reserve))
    memory = Memory(pages, zones)
    driver = ScriptedDriver(memory)
    driver.kind = PageKind.ZSMALLOC if record["kind"] == "zram" else PageKind.MOVABLE
    driver.adopt(np.flatnonzero(kinds == driver.kind))
    lru = LruPages(memory)
    on_lists = (kinds == PageKind.LRU) | (kinds == PageKind.UNEVICTABLE)
    lru.adopt(np.flatnonzero(on_lists), PAGE_MAPPING_ANON)
    for order in range(1, PAGEBLOCK_ORDER):
        in_folios = np.flatnonzero(kinds == ord(str(order)))
        lru.adopt_folios(in_folios[in_folios % (1 << order) == 0], order, PAGE_MAPPING_ANON)
    return memory, driver, lru


def chosen(pfns: I64, seed: int, unit: int, percent: int) -> Bool:
    """Return which pages a random rule of the recorded driver applies to. int64[n] -> bool[n].

    These are the pages for which H(seed, pfn / unit) % 100 < percent.
    """
    return hashed(seed, pfns // unit) % np.uint64(100) < percent


def hashed(seed: int, values: I64) -> U64:
    """Return splitmix64((seed << 32) | value). int64[n] -> uint64[n]."""
    return splitmix64(values.astype(np.uint64) | np.uint64(seed << 32))


def apply_behaviour(driver: ScriptedDriver, rule: str) -> None:
    """Set scripts for random pages of the driver: `SEED UNIT PCT iso K` or `SEED UNIT PCT err K E`."""
    seed, unit, percent, what, count, *error = rule.split()
    numbers = np.flatnonzero(chosen(driver.frame_of, int(seed), int(unit), int(percent)))
    if what == "iso":
        driver.scripts.refusals[numbers] = int(count)
    else:
        driver.scripts.failures[numbers] = int(count)
        driver.scripts.error[numbers] = int(error[0])
