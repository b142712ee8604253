"""Records of what a machine looked like after each step, in the JSON form of the recorded kernels.

A document has the `text` of the script, its `events`, the `knobs` at the end, and `records`. A record has
`label`, `line`, `op`, `sysfs`, `vmstat`, `procs` and `regions`; a record of a scan also has `new_ksm`. In a
region, `part` labels frames by first appearance; `kind` is 0 anonymous, 1 KSM, 2 zero page, -1 absent,
-2 swapped; on machines with several nodes `node` is the node of the frame; and regions that may have huge
pages have `thp`: 2 part of a huge page that the process maps by a PMD, 1 by PTEs, 0 a small page or none.
Sequences are run-length coded strings (`rle`).
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_JSON

#: A JSON object: a document or one of its records.
Json = dict[str, Any]

SAME = "same"  #: in place of regions that equal those of the record before

#: keys that describe the run, not the machine: `compare` ignores them
_ABOUT_THE_RUN = ("ms", "total_ms", "runs", "nondeterministic", "foreign", "kernel", "topology")
_MISSING = object()
_SHOWN_LENGTH = 72


class RecordError(Exception):
    """A file that should hold records does not."""


class NoRecordsError(RecordError):
    """The file is JSON, but of another kind."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two documents."""

    step: str
    field: str
    ours: object
    theirs: object

    def __str__(self) -> str:
        return f"{self.step} {self.field} {self.values()}"

    def values(self) -> str:
        """Return both values as text, long ones cut to where they begin to differ."""
        ours, theirs = _shown(self.ours), _shown(self.theirs)
        pairs = enumerate(zip(ours, theirs, strict=False))
        first = next((i for i, (mine, yours) in pairs if mine != yours), 0)
        return f"{_cut(ours, first)} {_cut(theirs, first)}"

    def as_json(self) -> Json:
        """Return the difference as data; null stands for a missing value."""
        ours, theirs = (None if value is _MISSING else value for value in (self.ours, self.theirs))
        return {"step": self.step, "field": self.field, "ours": ours, "theirs": theirs}


def rle(values: Iterable[int]) -> str:
    """Return a sequence as text: `v` is one value, `v*n` n times v, `v+n` the n values v, v+1, ..."""
    v = list(values)
    words: list[str] = []
    i, n = 0, len(v)
    while i < n:
        same = _run(v, i, 0)
        rising = _run(v, i, 1)
        if same >= rising and same > 1:
            words.append(f"{v[i]}*{same}")
            i += same
        elif rising > 1 and not (rising == 2 and i + 2 < n and v[i + 2] == v[i + 1]):
            words.append(f"{v[i]}+{rising}")
            i += rising
        else:
            words.append(str(v[i]))
            i += 1
    return " ".join(words)


def unrle(text: str) -> list[int]:
    """Return the sequence that `rle` coded. Raises ValueError on any other text."""
    values: list[int] = []
    for word in text.split():
        first, repeat, times = word.partition("*")
        if repeat:
            values += [int(first)] * int(times)
            continue
        first, rising, count = word.partition("+")
        values += range(int(first), int(first) + (int(count) if rising else 1))
    return values


def _run(v: list[int], start: int, step: int) -> int:
    """Return how many values from `start` on rise by `step` each."""
    length = 1
    while start + length < len(v) and v[start + length] == v[start] + step * length:
        length += 1
    return length


def fold(document: Json) -> Json:
    """Return a copy with `"same"` in place of regions that equal those before."""
    records = []
    before: object = None
    for record in document["records"]:
        records.append({**record, "regions": SAME} if record["regions"] == before else record)
        before = record["regions"]
    return {**document, "records": records}


def unfold(document: Json) -> Json:
    """Return a copy with every `"same"` replaced by the regions before."""
    records = []
    before: object = []
    for record in document["records"]:
        before = before if record["regions"] == SAME else record["regions"]
        records.append({**record, "regions": before})
    return {**document, "records": records}


def compare(ours: Json, theirs: Json) -> Difference | None:
    """Return the first of `differences`, if there is any."""
    return next(differences(ours, theirs), None)


