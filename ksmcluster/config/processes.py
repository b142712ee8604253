"""The tables [[process]], [[process.region]] and [[process.region.write]]."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.spec import scenario as spec
from ksmcluster.config.problems import PLUGIN, choice_or_plugin, refusal
from ksmcluster.config.sizes import Pages
from ksmcluster.config.tables import (
    ConfigTable,
    Count,
    Finite,
    Name,
    Numbers,
    Part,
    Positive,
    Settings,
    Share,
    Switched,
    base_directory,
    key,
)

POLICIES = ("local", "bind", "preferred", "interleave")
MODELS = ("zero", "unique", "replicated", "pool", "untouched")
REGION = spec.RegionSpec("", 1, spec.ContentModel.UNIQUE)
WRITE = spec.WriteSpec(0.0)


class PolicyConfig(ConfigTable):
    """Placement of new frames; a text alone is the kind."""

    kind: Annotated[str, AfterValidator(choice_or_plugin(POLICIES))] = key(
        ...,
        "`local`: the node of the process. `bind`: only the named nodes. `preferred`: the named node while "
        "it has room. `interleave`: the named nodes in turn. Or a class of yours (docs/howto/plugins.md), as "
        "`PACKAGE.MODULE:CLASS`.",
    )
    nodes: Numbers | None = key(None, "The nodes named; for `interleave`, none means all.")
    settings: Settings | None = key(None, "Keyword arguments of your class.")

    KEYS: ClassVar[Switched] = {
        "nodes": (("bind", "preferred", "interleave"), ()),
        "settings": ((PLUGIN,), {}),
    }

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: object) -> object:
        return {"kind": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.settle("kind", self.KEYS)
        nodes = self.nodes or ()
        if self.kind in ("bind", "preferred") and not nodes:
            raise refusal([("nodes", f'is missing; kind = "{self.kind}" needs it')])
        if self.kind == "preferred" and len(nodes) > 1:
            raise refusal([("nodes", "only one node can be preferred")])
        if len(set(nodes)) < len(nodes):
            raise refusal([("nodes", "names a node twice")])
        return self

    def absent(self, nodes: int) -> list[int]:
        """The nodes named that a machine of so many has not."""
        return [node for node in self.nodes or () if not 0 <= node < nodes]


class WriteConfig(ConfigTable):
    """Writes to a region: at random times, the same rate for every page of its hot part."""

    rate: Finite = key(..., "Expected writes to each hot page.", "1/s of simulated time")
    hot_fraction: Share = key(WRITE.hot_fraction, "Part of the region that is written, from its start.")
    start: Finite = key(WRITE.start, "When the writes begin.", "s of simulated time")
    stop: Annotated[float, Field(gt=0)] = key(WRITE.stop, "When they end.", "s of simulated time")
    period: Finite = key(
        WRITE.period, "Length of a cycle of writing and pausing; 0: no pauses.", "s of simulated time"
    )
    duty: Share = key(WRITE.duty, "Part of each cycle, from its start, in which writes happen.")
    content: Literal["unique", "original", "redraw", "same"] = key(
        str(WRITE.content),
        "What a write leaves. `unique`: content found nowhere else. `original`: what the page held at the "
        "start. `redraw`: another draw from the pool. `same`: what the page holds, or zeros if it was never "
        "touched; sharing breaks all the same.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.stop > self.start:
            raise refusal([("stop", f"must be after start = {self.start}, not {self.stop}")])
        return self


class RegionConfig(ConfigTable):
    """A range of memory that each process of the kind has."""

    name: Name = key(..., "Name, once in a process.")
    size: Pages = key(..., "Memory.", "size")
    model: Annotated[str, AfterValidator(choice_or_plugin(MODELS))] = key(
        ...,
        "What the pages hold at the start. `zero`: zeros. `unique`: content found nowhere else. "
        "`replicated`: page i is the same in every process of the kind. `pool`: drawn from a number of "
        "contents. `untouched`: nothing, there is no page until the first write. Or a class of yours "
        "(docs/howto/plugins.md), as `PACKAGE.MODULE:CLASS`.",
    )
    mergeable: bool = key(REGION.mergeable, "Whether ksmd may merge it (MADV_MERGEABLE).")
    pinned: bool | None = key(
        None,
        "Whether its frames are pinned, as buffers are that are registered with io_uring, RDMA or VFIO: they "
        "neither merge nor move. Workers have frames of their own for it.",
    )
    huge_pages: Part | None = key(
        None,
        "Share of its aligned 2 MiB that are huge pages at the start; which ones is drawn. ksmd splits them, "
        "unless they are pinned.",
    )
    policy: PolicyConfig | None = key(None, "Placement, when not that of the process.")
    copies: Count | None = key(None, "Pages of the region that hold each content.", "pages")
    scope: Literal["machine", "node"] | None = key(
        None, "Whether they are the same on the whole machine, or only on each node."
    )
    pool: Name | None = key(
        None,
        "Name of the pool; regions that name the same pool share its contents. By default the region's name.",
    )
    distinct: Count | None = key(None, "Contents in the pool.")
    law: Literal["uniform", "zipf"] | None = key(
        None, "How contents are drawn: all alike, or some far more often."
    )
    exponent: Positive | None = key(
        None, "Zipf's law: the k-th content has weight k to the power of minus this."
    )
    settings: Settings | None = key(None, "Keyword arguments of your class.")
    write: Annotated[tuple[WriteConfig, ...], Field(strict=False)] = key((), "Writes to the region.")

    KEYS: ClassVar[Switched] = {
        "pinned": (("zero", "unique", "replicated", "pool", PLUGIN), REGION.pinned),
        "huge_pages": (("zero", "unique", "replicated", "pool", PLUGIN), REGION.huge_pages),
        "copies": (("unique",), REGION.copies),
        "scope": (("replicated",), str(REGION.scope)),
        "pool": (("pool",), None),
        "distinct": (("pool",), ...),
        "law": (("pool",), str(REGION.law)),
        "settings": ((PLUGIN,), {}),
    }
    LAW_KEYS: ClassVar[Switched] = {"exponent": (("zipf",), REGION.exponent)}

    @model_validator(mode="after")
    def _settle(self) -> Self:
        self.settle("model", self.KEYS)
        self.settle("law", self.LAW_KEYS)
        if self.model == "pool" and self.pool is None:
            self.pool = self.name
        return self

    def pages_touched(self) -> int:
        """The most pages of the region that can be in memory."""
        if self.model != "untouched":
            return self.size
        return self.pages_written()

    def pages_of_worker(self) -> int:
        """The most pages of the region for which a worker has frames of its own."""
        return self.size if self.pinned else self.pages_written()

    def pages_written(self) -> int:
        """The most pages of the region that can be written."""
        if ":" in self.model:
            return self.size
        return math.ceil(self.size * max((write.hot_fraction for write in self.write), default=0))


class ProcessConfig(ConfigTable):
    """A kind of process."""

    name: Name = key(..., "Name, once in a scenario.")
    count: Count | None = key(None, "Processes of the kind in all, spread over the nodes in blocks.")
    per_node: Count | None = key(None, "Processes of the kind on each node; instead of `count`.")
    workers: Annotated[int, Field(ge=0)] = key(
        0,
        "Children that each of them forks at the start, on its node. They share its memory until they write. "
        "`count` and `per_node` do not count them.",
    )
    policy: PolicyConfig = Field(
        default_factory=lambda: PolicyConfig(kind="local"),
        description="Placement of the memory of the processes.",
    )
    snapshot: str | None = key(
        None,
        "Snapshot file (`ksmcluster capture`) that has the memory of these processes, in place of regions. "
        "A relative path starts at the scenario's directory.",
    )
    replay_interval: Positive | None = key(
        None,
        "Time between two moments of the snapshot; by default that of the capture.",
        "s of simulated time",
    )
    clones: Literal["distinct", "identical"] | None = key(
        None,
        "Processes beyond those captured. `distinct`, the default: they share zeros and what was found in "
        "two or more captured processes, and have contents of their own for all else. `identical`: exact "
        "copies.",
    )
    huge_pages: Literal["as-captured", "none"] | None = key(
        None,
        "Captured huge pages. `as-captured`, the default: they are huge pages, which ksmd splits. `none`: "
        "they are small pages.",
    )
    advice: Literal["as-captured", "all"] | None = key(
        None,
        "Which captured memory ksmd scans. `as-captured`: what it scans on the captured host (madvise, "
        "prctl). `all`: all that KSM can merge. By default as captured if ksmd scans any of it there, else "
        "all.",
    )
    region: Annotated[tuple[RegionConfig, ...], Field(strict=False)] = key((), "Memory of each process.")

    @field_validator("snapshot")
    @classmethod
    def _found(cls, snapshot: str | None, info: ValidationInfo) -> str | None:
        if snapshot is None:
            return None
        path = (base_directory(info) / snapshot).absolute()
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return str(path)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.count is None and self.per_node is None:
            problems.append(("", "has neither count nor per_node; give one"))
        if self.count is not None and self.per_node is not None:
            problems.append(("per_node", "cannot be given together with count"))
        if self.snapshot is None and not self.region:
            problems.append(("", "has no memory; add a [[process.region]] or a snapshot"))
        if self.snapshot is not None:
            problems += [
                (name, f"cannot be given together with snapshot, which has the {has}")
                for name, has in (("region", "regions"), ("workers", "processes"))
                if getattr(self, name)
            ]
        else:
            problems += [
                (name, "has no meaning without snapshot")
                for name in ("replay_interval", "advice", "clones", "huge_pages")
                if getattr(self, name) is not None
            ]
        problems += [
            (f"region[{i}].name", text) for i, text in repeated([region.name for region in self.region])
        ]
        if problems:
            raise refusal(problems)
        if self.snapshot is not None:
            self.clones = self.clones or "distinct"
            self.huge_pages = self.huge_pages or "as-captured"
        return self

    def total(self, nodes: int) -> int:
        """Processes of the kind on a machine of `nodes` nodes, without their workers."""
        return self.count if self.count is not None else (self.per_node or 0) * nodes


def repeated(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Index of each name that was there before, and what to say of it."""
    for index, name in enumerate(names):
        if name in names[:index]:
            yield index, f'"{name}" is the name of an earlier one'
