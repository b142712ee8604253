"""The report as HTML: valid, complete in itself, and with every section; cells of notebooks."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ksmcluster
from ksmcluster.config import Overrides
from ksmcluster.experiments.knobs import shell_lines
from ksmcluster.experiments.sweeps.sweep_result import load_sweep
from ksmcluster.report import text
from ksmcluster.report.html.page import report
from ksmcluster.report.run_data import RunData, of_result
from ksmcluster.report.saved_runs import read_outputs, read_runs
from ksmcluster.results.compaction.compaction_result import CompactionResult
from ksmcluster.results.result import Result
from tests.ksmcluster.conftest import Run

#: Elements without an end tag, also those of SVG, which end themselves.
VOID = {"meta", "br", "hr", "img", "link", "input"}
SECTIONS = [
    "asked",
    "answer",
    "figures",
    "time",
    "cost",
    "notes",
    "tables",
    "configuration",
    "origin",
    "citation",
]


class Page(HTMLParser):
    """Checks that elements end in the order in which they begin, and gathers what there is."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.pictures: list[str] = []
        self.fetched: list[str] = []
        self.sections: list[str] = []
        self.words: list[str] = []
        self.feed(html.replace("<wbr>", ""))  # no word ends there
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def _note(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tags[tag] += 1
        if tag == "svg":
            self.pictures.append(attributes["aria-label"] or "")
        if name := attributes.get("id"):
            self.ids.append(name)
            if tag == "section":
                self.sections.append(name)
        links = (attributes.get(name) for name in ("src", "href", "xlink:href", "srcset", "data", "action"))
        self.fetched += [link for link in links if link and not link.startswith(("#", "data:"))]

    @property
    def text(self) -> str:
        """All that a reader sees, in one line."""
        return " ".join(" ".join(self.words).split())


def page_of(outputs: Path, *names: str) -> Page:
    return Page(report(read_runs([outputs / name for name in names])))


@pytest.mark.parametrize(
    "names", [("tiny",), ("zram",), ("both",), ("tiny", "within"), ("tiny", "zram"), ("tiny",) * 6]
)
def test_a_page_is_complete_in_itself(outputs: Path, names: tuple[str, ...]) -> None:
    html = report(read_runs([outputs / name for name in names]))
    page = Page(html)
    assert page.sections == SECTIONS
    assert page.fetched == []
    assert page.tags["script"] == page.tags["link"] == 0
    assert not re.search(r"@import|url\((?!#)", html)
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html))
    assert {one or other for one, other in referred} <= set(page.ids)
    assert page.tags["svg"] >= len(names)
    assert len(html) < 5 << 20


def test_a_page_says_what_came_of_it(outputs: Path, tiny: RunData) -> None:
    page = page_of(outputs, "tiny")
    derived = tiny.summary["derived"]
    saved, share = text.size(derived["saved_bytes_mean"]), text.percent(derived["saved_fraction_mean"])
    took = text.seconds(derived["simulated_seconds"])
    says = (
        f"KSM saves {saved} ({share}) on average over the last half of {took} of simulated time (4 passes), "
    )
    assert f"{says}with ksmd at " in page.text
    for what in ("Two small nodes", tiny.summary["config_digest"], tiny.provenance["command"], "numpy"):
        assert what in page.text
    assert f"pages_sharing {tiny.summary['gauges']['pages_sharing']:,}" in page.text
    assert "merge_across_nodes = 1" in page.text
    assert "compared with" not in page.text


def test_a_page_on_compaction(outputs: Path) -> None:
    page = page_of(outputs, "zram")
    (run,) = read_runs([outputs / "zram"])
    got, asked = run.summary["obtained"], run.summary["requested"]
    assert got["movable_on"] > got["movable_off"]
    says = f"After compaction, {got['movable_on']} of {asked} blocks of 2.0 MiB can be allocated if driver"
    says += (
        f" pages are movable, and {got['movable_off']} if they are not; before compaction, {got['before']}"
    )
    assert says in page.text


