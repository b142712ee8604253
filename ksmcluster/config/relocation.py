"""The tables [[migration.relocate]]: moves between nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cluster.spec.compaction import RelocationSpec
from ksmcluster.config.tables import ConfigTable, Count, Numbers, Passes, Switched, key

SPEC: dict[str, Any] = {field.name: field.default for field in fields(RelocationSpec)}


class RelocateConfig(ConfigTable):
    """Moving pages from node to node in a scenario of `ksmcluster compact`."""

    kind: Literal["drain", "even-out"] = key(
        ...,
        "`drain` moves everything movable off some nodes, to the nearest nodes with room, and takes their "
        "memory offline; `even-out` moves as few pages as possible so that nodes have equally many.",
    )
    nodes: Numbers = key(
        SPEC["nodes"],
        "The nodes to drain, or those among which memory is evened out: by default, all of them.",
    )
    when: Literal["before", "during", "after"] = key(SPEC["when"], "When it runs, relative to compaction.")
    most_pages: Count | None = key(
        SPEC["most_pages"], "The most pages to move; by default there is no limit.", "pages"
    )

    def to_spec(self) -> RelocationSpec:
        """What to simulate."""
        return RelocationSpec(self.kind, self.nodes, self.when, self.most_pages)


class RelocateFramesConfig(ConfigTable):
    """Moving frames of processes from node to node in a scenario of `ksmcluster simulate`."""

    kind: Literal["nearer", "drain", "even-out"] = key(
        ...,
        "`nearer`: each frame moves to the node with the smallest total distance to its mappings; "
        "`drain`: all frames leave some nodes for the nearest nodes with room (KSM pages with any "
        "`merge_across_nodes`); `even-out`: as few frames as possible move so that nodes have equally many.",
    )
    after_pass: Passes = key(..., "The pass of ksmd after which it is done, before any compaction.")
    nodes: Numbers = key(
        SPEC["nodes"],
        "The nodes to drain, to even out, or, for `nearer`, those that frames may leave. By default all "
        "nodes.",
    )
    min_gain: Count | None = key(
        None,
        "By how much the sum of the distances to a frame's mappings must decrease.",
        "SLIT units",
    )
    most_pages: Count | None = key(
        SPEC["most_pages"], "The most pages to move; by default there is no limit.", "pages"
    )

    KEYS: ClassVar[Switched] = {"min_gain": (("nearer",), SPEC["min_gain"])}

    @model_validator(mode="after")
    def _settle(self) -> Self:
        self.settle("kind", self.KEYS)
        return self

    def to_spec(self) -> RelocationSpec:
        """What to simulate."""
        gain = SPEC["min_gain"] if self.min_gain is None else self.min_gain
        return RelocationSpec(
            self.kind, self.nodes, most_pages=self.most_pages, after_pass=self.after_pass, min_gain=gain
        )


Relocations = Annotated[tuple[RelocateConfig, ...], Field(strict=False)]
FrameRelocations = Annotated[tuple[RelocateFramesConfig, ...], Field(strict=False)]


def relocation_problems(
    relocations: Sequence[RelocateConfig | RelocateFramesConfig], nodes: int
) -> Iterator[tuple[str, str]]:
    """Yield relocations whose nodes do not exist, or that would drain every node."""
    for i, relocation in enumerate(relocations):
        path = f"migration.relocate[{i}].nodes"
        if absent := [node for node in relocation.nodes if not 0 <= node < nodes]:
            last = f"the last is {nodes - 1}" if nodes > 1 else "the only one is 0"
            yield path, f"there is no node {absent[0]}; {last}"
        elif relocation.kind == "drain" and not relocation.nodes:
            yield path, 'is empty; kind = "drain" needs it'
        elif relocation.kind == "drain" and len(set(relocation.nodes)) == nodes:
            yield path, "drains all nodes; leave one that takes their pages"
