"""The tables [[migration.relocate]]: what moves between nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Literal

from cluster.migration.spec import RelocationSpec
from ksmcluster.config.tables import Count, Numbers, Table, key

SPEC: dict[str, Any] = {field.name: field.default for field in fields(RelocationSpec)}


class Relocate(Table):
    """Moving pages from node to node."""

    kind: Literal["drain", "even-out"] = key(
        ...,
        "`drain` moves all that can move off some nodes, to the nearest ones with room, and takes their "
        "memory offline; `even-out` moves as few pages as it takes for nodes to have as many as each other.",
    )
    nodes: Numbers = key(
        SPEC["nodes"],
        "The nodes to drain, or those among which memory is evened out: by default, all of them.",
    )
    when: Literal["before", "during", "after"] = key(SPEC["when"], "In relation to the compaction.")
    most_pages: Count | None = key(
        SPEC["most_pages"], "At most so many; by default, as many as it takes.", "pages"
    )

    def to_spec(self) -> RelocationSpec:
        """What to simulate."""
        return RelocationSpec(self.kind, self.nodes, self.when, self.most_pages)


def relocation_problems(relocations: Sequence[Relocate], nodes: int) -> Iterator[tuple[str, str]]:
    """Nodes that are not there, or that would be the last one."""
    for i, relocation in enumerate(relocations):
        path = f"migration.relocate[{i}].nodes"
        if absent := [node for node in relocation.nodes if not 0 <= node < nodes]:
            last = f"the last is {nodes - 1}" if nodes > 1 else "the only one is 0"
            yield path, f"there is no node {absent[0]}; {last}"
        elif relocation.kind == "drain" and not relocation.nodes:
            yield path, 'is empty; kind = "drain" needs it'
        elif relocation.kind == "drain" and len(set(relocation.nodes)) == nodes:
            yield path, "are all there are; no node is left to take their pages"