def test_runs_are_side_by_side(outputs: Path) -> None:
    page = page_of(outputs, "tiny", "within")
    runs = read_runs([outputs / "tiny", outputs / "within"])
    more, less = (text.size(run.summary["derived"]["saved_bytes_mean"]) for run in runs)
    assert f"tiny saves the most memory: {more}, compared with {less} (within)." in page.text
    assert "Keys that differ tiny within ksm.merge_across_nodes 1 0 tiny: config.toml" in page.text


def test_runs_of_two_commands_are_told_apart(outputs: Path) -> None:
    page = page_of(outputs, "tiny", "zram")
    assert "KSM saves " in page.text
    assert "After compaction, " in page.text
    assert "the most" not in page.text
    assert page.pictures
    assert all(label.startswith(("tiny: ", "zram: ")) for label in page.pictures)


def test_runs_that_end_at_different_times_are_told_apart(outputs: Path) -> None:
    says = "The runs end at different simulated times"
    assert says not in page_of(outputs, "tiny", "within").text
    short = ksmcluster.simulate(ksmcluster.load("tiny", Overrides(passes=1)), engine="inline")
    runs = [*read_runs([outputs / "tiny"]), of_result(short, "short")]
    assert says in Page(report(runs)).text


def test_notes_are_there(tiny: RunData) -> None:
    noted = tiny._replace(summary={**tiny.summary, "notes": ["a lower bound"]})
    assert "Notes a lower bound Not included in these numbers" in Page(report([noted])).text


def test_what_users_write_is_escaped() -> None:
    settings = ("simulation.title=<b>&", 'process[0].name="<script>alert(1)</script>"')
    result = ksmcluster.simulate(ksmcluster.load("tiny", Overrides(settings=settings)), engine="inline")
    html = report([of_result(result, '"><i>')])
    page = Page(html)
    assert page.tags["script"] == page.tags["b"] == page.tags["i"] == 0
    assert "<script>alert(1)</script>" in page.text


def test_without_gain_the_answer_says_so() -> None:
    region = {"name": "state", "size": "16MiB", "model": "unique"}
    scenario = {
        "machine": {"nodes": 1, "memory_per_node": "20MiB"},
        "process": [{"name": "all", "count": 1, "region": [region]}],
    }
    different = of_result(ksmcluster.simulate(scenario, engine="inline"))
    answer = Page(report([different])).text
    assert "KSM saves 0 bytes on average" in answer
    assert "but costs 256.0 KiB at the end by the kernel's own estimate." in answer


