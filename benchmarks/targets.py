"""Measures everything, and says how far each target is met; README.md tells how to read it.

Tables go to standard output, files for trackers to results/bench/. With --docs, what these files say is
written into docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "bench"
PLOT = "scaling.svg"
DOCUMENT = ROOT / "docs" / "explanation" / "performance.md"

#: Arguments of `ksmcluster bench`, by the name of the file with what they find.
RUNS = {
    "pass": ["pass"],
    "scaling": ["scaling", "--plot", str(RESULTS / PLOT)],
    "scaling-inline": ["scaling", "--engine", "inline"],
    "scaling-8": ["scaling", "--nodes", "8"],
    "scaling-1024": [
        *("scaling", "--nodes", "64,1024", "--pages-per-node", "16384", "--processes", "64", "--repeat", "3")
    ],
    "startup": ["startup"],
    # A run takes a twentieth of a second: less than a shared host stays as fast as it is.
    "compaction": ["compaction", "--repeat", "25"],
    # The last size is 1 TiB.
    "memory": ["memory", "--nodes", "64", "--pages-per-node", "32768,65536,131072,1048576,4194304"],
}
#: With --short; what is left out says nothing about small sizes.
SHORT = ("pass", "scaling", "startup", "compaction", "memory")


@dataclass(frozen=True)
class Target:
    """What is to be reached by all measures whose names match."""

    what: str
    names: str
    least: float


#: 64 nodes of 4 GiB in 12 GiB of resident memory.
_PAGES_PER_MIB = 64 * (1 << 20) / (12 << 10)

TARGETS = (
    Target(
        "merging pass, ksmd's CPU time / ours",
        "pass, 262144 pages: symbolic, merging, against ksmd",
        50,
    ),
    Target("steady pass, ksmd / ours", "pass, 262144 pages: symbolic, steady, against ksmd", 1000),
    Target(
        "real bytes: three passes and hashing, ksmd / ours",
        "pass, 262144 pages: bytes, all three and hashing, against ksmd",
        2,
    ),
    Target(
        "64 nodes, one an actor: time of Ray alone / ours",
        "startup, 64 nodes, 1 an actor: against Ray alone",
        1 / 1.3,
    ),
    Target(
        "64 nodes, 8 an actor: time of one an actor / of 8",
        "startup, 64 nodes, 8 an actor: against 1 an actor",
        4,
    ),
    Target(
        "64 nodes of 4 GiB: pages in a MiB at the peak",
        "memory, inline, 64 nodes of 1048576 pages: peak",
        _PAGES_PER_MIB,
    ),
    Target(
        "pages in a MiB, steady (45 bytes each)", "memory, inline, 64 nodes: steady, fitted", (1 << 20) / 45
    ),
    Target(
        "1 TiB: pages in a MiB at the peak (70 bytes each)",
        "memory, inline, 64 nodes of 4194304 pages: peak",
        (1 << 20) / 70,
    ),
    Target(
        "weak scaling to 64 nodes, `ray`: least time a page / the worst",
        "scaling, ray, 262144 *against the best",
        0.8,
    ),
    Target(
        "1,024 nodes in 64 actors, `ray`: time a page of 64 nodes / of 1,024",
        "scaling, ray, 16384 *: 1,024 nodes*against the best",
        0.8,
    ),
    Target("pages for each KiB of mail (16 bytes each)", "scaling, ray, 262144 *, mail", 64),
    Target(
        "weak scaling to 64 nodes, `inline`: least time a page / the worst",
        "scaling, inline, *against the best",
        0.8,
    ),
    Target("strong scaling on 64 nodes, 2 processes / 1", "scaling, 64 nodes of 262144 *s against 1", 1.8),
    Target("strong scaling on 8 nodes, 2 processes / 1", "scaling, 8 nodes of 262144 *s against 1", 1.5),
    Target("compaction: moves a second of CPU", "compaction, *: moves a second", 2e6),
)

Entries = list[dict[str, Any]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--short", action="store_true", help="small sizes, without looking at targets")
    arguments.add_argument("--only", nargs="+", choices=RUNS, metavar="RUN", help=f"of {', '.join(RUNS)}")
    arguments.add_argument("--docs", action="store_true", help="write what is in results/bench into docs/")
    given = arguments.parse_args()
    if not given.docs:
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in given.only or (SHORT if given.short else RUNS):
            measure(name, short=given.short)
    if not given.short:
        print(*targets(found()), sep="\n")
    if given.docs:
        write_document()


def measure(name: str, *, short: bool) -> None:
    """Run one; ends this program if it fails."""
    command = [sys.executable, "-m", "ksmcluster.cli", "bench"]
    file = RESULTS / f"{'short-' if short else ''}{name}.json"
    options = [RUNS[name][0], "--short"] if short else RUNS[name] + ksmd(name)
    if subprocess.run([*command, *options, "--json", str(file)], check=False).returncode:
        sys.exit(f"{name} failed")


def ksmd(name: str) -> list[str]:
    """The host's own ksmd is measured where it can be had."""
    had = os.geteuid() == 0 and Path("/sys/kernel/mm/ksm/run").exists()
    return ["--ksmd"] if name == "pass" and had else []


def found() -> Entries:
    """All that has been measured, in the order of RUNS."""
    files = [RESULTS / f"{name}.json" for name in RUNS]
    return [entry for file in files if file.exists() for entry in json.loads(file.read_text())]


def targets(entries: Entries) -> list[str]:
    """Lines of a Markdown table; of several measures the worst counts."""
    rows = []
    for target in TARGETS:
        matching = [entry for entry in entries if fnmatchcase(entry["name"], target.names)]
        worst = min(matching, key=lambda entry: float(entry["value"]), default=None)
        if worst is None:
            rows.append((target.what, figure(target.least), "not measured", "", ""))
            continue
        met = "yes" if worst["value"] >= target.least else "no"
        rows.append((target.what, figure(target.least), figure(worst["value"]), worst["range"], met))
    return table(("more is better", "at least", "measured", "from to", "met"), rows)


def measures(entries: Entries) -> list[str]:
    """Lines of a Markdown table of everything."""
    rows = [(e["name"], figure(e["value"]), e["unit"], e["range"], e["extra"]) for e in entries]
    return table(("measure", "value", "unit", "from to", ""), rows)


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (heads, ("---",) * len(heads), *rows)]


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def host() -> list[str]:
    """On what it was measured."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "ray", "blake3"))
    load = os.getloadavg()[2]
    return [
        f"{model[1] if model else platform.machine()}, {cores} cores, {memory:.0f} GiB; Linux "
        f"{platform.release()}; Python {platform.python_version()}, {versions}.",
        f"Load average of the last quarter of an hour, these measurements included: {load:.1f}.",
    ]


def write_document() -> None:
    """Put the tables between their markers."""
    entries = found()
    made = {"host": host(), "targets": targets(entries), "measures": measures(entries)}
    document = DOCUMENT.read_text()
    for name, lines in made.items():
        before, marker, rest = document.partition(f"<!-- made: {name} -->\n")
        document = before + marker + "\n".join(lines) + "\n" + rest[rest.index("<!-- end -->") :]
    DOCUMENT.write_text(document)
    if (RESULTS / PLOT).exists():
        shutil.copy(RESULTS / PLOT, DOCUMENT.parent / PLOT)


if __name__ == "__main__":
    main()
