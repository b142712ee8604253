"""The HTML report of an output of `simulate`."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.spec.content import PAGE_SIZE
from cluster.spec.knobs import RMAP_ITEM_SIZE
from ksmcluster.config import Scenario
from ksmcluster.report import text
from ksmcluster.report.html.sections import Facts, HtmlTable, Sections
from ksmcluster.report.html.states import migration_tables
from ksmcluster.report.run_data import RunData
from ksmcluster.results import processes
from ksmcluster.results.directory import MAPPINGS, PROCESSES
from ksmcluster.results.processes import CensusTable

QUESTION = (
    "How much memory does kernel samepage merging (KSM) save here, how long does ksmd take, and what does it "
    "cost?"
)
LIMITS = (
    "Simulated seconds are those of one particular CPU; [cost] in the configuration has the costs of visits, "
    "checksums and merges.",
    "The slowdown of a program whose huge pages ksmd splits is not included in any number.",
    "Memory pressure, reclaim and swap are not modelled.",
    "The kernel scans only memory that a program offers for merging, or all of a process that asks for it.",
)
COUNTERS = (
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "ksm_zero_pages",
    "rmap_items",
    "full_scans",
    "pages_scanned",
    "pages_skipped",
    "pages_merged",
    "cow_ksm",
    "stable_node_chains",
    "stable_node_dups",
)


def sections(run: RunData) -> Sections:
    """Return the report's sections about a run."""
    assert isinstance(run.config, Scenario)
    return Sections(
        QUESTION,
        _asked(run, run.config),
        answer(run),
        _found(run),
        _time(run),
        _cost(run),
        _tables(run),
        LIMITS,
    )


def answer(run: RunData) -> str:
    """Return what KSM saves, in one sentence."""
    derived, passes = run.summary["derived"], text.counted(run.summary["passes"], "pass")
    seconds = text.seconds(derived["simulated_seconds"])
    when = f"on average over the last half of {seconds} of simulated time ({passes})"
    saved, profit = max(derived["saved_bytes_mean"], 0), derived["general_profit_bytes"]
    if profit < 0:
        lost = f"costs {text.size(-profit)} at the end by the kernel's own estimate"
        return f"KSM saves {text.size(saved)} {when}, but {lost}."
    share = text.percent(derived["saved_fraction_mean"])
    return f"KSM saves {text.size(saved)} ({share}) {when}, with ksmd at {_cpu(run)}."


def _cpu(run: RunData) -> str:
    derived = run.summary["derived"]
    share = (
        derived["ksmd_cpu_seconds"] / derived["simulated_seconds"] if derived["simulated_seconds"] else 0.0
    )
    assert isinstance(run.config, Scenario)
    together = " for all its threads together" if run.config.ksm.threads == "per-node" else ""
    return f"{text.percent(share)} of a CPU{together}"


def _asked(run: RunData, config: Scenario) -> Facts:
    ksm, machine = config.ksm, config.machine
    memory = text.size(machine.memory_per_node * PAGE_SIZE)
    facts = {
        "machine": f"{text.counted(machine.nodes, 'node')} of {memory}",
        "memory mapped": text.size(run.summary["gauges"]["pages_mapped"] * PAGE_SIZE),
        "processes": _processes(run),
        "kernel": run.summary["kernel"],
        "passes": f"{run.summary['passes']}",
        "pages_to_scan": f"{ksm.pages_to_scan:,}" if ksm.advisor_mode == "none" else "chosen by the advisor",
        "sleep_millisecs": f"{ksm.sleep_millisecs} ms",
        "merge_across_nodes": f"{ksm.merge_across_nodes}",
        "max_page_sharing": f"{ksm.max_page_sharing}",
        "use_zero_pages": f"{ksm.use_zero_pages}",
        "smart_scan": f"{ksm.smart_scan}",
        "ksmd": "one thread" if ksm.threads == "one" else "one thread per node",
        "seed": f"{run.summary['seed']}",
    }
    return {name: value for name, value in facts.items() if value != "None"}


def _processes(run: RunData) -> str:
    kinds = run.tables[PROCESSES]["kind"].to_pylist()
    return ", ".join(f"{kinds.count(kind):,} \u00d7 {text.one_line(kind)}" for kind in dict.fromkeys(kinds))


