from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

import ksmcluster
from cluster.machine.pass_result import ActorsStarting, CheckpointFailed, PassDone, PassStarted, RunStarting
from ksmcluster.config import Overrides, load
from ksmcluster.report import text
from ksmcluster.report.progress import shown
from ksmcluster.report.simulation_report import rendered
from ksmcluster.results.result import Result
from tests.ksmcluster.conftest import pass_result, result_of


def test_report(result: Result, golden: Callable[[str, str], None]) -> None:
    golden("report.txt", str(result) + "\n")


MANY_NODES = load("default", Overrides(nodes=100, passes=8, settings=("machine.topology=ring",)))


def test_report_of_many_nodes(golden: Callable[[str, str], None]) -> None:
    golden("report-100-nodes.txt", str(result_of(MANY_NODES)) + "\n")


def test_report_tells_of_the_advisor(result: Result) -> None:
    advised = result_of(load("tiny", Overrides(settings=("ksm.advisor_mode=scan-time",))))
    assert "100 in the first pass, 400 in the last (advisor)\n" in str(advised)
    assert "advisor" not in str(result)


def test_report_says_how_long_a_full_scan_takes() -> None:
    settings = ("ksm.pages_to_scan=30", "ksm.sleep_millisecs=50", "ksm.smart_scan=0")
    result = ksmcluster.simulate(load("tiny", Overrides(passes=2, settings=settings)), engine="inline")
    by_pass = result.summary["by_pass"]
    assert by_pass["scan_seconds"][0] == by_pass["simulated_seconds"][0] > 0
    assert sum(by_pass["scan_seconds"]) == pytest.approx(result.summary["derived"]["simulated_seconds"])
    assert sum(by_pass["ksmd_cpu_seconds"]) == pytest.approx(result.summary["derived"]["ksmd_cpu_seconds"])
    took, cpu = (by_pass[name][-1] for name in ("scan_seconds", "ksmd_cpu_seconds"))
    # 13 jiffies of 4 ms and one more, each longer than the work before it; once more at the end of the pass.
    wakeups = int(result.by_node("pages_scanned")[-1].sum()) // 30 + 1
    assert took == pytest.approx(wakeups * 0.056)
    line, under = re.findall(r"  a full scan  +(.*)\n +(.*)\n", str(result))[0]
    assert line == f"{text.seconds(took)} at pages_to_scan=30, sleep_millisecs=50"
    assert under == f"in the last pass, ksmd at {text.percent(cpu / took)} of a CPU"
    assert re.search(rf"\n +2 +{text.seconds(took)} ", str(result))


def test_report_has_the_share_of_all_threads_together() -> None:
    settings = ("ksm.merge_across_nodes=0", "ksm.threads=per-node", "ksm.sleep_millisecs=0")
    report = str(ksmcluster.simulate(load("tiny", Overrides(settings=settings)), engine="inline"))
    share = re.search(r"ksmd at (.*) % of a CPU\n +\(sum of its 2 threads, one per node\)\n", report)
    assert share
    assert 100 < float(share[1]) <= 200


def test_report_says_if_the_last_scan_left_pages_out(result: Result) -> None:
    assert "in the last pass (42 skipped), ksmd at " in str(result)


def test_report_says_if_ksm_costs_memory(result: Result) -> None:
    """Pages that differ: nothing is saved, and ksmd keeps 64 bytes for each of 4096."""
    region = {"name": "state", "size": "16MiB", "model": "unique"}
    scenario = {
        "machine": {"nodes": 1, "memory_per_node": "20MiB"},
        "process": [{"name": "all", "count": 1, "region": [region]}],
    }
    different = ksmcluster.simulate(scenario, engine="inline")
    assert different.summary["derived"]["general_profit_bytes"] == -64 * 4096
    assert re.search(r"\n  general_profit  +-256.0 KiB  +KSM costs memory here\n", str(different))
    assert "KSM costs" not in str(result)


def test_without_ksmd_there_is_no_full_scan() -> None:
    idle = ksmcluster.simulate(load("tiny", Overrides(settings=("ksm.run=0",))), engine="inline")
    assert "full scan  " not in str(idle)


