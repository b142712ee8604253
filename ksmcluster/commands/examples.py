"""The end of `--help`: an example or two of each command, and the page that says more."""

from __future__ import annotations

from typing import NamedTuple


class Examples(NamedTuple):
    """Command lines without the `ksmcluster` before them, and the page that describes the command."""

    page: str
    lines: tuple[str, ...]


EXAMPLES = {
    "": Examples("docs/index.md", ("simulate --nodes 16 --engine inline", "config list")),
    "simulate": Examples(
        "docs/reference/configuration.md",
        (
            "simulate --engine inline --set ksm.max_page_sharing=16",
            "simulate vm-farm --seconds 30 --output results",
        ),
    ),
    "resume": Examples(
        "docs/howto/checkpoints.md",
        ("resume run.ckpt --output results", "resume run.ckpt --engine inline --checkpoint-every 2m"),
    ),
    "compact": Examples(
        "docs/reference/compaction.md", ("compact --engine inline --nodes 2", "compact compaction-drain")
    ),
    "sweep": Examples(
        "docs/howto/sweeps.md",
        (
            "sweep --vary ksm.pages_to_scan=100..1600x2 --limit 'ksmd_cpu_percent<=5' --output scan",
            "sweep --vary ksm.merge_across_nodes=0,1 --seeds 5 --jobs 4 --output across",
            "sweep compaction-zram --vary migration.mode=async,sync-light,sync --output modes",
        ),
    ),
    "compare": Examples(
        "docs/howto/sweeps.md", ("compare before after", "compare before after --tolerance 0.01")
    ),
    "knobs": Examples("docs/howto/real-machine.md", ("knobs results", "knobs scan --point 7")),
    "plot": Examples(
        "docs/howto/pictures.md", ("plot results -o memory.svg", "plot scan --kind pareto -o front.pdf")
    ),
    "report": Examples(
        "docs/howto/pictures.md", ("report results -o report.html", "report before after -o both.html")
    ),
    "capture": Examples(
        "docs/howto/capture.md",
        ("capture --pid 4711 --output mine.parquet", "capture --output mine.parquet -- ./solver input"),
    ),
    "replay": Examples(
        "docs/reference/scripts.md",
        ("replay --compare tests/data/oracle", "replay --engine exact script.scn"),
    ),
    "validate": Examples("docs/howto/validate.md", ("validate", "validate script.scn")),
    "calibrate": Examples("docs/howto/calibrate.md", ("calibrate", "calibrate --output cost.toml")),
    "bench": Examples("benchmarks/README.md", ("bench pass", "bench scaling --short")),
    "bench pass": Examples("benchmarks/README.md", ("bench pass --pages 65536 --ksmd",)),
    "bench scaling": Examples("benchmarks/README.md", ("bench scaling --plot scaling.png",)),
    "bench startup": Examples("benchmarks/README.md", ("bench startup --nodes 64",)),
    "bench compaction": Examples("benchmarks/README.md", ("bench compaction --nodes 4",)),
    "bench memory": Examples("benchmarks/README.md", ("bench memory --nodes 16",)),
    "config": Examples("docs/reference/configuration.md", ("config list", "config show tiny")),
    "config show": Examples("docs/reference/configuration.md", ("config show default --set ksm.kernel=6.1",)),
    "config list": Examples("docs/reference/configuration.md", ("config list",)),
}


def epilog(command: str) -> str:
    """Return the end of a command's help, for example of "bench pass"; `\\b` keeps the line breaks."""
    examples = EXAMPLES[command]
    heading = "Examples:" if len(examples.lines) > 1 else "Example:"
    lines = "\n".join(f"  ksmcluster {line}" for line in examples.lines)
    return f"\b\n{heading}\n{lines}\n\nSee also: {examples.page}"
