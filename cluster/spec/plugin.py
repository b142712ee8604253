"""What scenarios and classes of users' packages have in common; actors import it when they start."""

from __future__ import annotations

from typing import NamedTuple

from cluster.arrays.words import I64, U64


class PluginSpec(NamedTuple):
    """A class of a user's package, `PACKAGE.MODULE:CLASS`, and its keyword arguments."""

    name: str
    settings: tuple[tuple[str, object], ...] = ()


class PageWrites(NamedTuple):
    """What an interval leaves in a region.

    pages int64[n]: written pages, ascending, each once. ids uint64[n]: what they hold then; None: what they
    held before (the writes break sharing all the same).
    """

    pages: I64
    ids: U64 | None
