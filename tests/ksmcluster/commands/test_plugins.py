"""Classes of users' packages on the command line: the how-to works, and nothing imports them too early."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import ksmcluster
from ksmcluster.api.plugins import with_plugins
from ksmcluster.config import load, load_compaction, load_either, to_spec
from ksmcluster.system.errors import UserError
from tests.cluster.plugins.models import HERE, Ring
from tests.ksmcluster.conftest import Run
from tests.paths import DOCS, REPOSITORY

PAGE = (DOCS / "howto" / "plugins.md").read_text()
FILES = re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
REGION = {"name": "log", "size": "40 pages", "model": "spoilt:Model"}
SCENARIO: dict[str, Any] = {
    "simulation": {"passes": 2},
    "machine": {"nodes": 2, "memory_per_node": "200 pages"},
    "process": [{"name": "p", "count": 2, "region": [REGION]}],
}
DRIVERS = {
    "machine": {"nodes": 1, "memory_per_node": "16MiB"},
    "driver": [{"name": "mine", "kind": "spoilt:Model", "share": 0.5}],
}


def with_region(**keys: object) -> dict[str, Any]:
    return SCENARIO | {"process": [SCENARIO["process"][0] | {"region": [REGION | keys]}]}


def with_policy(policy: object) -> dict[str, Any]:
    region = {"name": "heap", "size": "40 pages", "model": "unique"}
    return SCENARIO | {"process": [{"name": "p", "count": 2, "policy": policy, "region": [region]}]}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A directory with the files of the how-to."""
    assert [name for name, _ in FILES] == ["logs.py", "placement.py", "mine.toml"]
    for name, text in FILES:
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_how_to_works(page: Path) -> None:
    """Its commands run in the directory of its files; both engines give the same."""
    show, simulate = re.findall(r"^ksmcluster (.*mine.toml.*)$", PAGE, re.MULTILINE)
    runs = {
        engine: [*simulate.split(), "--engine", engine, "--output", engine] for engine in ("inline", "ray")
    }
    for arguments in (show.split(), *runs.values()):
        done = subprocess.run(
            [Path(sys.executable).parent / "ksmcluster", *arguments],
            cwd=page,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    inline, on_ray = ((page / engine / "summary.json").read_text() for engine in runs)
    assert inline == on_ray
    # Half of each node stays free, and logs have records in common.
    config = tomllib.loads((page / "mine.toml").read_text())
    assert config["process"][0]["policy"]["settings"]["part"] == 0.5
    assert json.loads(inline)["derived"]["saved_bytes"] > 512 * 1024 * 7


@pytest.fixture
def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file when it is imported, and that has no class."""
    (tmp_path / "spoilt.py").write_text("open('imported', 'w')\n")
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("spoilt", None)
    return tmp_path / "imported"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (SCENARIO, "workload model"),
        (with_policy("spoilt:Model"), "placement policy"),
        (DRIVERS, "driver"),
    ],
)
def test_config_show_imports_nothing_unless_asked(
    run: Run, spoilt: Path, data: dict[str, Any], what: str
) -> None:
    scenario = load_either(data)
    spoilt.with_name("mine.toml").write_text(ksmcluster.config.resolved_toml(scenario))
    shown = run("config", "show", "mine.toml")
    assert shown.code == 0
    assert load_either(tomllib.loads(shown.out)) == scenario
    assert not spoilt.exists()
    asked = run("config", "show", "mine.toml", "--plugins")
    message = f"error: {what} 'spoilt:Model': module 'spoilt' has no attribute 'Model'\n"
    assert (asked.code, asked.out, asked.err) == (2, "", message)
    assert spoilt.exists()


@pytest.mark.parametrize("data", [SCENARIO, with_policy("spoilt:Model")])
def test_a_run_tries_classes_first(spoilt: Path, data: dict[str, Any]) -> None:
    events: list[object] = []
    with pytest.raises(UserError, match="module 'spoilt' has no attribute 'Model'"):
        ksmcluster.simulate(data, engine="inline", progress=events.append)
    assert events == []
    assert spoilt.exists()


def test_a_run_of_drivers_tries_them_first(spoilt: Path) -> None:
    with pytest.raises(UserError, match="driver 'spoilt:Model': module 'spoilt' has no attribute"):
        ksmcluster.compact(load_compaction(DRIVERS), engine="inline")


FAILING = """
from cluster.compaction.drivers.base import PageDriver

class Card(PageDriver):
    def {method}:
        {body}
"""


@pytest.mark.parametrize("engine", ["inline", "ray"])
@pytest.mark.parametrize(
    ("method", "body", "said"),
    [
        ("moved(self, newpages, pages)", "return 1 / 0", "ZeroDivisionError: division by zero ({place})"),
        (
            "discard(self, units)",
            r"raise OSError('the\ncard is gone')",
            "OSError: the card is gone ({place})",
        ),
        ("may_isolate(self, pages, mode)", "return [1]", "isolate_page() returned list, not an array bool["),
        ("answers(self, pages, mode)", "return 'no'", "PageStateError: Card.answers: 2 answers for "),
    ],
)
def test_an_error_of_a_driver_is_a_line_that_names_it(
    tmp_path: Path, engine: str, method: str, body: str, said: str
) -> None:
    """In a process of its own: Ray's workers look for modules where their cluster was started."""
    (tmp_path / "failing.py").write_text(FAILING.format(method=method, body=body))
    mine = {"name": "mine", "kind": "failing:Card", "share": 0.4, "discard": 0.5}
    scenario = load_compaction(DRIVERS | {"driver": [mine]})
    (tmp_path / "mine.toml").write_text(ksmcluster.config.resolved_toml(scenario))
    command = [sys.executable, "-m", "ksmcluster.cli", "compact", "mine.toml", "--engine", engine, "--quiet"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    said = said.format(place="failing.py, line 6")
    assert ran.stderr.startswith(f"error: driver 'failing:Card': {said}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            with_region(model="pol"),
            '"pol" is not one of "zero", .*; did you mean "pool"',
        ),
        (with_region(model="a.:B"), 'process.0..region.0..model: "a.:B" does not have the form'),
        (with_region(model="a:B:C"), '"a:B:C" does not have the form PACKAGE.MODULE:CLASS'),
        (with_region(model="a:B", copies=2), 'copies: has no meaning with model = "a:B", only with "unique"'),
        (
            with_region(model="zero", settings={}),
            'settings: has no meaning with model = "zero", only with "PACK',
        ),
        (with_region(model="a:B", settings={"x": [1]}), r"settings.x"),
        (with_policy("locl"), 'policy.kind: "locl" is not one of "local", .*; did you mean "local"'),
        (
            with_policy({"kind": "a:B", "nodes": [1]}),
            'nodes: has no meaning with kind = "a:B", only with "bind"',
        ),
        (with_policy({"kind": "local", "settings": {}}), 'settings: has no meaning with kind = "local"'),
        (
            DRIVERS | {"driver": [{"name": "m", "kind": "a:", "share": 0.1}]},
            '"a:" does not have the form PACKAGE.MODULE',
        ),
    ],
)
def test_mistakes_in_scenarios(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_either(data)


def test_a_run_takes_the_rate_of_a_model() -> None:
    scenario = load(with_region(model=f"{HERE}:Ring", settings={"step": 3}))
    assert with_plugins(to_spec(scenario)).processes[0].regions[0].merging_rate == Ring.merging_rate


def test_nothing_is_imported_for_other_scenarios() -> None:
    program = (
        "import sys, ksmcluster; ksmcluster.simulate('tiny', engine='inline');"
        "print([name for name in sys.modules if name.startswith('cluster.plugins.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "['cluster.plugins.loading']\n", done.stderr
