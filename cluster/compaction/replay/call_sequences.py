"""The sequence of calls that a driver gets for each page, in the words of the records: "I M(-11)*3 M"."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from cluster.compaction.replay.call_setting import CallSetting
from cluster.script.record import Difference, Json


def differing_sequence(step: str, setting: CallSetting, run: Json) -> Difference | None:
    """Return the first page whose calls differ from those in the record; None if there is none."""
    ours, theirs = _sequences(setting.calls()), run["seq"]
    for page in sorted({*ours, *theirs}, key=int):
        if ours.get(page) != theirs.get(page):
            return Difference(step, f"page {page}", ours.get(page), theirs.get(page))
    return None


def _sequences(calls: Iterable[tuple[int, str, int]]) -> dict[str, str]:
    """Return by page id the words of its calls, in order, with repeats counted."""
    words: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for page, op, answer in calls:
        if (word := _word(op, answer)) is None:
            continue
        if words[page] and words[page][-1][0] == word:
            words[page][-1] = (word, words[page][-1][1] + 1)
        else:
            words[page].append((word, 1))
    return {
        str(page): " ".join(word if times == 1 else f"{word}*{times}" for word, times in of_page)
        for page, of_page in sorted(words.items())
    }


def _word(op: str, answer: int) -> str | None:
    """Return the word for a call; None for calls that records do not have in sequences."""
    if op == "I":
        return "I" if answer else "I0"
    if op in "MT" and answer:
        return f"{op}({answer})"
    return None if op in "TC" else op