def test_report_command(run: Run, outputs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    command = ("report", str(outputs / "tiny"), str(outputs / "within"), "-o", str(file))
    assert run(*command) == (0, "", "")
    first = file.read_bytes()
    assert run(*command) == (0, "", "")
    assert file.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("tiny -o report.txt", "error: --output report.txt: give a name that ends in .html\n"),
        (
            "tiny -o theirs.html",
            "error: --output theirs.html: this command did not write the existing file; ",
        ),
        ("gone -o x.html", "error: gone: no such directory; give that of an --output"),
    ],
)
def test_mistakes_in_reports(
    run: Run, outputs: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, says: str
) -> None:
    monkeypatch.chdir(outputs)
    (outputs / "theirs.html").write_text("<html></html>")
    ran = run("report", *arguments.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(says)


def test_cells_of_notebooks(real_result: Result, compacted: CompactionResult) -> None:
    cell = Page(real_result._repr_html_())
    assert cell.text.startswith("Two small nodes KSM saves ")
    assert f"at the end, saved {text.size(real_result.summary['derived']['saved_bytes'])} (" in cell.text
    assert "After compaction, " in Page(compacted._repr_html_()).text


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of simulate with a point that fails, and one of compact."""
    directory = tmp_path_factory.mktemp("sweeps")
    vary = {"ksm.max_page_sharing": [1, 2, 256], "ksm.pages_to_scan": [100, 800]}
    limits = ["ksmd_cpu_percent<=5"]
    ksmcluster.sweep("tiny", vary, limits=limits, output=directory / "knobs")
    small = Overrides(2, settings=("machine.memory_per_node=16MiB",))
    modes = {"migration.mode": ["async", "sync"]}
    ksmcluster.sweep("compaction-zram", modes, overrides=small, output=directory / "modes")
    return directory


def sweep_page(*directories: Path) -> tuple[str, Page]:
    html = report(*read_outputs(directories))
    page = Page(html)
    assert page.fetched == []
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    return html, page


def test_a_page_on_a_sweep(swept: Path) -> None:
    _, page = sweep_page(swept / "knobs")
    assert page.sections == ["sweep-1", "notes", "citation"]
    found = load_sweep(swept / "knobs")
    best = found.choose().recommended
    assert best is not None
    says = f"Point {best} ({found.points[best - 1].label}) is recommended within ksmd_cpu_percent<=5: "
    saved = text.size(found.outcomes[best - 1].means["saved_bytes_mean"] or 0)
    assert f"{says}saved_bytes_mean {saved}, " in page.text
    assert "failed runs 2" in page.text
    assert "Failed points 1 (ksm.max_page_sharing=1, " in page.text
    assert "ksm.max_page_sharing: must be at least 2, not 1" in page.text
    for line in shell_lines(found.config(best)["ksm"]):
        assert " ".join(line.split()) in page.text
    # The Pareto front, and two objectives over each of two keys.
    assert len(page.pictures) == 5
    assert page.pictures[0] == "Points of the sweep, by their numbers"


def test_a_page_on_paired_values_shows_the_points(tmp_path: Path) -> None:
    paired = {"ksm.pages_to_scan": [100, 800, 400], "ksm.smart_scan": [0, 1, 1]}
    ksmcluster.sweep("tiny", paired, zipped=True, output=tmp_path / "paired")
    _, page = sweep_page(tmp_path / "paired")
    # The front, and bars of the two objectives that differ, under the title of the first.
    assert page.pictures == ["Points of the sweep, by their numbers", "simulated_seconds"]


def test_a_page_on_a_sweep_of_compact(swept: Path) -> None:
    _, page = sweep_page(swept / "modes")
    assert page.pictures[0] == "Successful allocations before and after compaction"
    assert "on a real machine" not in page.text


def test_sweeps_beside_runs(swept: Path, outputs: Path) -> None:
    html, page = sweep_page(outputs / "tiny", swept / "knobs", swept / "modes")
    assert page.sections == [*SECTIONS[:5], "sweep-1", "sweep-2", *SECTIONS[5:]]
    for head in ("Sweep: knobs", "Sweep: modes", "tiny, knobs, modes"):
        assert head in page.text
    assert len(html) < 5 << 20


def test_a_page_on_a_sweep_that_was_killed(swept: Path, tmp_path: Path) -> None:
    """Then not all runs are there, and maybe no provenance.json."""
    killed = tmp_path / "killed"
    killed.mkdir()
    lines = (swept / "knobs" / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (killed / "runs.jsonl").write_bytes(b"".join(lines[:3]))
    (killed / "plan.json").write_bytes((swept / "knobs" / "plan.json").read_bytes())
    _, page = sweep_page(killed)
    assert "missing runs 3" in page.text
    provenance = json.loads((swept / "knobs" / "provenance.json").read_text())
    provenance["timing"]["wall_seconds"] = None  # as it is before the first run is done
    (killed / "provenance.json").write_text(json.dumps(provenance))
    assert "last command killed" in sweep_page(killed)[1].text
    (killed / "runs.jsonl").write_bytes(b"")
    _, page = sweep_page(killed)
    assert page.pictures == []
    assert "No point is recommended within ksmd_cpu_percent<=5." in page.text