def test_report_fits_80_columns_and_has_no_colours_when_piped() -> None:
    for nodes in (1, 64, 1000):
        result = result_of(load("tiny", Overrides(nodes=nodes)))
        for console in (Console(file=io.StringIO()), Console(file=io.StringIO(), width=30)):
            shown_text = rendered(result, console)
            assert "\x1b" not in shown_text
            assert "…" not in shown_text
            assert max(map(len, shown_text.splitlines())) <= 80


def test_report_in_ascii(result: Result, golden: Callable[[str, str], None]) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    shown_text = rendered(result, Console(file=file, width=80))
    assert shown_text.isascii()
    golden("report-ascii.txt", shown_text)


def test_report_on_a_terminal_has_colours(result: Result) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    assert "\x1b[" in rendered(result, console)


def test_titles_are_text_not_markup() -> None:
    result = result_of(load("tiny", Overrides(settings=("simulation.title=[red]a[/] [/b]",))))
    assert str(result).startswith("[red]a[/] [/b]\n")


def events(passes: int, actors: int) -> list[object]:
    starting = [ActorsStarting(done, actors) for done in range(actors + 1)]
    running = [[PassStarted(n, passes), PassDone(pass_result(n, 2))] for n in range(1, passes + 1)]
    return [*starting, *(event for pair in running for event in pair)]


def progress(console: Console, *, quiet: bool = False) -> str:
    with shown(console, quiet=quiet) as listener:
        for event in events(2, 8):
            listener(event)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_progress_as_lines() -> None:
    lines = progress(Console(file=io.StringIO())).splitlines()
    assert lines[0] == "starting 8 node actors"
    assert [line.partition(" after")[0] for line in lines[1:5]] == [
        f"{done} of 8 node actors ready" for done in (2, 4, 6, 8)
    ]
    assert lines[5:] == [
        "pass 1 of 2: 12,000 pages/s, 1.1 MiB saved",
        "pass 2 of 2: 12,000 pages/s, 2.1 MiB saved",
    ]


def test_progress_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    out = progress(console)
    assert "starting" in out
    assert "8/8" in out
    assert "2/2" in out
    assert "12,000 pages/s, 2.1 MiB saved" in out


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_with_an_open_end(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, color_system=None)
    with shown(console, plan="what will happen") as listener:
        for event in (RunStarting(), PassStarted(1, None), PassDone(pass_result(1, 2))):
            listener(event)
    assert "what will happen\n" in out.getvalue()
    assert "1.5 s simulated, 12,000 pages/s, 1.1 MiB saved" in out.getvalue()
    assert ("1/?" in out.getvalue()) == terminal
    assert ("pass 1: " in out.getvalue()) != terminal


def test_quiet() -> None:
    assert progress(Console(file=io.StringIO()), quiet=True) == ""


def test_a_checkpoint_that_is_not_written_is_said_even_so() -> None:
    out = io.StringIO()
    with shown(Console(file=out), quiet=True) as listener:
        for event in (PassStarted(1, None), CheckpointFailed("no space"), PassDone(pass_result(1, 2))):
            listener(event)
    assert out.getvalue() == "no checkpoint: no space; the run continues\n"


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes(count: int, expected: str) -> None:
    assert text.size(count) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (0.0, "0 ms"),
            (3.4e-7, "0.3 us"),
            (0.0000042, "4.2 us"),
            (0.00035, "350 us"),
            (0.004335, "4.3 ms"),
        ),
        *((0.2345, "234 ms"), (3.14, "3.1 s"), (42.2, "42 s"), (1200, "20 min")),
    ],
)
def test_times(value: float, expected: str) -> None:
    assert text.seconds(value) == expected


def test_strip_shows_nothing_only_for_nothing() -> None:
    assert text.strip([0, 1, 400, 800]) == " ▁▄█"
    assert text.strip([0, 0]) == "  "
    assert text.strip([0, 8], plain=True) == " #"


def test_bar() -> None:
    assert text.bar(0, 8) == ""
    assert text.bar(1, 3) == "███"
    assert text.bar(0.5, 3) == "█▌"
    assert text.bar(0.5, 4, plain=True) == "##"
