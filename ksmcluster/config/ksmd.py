"""The tables [ksm] and [cost]."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from cluster.spec.profile import KERNELS, PROFILES
from cluster.spec.scenario import CostSpec, KsmSpec
from ksmcluster.config.problems import refusal
from ksmcluster.config.tables import UINT, ConfigTable, Costs, Knob, Switch, Switched, as_known_kernel, key

KSM = KsmSpec()
COST = CostSpec()

Kernel = Literal["4.8", "6.1", "6.12", "6.16", "6.17", "6.18.15", "6.18", "7.2", "7.3"]
AboveZero = Annotated[int, Field(ge=1, le=UINT)]
#: The kernel refuses a max_page_sharing below 2.
SharingLimit = Annotated[int, Field(ge=2, le=UINT // 2)]


def _kernels_with(knob: str) -> tuple[str, ...]:
    """Return the names of the kernels that have a knob, oldest first."""
    return tuple(name for name in get_args(Kernel) if knob in PROFILES[name].knobs)


class KsmConfig(ConfigTable):
    """The knobs of /sys/kernel/mm/ksm under their own names, the kernel to simulate, and `threads`."""

    kernel: Kernel = key(
        KSM.kernel, "The kernel whose ksmd is simulated; a full release stands for one of these."
    )
    run: Switch = key(KSM.run, "1: ksmd runs. 0: ksmd does not run, and nothing is merged.")
    pages_to_scan: AboveZero = key(
        KSM.pages_to_scan,
        "Pages that ksmd visits before it sleeps; not with an advisor, which sets it itself.",
        "pages",
    )
    sleep_millisecs: Knob = key(KSM.sleep_millisecs, "Time that ksmd sleeps after that.", "ms")
    merge_across_nodes: Switch = key(
        KSM.merge_across_nodes, "1: pages of all nodes are merged. 0: only pages of the same node."
    )
    max_page_sharing: SharingLimit | None = key(None, "Page table entries that may share one frame.", "pages")
    use_zero_pages: Switch | None = key(None, "1: zero pages are mapped to the shared zero page.")
    smart_scan: Switch | None = key(
        None, "1: pages that have failed to merge for several passes are skipped in some passes."
    )
    stable_node_chains_prune_millisecs: Knob | None = key(
        None, "Interval at which stale stable nodes are removed from chains.", "ms"
    )
    advisor_mode: Literal["none", "scan-time"] | None = key(
        None, "`scan-time`: after each pass, ksmd adjusts `pages_to_scan` to approach the target."
    )
    advisor_target_scan_time: AboveZero | None = key(
        None, "Target duration of a pass.", "s of simulated time"
    )
    advisor_max_cpu: Knob | None = key(None, "The most CPU time that ksmd may use.", "percent of a CPU")
    advisor_min_pages_to_scan: AboveZero | None = key(
        None, "Initial value of the advisor; later it may choose less.", "pages"
    )
    advisor_max_pages_to_scan: AboveZero | None = key(None, "The most that the advisor sets.", "pages")
    hz: Annotated[int, Field(ge=1, le=UINT)] = key(
        KSM.hz, "Jiffies per second (CONFIG_HZ of the kernel): ksmd sleeps whole jiffies.", "1/s"
    )
    history: Literal["fresh", "steady"] = key(
        KSM.history,
        "`fresh`: ksmd is switched on at the start. `steady`: it has run for a long time; everything that "
        "can merge has merged, and pages have mixed ages.",
    )
    history_passes: AboveZero | None = key(
        None,
        "For `steady`: passes of ksmd before the start, such as the `full_scans` of a host; pages appeared "
        "evenly over these passes. By default so many that no page is young.",
        "passes",
    )
    threads: Literal["one", "per-node"] = key(
        KSM.threads,
        "`per-node`: one ksmd per node, all at the same time; "
        "only with `merge_across_nodes = 0` and without an advisor.",
    )

    KEYS: ClassVar[Switched] = {
        knob: (_kernels_with(knob), getattr(KSM, knob))
        for knob in (
            "max_page_sharing",
            "use_zero_pages",
            "smart_scan",
            "stable_node_chains_prune_millisecs",
            "advisor_mode",
            "advisor_target_scan_time",
            "advisor_max_cpu",
            "advisor_min_pages_to_scan",
            "advisor_max_pages_to_scan",
        )
    }

    @field_validator("kernel", mode="before")
    @classmethod
    def _known(cls, kernel: object) -> object:
        return as_known_kernel(kernel, KERNELS)

    @model_validator(mode="after")
    def _settle(self) -> Self:
        self.settle("kernel", self.KEYS)
        self._check_history()
        needs = []
        if self.merge_across_nodes:
            needs.append("merge_across_nodes = 0: with 1, all nodes share their trees")
        if self.advisor_mode == "scan-time":
            needs.append('advisor_mode = "none": the advisor supports only one ksmd')
        if self.threads == "per-node" and needs:
            raise refusal(("threads", f'"per-node" needs {need}') for need in needs)
        return self

    def _check_history(self) -> None:
        if self.history == "steady" and not self.run:
            raise refusal([("history", '"steady" needs run = 1, as ksmd merges before the start')])
        if self.history == "fresh" and self.history_passes is not None:
            raise refusal([("history_passes", 'needs history = "steady"')])


class CostConfig(ConfigTable):
    """Simulated time of ksmd's work, and of programs that write to KSM pages."""

    visit_ns: Costs = key(COST.visit, "For each page visited.", "ns")
    first_visit_ns: Costs = key(COST.first_visit, "Additional time for the first visit of a page.", "ns")
    skip_ns: Costs = key(COST.skip, "For each page that smart_scan skips.", "ns")
    checksum_ns: Costs = key(COST.checksum, "For each checksum.", "ns")
    huge_saves_ns: Costs = key(
        COST.huge_saves,
        "Subtracted for each checksum of a page in a huge page: its neighbour is next to it in memory.",
        "ns",
    )
    stable_level_ns: Costs = key(COST.stable_level, "For each level of the stable tree descended.", "ns")
    unstable_level_ns: Costs = key(
        COST.unstable_level, "For each level of the unstable tree descended.", "ns"
    )
    uncached_level_ns: Costs = key(
        COST.uncached_level, "Additional time for each level of either tree that is not in the cache.", "ns"
    )
    cached_tree: Costs = key(COST.cached_tree, "Size of the tree that fits into the cache.", "pages")
    merge_ns: Costs = key(COST.merge, "For each merge.", "ns")
    stable_node_ns: Costs = key(COST.stable_node, "Additional time for each new KSM frame.", "ns")
    split_ns: Costs = key(COST.split, "For each huge page that is split.", "ns")
    split_zero_ns: Costs = key(
        COST.split_zero, "Additional time for each zero page in a split huge page.", "ns"
    )
    wakeup_ns: Costs = key(COST.wakeup, "For each wake-up of ksmd.", "ns")
    cold_visit_ns: Costs = key(
        COST.cold_visit,
        "For cold caches: added for each of n pages visited between two sleeps, times log2(1 + 1024 / n).",
        "ns",
    )
    cold_level_ns: Costs = key(
        COST.cold_level,
        "For cold caches: added for each level whose page ksmd reads for the first time since it woke up.",
        "ns",
    )
    remote_ns: Costs = key(
        COST.remote,
        "Added to each checksum of a page on another node, for each 10 units of distance above 10.",
        "ns",
    )
    cow_fault_ns: Costs = key(
        COST.cow_fault, "Time of a program for each write to a KSM page, which copies it.", "ns"
    )
    cpu_wait_ns: Costs = key(
        COST.cpu_wait,
        "Time that ksmd waits for a CPU at each wake-up; about 1,000,000 to 5,000,000 on a busy machine.",
        "ns",
    )


def to_cost(cost: CostConfig) -> CostSpec:
    """Return the costs as the simulation takes them."""
    return CostSpec(**{name.removesuffix("_ns"): value for name, value in cost.model_dump().items()})


def from_cost(cost: CostSpec) -> CostConfig:
    """Return the table [cost] with these costs."""
    return CostConfig(**{key_of_cost(field.name): getattr(cost, field.name) for field in fields(cost)})


def key_of_cost(name: str) -> str:
    """Return the key of a field of CostSpec."""
    return name if name in CostConfig.model_fields else f"{name}_ns"
