"""The tables [[process]], [[process.region]] and [[process.region.write]]."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.spec import scenario as spec
from cluster.spec.limits import LEAST_PERIOD, MOST_EXPONENT, MOST_RATE
from ksmcluster.config.problems import PLUGIN, choice_or_plugin, refusal
from ksmcluster.config.sizes import Pages
from ksmcluster.config.tables import (
    ConfigTable,
    Count,
    Name,
    Numbers,
    Part,
    Settings,
    Share,
    Switched,
    Time,
    TimeSpan,
    base_directory,
    key,
)

POLICIES = ("local", "bind", "preferred", "interleave")
MODELS = ("zero", "unique", "replicated", "pool", "untouched")
REGION = spec.RegionSpec("", 1, spec.ContentModel.UNIQUE)
WRITE = spec.WriteSpec(0.0)
Rate = Annotated[float, Field(ge=0, le=MOST_RATE)]
Exponent = Annotated[float, Field(gt=0, le=MOST_EXPONENT)]


class PolicyConfig(ConfigTable):
    """Placement of new frames. A text alone is the kind."""

    kind: Annotated[str, AfterValidator(choice_or_plugin(POLICIES))] = key(
        ...,
        "`local`: the node of the process. `bind`: only the named nodes. `preferred`: the named node while "
        "it has room. `interleave`: the named nodes in turn. Or your own class (docs/howto/plugins.md), as "
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
        """Return the named nodes that a machine with `nodes` nodes does not have."""
        return [node for node in self.nodes or () if not 0 <= node < nodes]


class WriteConfig(ConfigTable):
    """Writes to a region: at random times, the same rate for every page of its hot part."""

    rate: Rate = key(..., "Expected writes to each hot page.", "1/s of simulated time")
    hot_fraction: Share = key(WRITE.hot_fraction, "Share of the region that is written, from its start.")
    start: Time = key(WRITE.start, "When the writes begin.", "s of simulated time")
    stop: Annotated[float, Field(ge=LEAST_PERIOD)] = key(WRITE.stop, "When they end.", "s of simulated time")
    period: Time = key(
        WRITE.period, "Length of a cycle of writes and a pause; 0: no pauses.", "s of simulated time"
    )
    duty: Share = key(WRITE.duty, "Share of each cycle, from its start, in which writes happen.")
    content: Literal["unique", "original", "redraw", "same"] = key(
        str(WRITE.content),
        "Content after a write. `unique`: content found nowhere else. `original`: the page's content at the "
        "start. `redraw`: another draw from the pool. `same`: the current content, or zeros if the page was "
        "never touched; the write still breaks sharing.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.stop > self.start:
            raise refusal([("stop", f"must be after start = {self.start}, not {self.stop}")])
        if 0 < self.period < LEAST_PERIOD:
            raise refusal([("period", f"must be 0 or at least {LEAST_PERIOD:g}, not {self.period:g}")])
        return self


class RegionConfig(ConfigTable):
    """A range of memory that each process of the kind has."""

    name: Name = key(..., "Name, unique in the process.")
    size: Pages = key(..., "Memory.", "size")
    model: Annotated[str, AfterValidator(choice_or_plugin(MODELS))] = key(
        ...,
        "Content of the pages at the start. `zero`: zeros. `unique`: content found nowhere else. "
        "`replicated`: page i is the same in every process of the kind. `pool`: drawn from a number of "
        "contents. `untouched`: no page exists until the first write. Or your own class "
        "(docs/howto/plugins.md), as `PACKAGE.MODULE:CLASS`.",
    )
    mergeable: bool = key(REGION.mergeable, "Whether ksmd may merge it (MADV_MERGEABLE).")
    pinned: bool | None = key(
        None,
        "Whether its frames are pinned, like buffers registered with io_uring, RDMA or VFIO. Pinned frames "
        "neither merge nor move. Workers have their own frames for it.",
    )
    huge_pages: Part | None = key(
        None,
        "Share of its aligned 2 MiB ranges that are huge pages at the start, chosen at random. ksmd splits "
        "them unless they are pinned.",
    )
    policy: PolicyConfig | None = key(None, "Placement, if it differs from that of the process.")
    copies: Count | None = key(None, "Pages of the region that have the same content.", "pages")
    scope: Literal["machine", "node"] | None = key(
        None, "Whether contents are the same on the whole machine or only within each node."
    )
    pool: Name | None = key(
        None,
        "Name of the pool; regions that name the same pool share its contents. By default the region's name.",
    )
    distinct: Count | None = key(None, "Contents in the pool.")
    law: Literal["uniform", "zipf"] | None = key(
        None, "How contents are drawn: all equally often, or some far more often."
    )
    exponent: Exponent | None = key(
        None, "For Zipf's law: the k-th content has the weight k to the power of minus this."
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
        """Return the most pages of the region that can be in memory."""
        if self.model != "untouched":
            return self.size
        return self.pages_written()

    def pages_of_worker(self) -> int:
        """Return the most pages of the region for which a worker has its own frames."""
        return self.size if self.pinned else self.pages_written()

    def pages_written(self) -> int:
        """Return the most pages of the region that can be written."""
        if ":" in self.model:
            return self.size
        return math.ceil(self.size * max((write.hot_fraction for write in self.write), default=0))


class ProcessConfig(ConfigTable):
    """A kind of process."""

    name: Name = key(..., "Name, unique in the scenario.")
    count: Count | None = key(None, "Number of processes of the kind, spread over the nodes in blocks.")
    per_node: Count | None = key(None, "Number of processes of the kind on each node, instead of `count`.")
    workers: Annotated[int, Field(ge=0)] = key(
        0,
        "Children that each process forks at the start, on its node. They share its memory until they write. "
        "`count` and `per_node` do not count them.",
    )
    policy: PolicyConfig = Field(
        default_factory=lambda: PolicyConfig(kind="local"),
        description="Placement of the memory of the processes.",
    )
    snapshot: str | None = key(
        None,
        "Snapshot file (`ksmcluster capture`) with the memory of these processes, instead of regions. "
        "A relative path starts at the scenario's directory.",
    )
    replay_interval: TimeSpan | None = key(
        None,
        "Time between two moments of the snapshot; by default that of the capture.",
        "s of simulated time",
    )
    clones: Literal["distinct", "identical"] | None = key(
        None,
        "Processes beyond the captured ones. `distinct`, the default: they share zeros and contents found in "
        "two or more captured processes; everything else is private to each. `identical`: exact "
        "copies.",
    )
    huge_pages: Literal["as-captured", "none"] | None = key(
        None,
        "Captured huge pages. `as-captured`, the default: huge pages, which ksmd splits. `none`: "
        "small pages.",
    )
    advice: Literal["as-captured", "all"] | None = key(
        None,
        "Which captured memory ksmd scans. `as-captured`: the memory that it scans on the captured host "
        "(madvise, prctl). `all`: all that KSM can merge. By default as captured if ksmd scans any, else "
        "all.",
    )
    region: Annotated[tuple[RegionConfig, ...], Field(strict=False)] = key((), "Memory of each process.")

    @field_validator("snapshot")
    @classmethod
    def _found(cls, snapshot: str | None, info: ValidationInfo) -> str | None:
        if snapshot is None:
            return None
        path = (base_directory(info) / snapshot).absolute()
        if not os.path.isfile(path):  # noqa: PTH113 (that of Path raises for long names)
            raise ValueError(f"there is no file {path}")
        if not str(path).isprintable():
            raise ValueError("the file name has characters that cannot be printed; rename the file")
        return str(path)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.count is None and self.per_node is None:
            problems.append(("", "has neither count nor per_node; give one of them"))
        if self.count is not None and self.per_node is not None:
            problems.append(("per_node", "cannot be given together with count; leave one out, or --unset it"))
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

    def on_nodes(self, nodes: int) -> list[int]:
        """Return how many processes are on each node, with their workers (`ProcessSpec.placed`)."""
        begins = [-(-node * self.total(nodes) // nodes) for node in range(nodes + 1)]
        return [(high - low) * (1 + self.workers) for low, high in pairwise(begins)]

    def total(self, nodes: int) -> int:
        """Return the number of processes of the kind on a machine with `nodes` nodes, without workers."""
        return self.count if self.count is not None else (self.per_node or 0) * nodes


def repeated(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the index of each repeated name, and the message about it."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield index, f'"{name}" is already in use'
        seen.add(name)
