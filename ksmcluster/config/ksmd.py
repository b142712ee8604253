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
#: The kernel takes no max_page_sharing below 2.
SharingLimit = Annotated[int, Field(ge=2, le=UINT // 2)]


def _kernels_with(knob: str) -> tuple[str, ...]:
    """Return the names of the kernels that have a knob, oldest first."""
    return tuple(name for name in get_args(Kernel) if knob in PROFILES[name].knobs)


class KsmConfig(ConfigTable):
    """The knobs of /sys/kernel/mm/ksm under their names, the kernel whose rules apply, and `threads`."""

    kernel: Kernel = key(
        KSM.kernel, "The kernel whose ksmd is simulated; a full release is taken as one of these."
    )
    run: Switch = key(KSM.run, "1: ksmd runs. 0: it does not, and nothing is merged.")
    pages_to_scan: AboveZero = key(
        KSM.pages_to_scan,
        "Pages that ksmd visits before it sleeps; not with an advisor, which sets its own.",
        "pages",
    )
    sleep_millisecs: Knob = key(KSM.sleep_millisecs, "Time that ksmd sleeps then.", "ms")
    merge_across_nodes: Switch = key(
        KSM.merge_across_nodes, "1: pages of all nodes are merged. 0: only pages of the same node."
    )
    max_page_sharing: SharingLimit | None = key(None, "Page table entries that may share one frame.", "pages")
    use_zero_pages: Switch | None = key(None, "1: pages of zeros become the shared zero page.")
    smart_scan: Switch | None = key(
        None, "1: pages that failed to merge for several passes are skipped in some."
    )
    stable_node_chains_prune_millisecs: Knob | None = key(
        None, "How often chains are rid of their stale stable nodes.", "ms"
    )
    advisor_mode: Literal["none", "scan-time"] | None = key(
        None, "`scan-time`: after each pass ksmd sets `pages_to_scan` anew, to come near the target."
    )
    advisor_target_scan_time: AboveZero | None = key(
        None, "How long a pass is to take.", "s of simulated time"
    )
    advisor_max_cpu: Knob | None = key(None, "CPU time that ksmd may use for it.", "percent of a CPU")
    advisor_min_pages_to_scan: AboveZero | None = key(
        None, "What the advisor begins with; later it may go below.", "pages"
    )
    advisor_max_pages_to_scan: AboveZero | None = key(None, "The most that the advisor sets.", "pages")
    hz: Annotated[int, Field(ge=1, le=UINT)] = key(
        KSM.hz, "Jiffies in a second (CONFIG_HZ of the kernel): ksmd sleeps in jiffies.", "1/s"
    )
    history: Literal["fresh", "steady"] = key(
        KSM.history,
        "`fresh`: ksmd is switched on at the start. `steady`: long before; all that can merge has, and pages "
        "have mixed ages.",
    )
    history_passes: AboveZero | None = key(
        None,
        "`steady`: passes of ksmd before the start, over which its pages came evenly, such as the "
        "`full_scans` of a host; without it, so many that no page is young.",
        "passes",
    )
    threads: Literal["one", "per-node"] = key(
        KSM.threads,
        "`per-node`: a ksmd for each node, all at work at the same time; "
        "with `merge_across_nodes = 0` and without an advisor only.",
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
            needs.append("merge_across_nodes = 0: with 1, all nodes have their trees in common")
        if self.advisor_mode == "scan-time":
            needs.append('advisor_mode = "none": the advisor knows of one ksmd only')
        if self.threads == "per-node" and needs:
            raise refusal(("threads", f'"per-node" needs {need}') for need in needs)
        return self

    def _check_history(self) -> None:
        if self.history == "steady" and not self.run:
            raise refusal([("history", '"steady" needs run = 1: ksmd merges before the start')])
        if self.history == "fresh" and self.history_passes is not None:
            raise refusal([("history_passes", 'needs history = "steady"')])


class CostConfig(ConfigTable):
    """Simulated time of ksmd's work, and of programs that write to KSM pages."""

    visit_ns: Costs = key(COST.visit, "For each page visited.", "ns")
    first_visit_ns: Costs = key(COST.first_visit, "More for each page visited for the first time.", "ns")
    skip_ns: Costs = key(COST.skip, "For each page that smart_scan skips.", "ns")
    checksum_ns: Costs = key(COST.checksum, "For each checksum.", "ns")
    huge_saves_ns: Costs = key(
        COST.huge_saves,
        "Less for each checksum of a page in a huge page: the next page lies beside it in memory.",
        "ns",
    )
    stable_level_ns: Costs = key(COST.stable_level, "For each level of the stable tree descended.", "ns")
    unstable_level_ns: Costs = key(
        COST.unstable_level, "For each level of the unstable tree descended.", "ns"
    )
    uncached_level_ns: Costs = key(
        COST.uncached_level, "More for each level of either tree that the cache does not hold.", "ns"
    )
    cached_tree: Costs = key(COST.cached_tree, "How large a tree the cache holds.", "pages")
    merge_ns: Costs = key(COST.merge, "For each merge.", "ns")
    stable_node_ns: Costs = key(COST.stable_node, "More for each new KSM frame.", "ns")
    split_ns: Costs = key(COST.split, "For each huge page split.", "ns")
    split_zero_ns: Costs = key(COST.split_zero, "More for each page of zeros in a huge page split.", "ns")
    wakeup_ns: Costs = key(COST.wakeup, "For each time that ksmd wakes up.", "ns")
    cold_visit_ns: Costs = key(
        COST.cold_visit,
        "More for each of n pages visited between two sleeps, log2(1 + 1024 / n) times: the caches are cold.",
        "ns",
    )
    cold_level_ns: Costs = key(
        COST.cold_level,
        "More for each level that is the first look at its page since ksmd woke up: the caches are cold.",
        "ns",
    )
    remote_ns: Costs = key(
        COST.remote,
        "More for each checksum of a page in another node's memory, for each 10 units of distance above 10.",
        "ns",
    )
    cow_fault_ns: Costs = key(
        COST.cow_fault, "Time of a program for each write to a KSM page, which copies it.", "ns"
    )
    cpu_wait_ns: Costs = key(
        COST.cpu_wait,
        "Wait of ksmd for a CPU at each wake-up; some 1,000,000 to 5,000,000 on a busy machine.",
        "ns",
    )


def to_cost(cost: CostConfig) -> CostSpec:
    """Return what the simulated machine reads of it."""
    return CostSpec(**{name.removesuffix("_ns"): value for name, value in cost.model_dump().items()})


def from_cost(cost: CostSpec) -> CostConfig:
    """Return the table that gives this cost."""
    return CostConfig(**{key_of_cost(field.name): getattr(cost, field.name) for field in fields(cost)})


def key_of_cost(name: str) -> str:
    """Return the key of a field of CostSpec."""
    return name if name in CostConfig.model_fields else f"{name}_ns"