def differences(ours: Json, theirs: Json) -> Iterator[Difference]:
    """Yield the differences of two documents: records in order, then events and knobs.

    Ignores the keys that say when, where and how often the script was run, and what `chance_of` names.
    """
    chance = chance_of(theirs)
    ours, theirs = unfold(ours), unfold(theirs)
    for i, (mine, yours) in enumerate(zip(ours["records"], theirs["records"], strict=False)):
        for path, mine_there, theirs_there in _differences(mine, yours):
            if f"records[{i}].{path}" not in chance:
                yield Difference(str(yours.get("label", "")), path, mine_there, theirs_there)
    if len(ours["records"]) != len(theirs["records"]):
        yield Difference("end", "records", len(ours["records"]), len(theirs["records"]))
    skip = (*_ABOUT_THE_RUN, "records")
    mine = {key: value for key, value in ours.items() if key not in skip}
    yours = {key: value for key, value in theirs.items() if key not in skip}
    for path, mine_there, theirs_there in _differences(mine, yours):
        if path not in chance:
            yield Difference("end", path, mine_there, theirs_there)


def chance_of(document: Json) -> frozenset[str]:
    """Return the paths of the values that differed between runs of the recording (`nondeterministic`)."""
    paths = document.get("nondeterministic")
    return (
        frozenset(path for path in paths if isinstance(path, str)) if isinstance(paths, list) else frozenset()
    )


def _differences(ours: object, theirs: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            if key not in _ABOUT_THE_RUN:
                where = f"{path}.{key}" if path else str(key)
                yield from _differences(ours.get(key, _MISSING), theirs.get(key, _MISSING), where)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(mine, yours, f"{path}[{i}]")
    elif ours != theirs:
        yield path, ours, theirs


def _shown(value: object) -> str:
    return "-" if value is _MISSING else json.dumps(value, separators=(",", ":"))


def _cut(text: str, around: int) -> str:
    """Return the part of a long text around one place."""
    if len(text) <= _SHOWN_LENGTH:
        return text
    start = max(around - _SHOWN_LENGTH // 4, 0)
    end = start + _SHOWN_LENGTH
    return f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"


def load(path: Path) -> list[Json]:
    """Return the documents of a file, which has one or a list of them: `.json`, or `.json.xz` if compressed.

    Raises NoRecordsError or RecordError if the file holds something else, OSError if it cannot be read.
    """
    documents = read_documents(path)
    for document in documents:
        _check(document)
    return documents


def read_documents(path: Path) -> list[Any]:
    """Return the contents of a `.json` or `.json.xz` file: the elements of a list, or the one value.

    Raises RecordError if the file is not JSON, OSError if it cannot be read.
    """
    data = read_input(path, MOST_JSON)
    try:
        value = json.loads(_unpacked(data) if path.suffix == ".xz" else data)
    except (lzma.LZMAError, ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return value if isinstance(value, list) else [value]


def _unpacked(data: bytes) -> bytes:
    """Return decompressed data. Raises RecordError if they are more than MOST_JSON."""
    parts: list[bytes] = []
    while data:  # several streams may follow each other
        stream = lzma.LZMADecompressor(memlimit=MOST_JSON)
        parts.append(stream.decompress(data, MOST_JSON + 1 - sum(map(len, parts))))
        if sum(map(len, parts)) > MOST_JSON:
            raise RecordError(f"unpacks to more than {MOST_JSON:,} bytes")
        if not stream.eof:
            raise lzma.LZMAError("the compressed data end too early")
        data = stream.unused_data
    return b"".join(parts)


def _check(document: object) -> None:
    """Check what replaying needs; a wrong value further down will be a difference."""
    if not isinstance(document, dict) or "records" not in document:
        raise NoRecordsError("not a record document: it has no records")
    wanted = {"scenario": str, "kernel": str, "topology": dict, "text": str, "records": list}
    for key, kind in wanted.items():
        if not isinstance(document.get(key), kind):
            raise RecordError(f"not a record document: {key} is missing or wrong")
    topology = document["topology"]
    if not isinstance(topology.get("nodes"), int) or not isinstance(topology.get("swap"), bool):
        raise RecordError("not a record document: topology has no nodes or swap")
    for record in document["records"]:
        if not isinstance(record, dict) or "regions" not in record:
            raise RecordError("not a record document: a record has no regions")


def dumps(document: Json) -> str:
    """Return a document as compact JSON on one line, with repeated regions folded."""
    return json.dumps(fold(document), separators=(",", ":"))