def _found(run: RunData) -> Facts:
    derived = run.summary["derived"]
    low, high = (text.size(derived[f"saved_bytes_{end}"]) for end in ("min", "max"))
    mean, share = text.size(derived["saved_bytes_mean"]), text.percent(derived["saved_fraction_mean"])
    last, share_last = text.size(derived["saved_bytes"]), text.percent(derived["saved_fraction"])
    return {
        "saved, mean of the last half": f"{mean} ({share})",
        "range": f"{low} to {high}",
        "at the end, without KSM": text.size(derived["memory_before_bytes"]),
        "at the end, with KSM": text.size(derived["memory_after_bytes"]),
        "at the end, saved": f"{last} ({share_last})",
        "general_profit": text.size(derived["general_profit_bytes"]),
    }


def _time(run: RunData) -> Facts:
    derived, by_pass = run.summary["derived"], run.summary["by_pass"]
    facts = {"simulated time": text.seconds(derived["simulated_seconds"])}
    if not by_pass["windows"][-1]:
        return facts | {"ksmd": "does not run"}
    return facts | {
        "last pass": text.seconds(by_pass["scan_seconds"][-1]),
        "its pages_to_scan": f"{by_pass['pages_to_scan'][-1]:,}",
        "longest pass": text.seconds(max(by_pass["scan_seconds"])),
        "CPU time of ksmd": text.seconds(derived["ksmd_cpu_seconds"]),
        "share of a CPU": _cpu(run),
    }


def _cost(run: RunData) -> Facts:
    summary = run.summary
    derived, counters, gauges = summary["derived"], summary["counters"], summary["gauges"]
    facts = {
        "CPU time of ksmd": text.seconds(derived["ksmd_cpu_seconds"]),
        "memory for ksmd's records": text.size(gauges["rmap_items"] * RMAP_ITEM_SIZE),
        "copies after writes to KSM pages": f"{counters['cow_ksm']:,}",
        "sent between nodes": text.size(counters["bytes_sent"]),
    }
    if derived["ksm_mappings_mean_distance"] is not None:
        distance = derived["ksm_mappings_mean_distance"]
        facts["KSM mappings on another node"] = text.percent(derived["ksm_mappings_remote_fraction"])
        facts["mean distance of KSM mappings"] = f"{distance:.1f} (10 is local)"
    return facts


def _tables(run: RunData) -> list[HtmlTable]:
    return [_passes(run), _counters(run), *_census(run), *_sharers(run), *migration_tables(run)]


def _passes(run: RunData) -> HtmlTable:
    by_pass = run.summary["by_pass"]
    names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
    columns = [run.by_node(name).sum(axis=1).tolist() for name in names]
    rows = [
        (
            str(index + 1),
            text.seconds(by_pass["scan_seconds"][index]),
            text.seconds(by_pass["ksmd_cpu_seconds"][index]),
            f"{by_pass['pages_to_scan'][index]:,}",
            *(f"{column[index]:,}" for column in columns),
            text.size(by_pass["saved_bytes"][index]),
        )
        for index in range(run.summary["passes"])
    ]
    heads = (
        "pass",
        "time",
        "ksmd's CPU",
        "pages_to_scan",
        "shared",
        "sharing",
        "unshared",
        "volatile",
        "saved",
    )
    return HtmlTable("Pass by pass", heads, rows)


def _counters(run: RunData) -> HtmlTable:
    numbers = run.summary["gauges"] | run.summary["counters"]
    return HtmlTable("Counters of the kernel", ("name", "count"), [(n, f"{numbers[n]:,}") for n in COUNTERS])


def _census(run: RunData) -> list[HtmlTable]:
    tables = []
    for name, head, title, labels in (
        (MAPPINGS, "mapping", "What merges, in pages", processes.mapping_labels),
        (PROCESSES, "process", "Processes that save most, in pages", processes.process_labels),
    ):
        table = CensusTable.of_arrow(run.tables[name])
        rows = processes.top_rows(labels(table), table)
        more = table.num_rows - len(rows)
        note = f"{more:,} more are in {name}." if more else ""
        tables.append(HtmlTable(title, (head, *processes.COLUMNS, "profit"), rows, note))
    return tables


def _sharers(run: RunData) -> list[HtmlTable]:
    ranges: Sequence[dict[str, int]] = run.summary["ksm_frame_mappings"]
    rows = [(processes.span(bucket), f"{bucket['frames']:,}") for bucket in ranges]
    return (
        [HtmlTable("KSM frames by the number of their mappings", ("mappings", "frames"), rows)]
        if rows
        else []
    )
