from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.spec import scenario as spec
from cluster.spec.profile import PROFILES
from ksmcluster.config import Overrides, Scenario, bundled, load, load_cost, resolved_toml, to_spec
from ksmcluster.config.ksmd import Kernel
from ksmcluster.system.errors import UserError
from tests.ksmcluster.config.strategies import Data, scenarios
from tests.paths import REPOSITORY

SMALL: Data = {
    "machine": {"nodes": 2, "memory_per_node": "100 pages"},
    "process": [{"name": "a", "count": 1, "region": [{"name": "r", "size": "10 pages", "model": "unique"}]}],
}

ADVISOR: dict[str, Any] = {
    "advisor_mode": "scan-time",
    "advisor_max_cpu": 40,
    "advisor_max_pages_to_scan": 8,
    "advisor_min_pages_to_scan": 4,
    "advisor_target_scan_time": 30,
}


def small(**tables: Any) -> Data:
    return copy.deepcopy(SMALL) | tables


def message(source: Data | str | Path, *sets: str, **options: int) -> str:
    """What `load` says is wrong."""
    with pytest.raises(UserError) as error:
        load(source, Overrides(settings=sets, **options))
    return str(error.value)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["per_node=32769"], "process[0].per_node: there would be 32,769 processes on node 0"),
        (["per_node=1000000000000"], "process[0].per_node: there would be 1,000,000,000,000 processes on"),
        # The first node has one more.
        (["count=65537"], "process[0].count: there would be 32,769 processes on node 0; the most is 32,768"),
        (["count=3", "workers=16384"], "process[0].workers: there would be 32,770 processes on node 0"),
    ],
)
def test_more_processes_than_a_node_can_number(sets: list[str], says: str) -> None:
    needless = () if "count" in sets[0] else ("process[0].count",)
    changes = tuple(f"process[0].{change}" for change in sets)
    with pytest.raises(UserError) as error:
        load(small(), Overrides(settings=changes, unset=needless))
    assert says in str(error.value)
    room = "machine.memory_per_node=16GiB"
    load(small(), Overrides(settings=(room, "process[0].count=65536")))
    load(small(), Overrides(settings=(room, "process[0].count=4", "process[0].workers=16383")))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_processes_on_nodes_are_those_of_the_machine(count: int, nodes: int, workers: int) -> None:
    config = {"name": "a", "count": count, "workers": workers, "region": SMALL["process"][0]["region"]}
    machine = {"nodes": nodes, "memory_per_node": "1GiB"}
    kind = load(small(machine=machine, process=[config])).process[0]
    placed = spec.ProcessSpec("a", count, ()).placed(nodes)
    assert kind.on_nodes(nodes) == (np.bincount(placed, minlength=nodes) * (1 + workers)).tolist()


def test_a_node_has_at_most_as_many_frames_as_have_numbers() -> None:
    load(small(), Overrides(settings=("machine.memory_per_node=8TiB",)))
    assert message(small(), "machine.memory_per_node=9TiB") == (
        '--set machine.memory_per_node: "9TiB" is out of range: a node has at most 8TiB'
    )


@given(scenarios())
@settings(max_examples=60, deadline=None)
def test_resolved_scenario_loads_as_the_same(data: Data) -> None:
    scenario = load(data)
    text = resolved_toml(scenario)
    again = load(tomllib.loads(text))
    assert again == scenario
    assert resolved_toml(again) == text
    to_spec(scenario)


@pytest.mark.parametrize("name", bundled())
def test_scenarios_that_come_along(name: str) -> None:
    scenario = load(name)
    assert scenario.simulation.title
    assert load(tomllib.loads(resolved_toml(scenario))) == scenario


def test_the_default_is_for_64_nodes_of_4096_pages() -> None:
    scenario = to_spec(load())
    pages = sum(process.count * sum(r.pages for r in process.regions) for process in scenario.processes)
    assert (scenario.machine.nodes, pages // 64) == (64, 4096)


def test_defaults_are_those_of_the_machine() -> None:
    made = to_spec(load(small()))
    plain = spec.SimulationSpec(made.machine, spec.KsmSpec(), made.processes)
    assert made == plain
    region = made.processes[0].regions[0]
    assert region == spec.RegionSpec("r", 10, spec.ContentModel.UNIQUE)
    assert made.processes[0] == spec.ProcessSpec("a", 1, (region,))
    assert np.array_equal(made.machine.distance, [[10, 20], [20, 10]])


def test_everything_arrives() -> None:
    write = {
        "rate": 2,
        "hot_fraction": 0.5,
        "start": 1,
        "stop": 9,
        "period": 3,
        "duty": 0.25,
        "content": "redraw",
    }
    region = {
        "name": "r",
        "size": "1MiB",
        "model": "pool",
        "pool": "p",
        "distinct": 7,
        "law": "zipf",
        "exponent": 2,
        "mergeable": False,
        "pinned": True,
        "policy": "interleave",
        "write": [write],
    }
    process = {
        "name": "a",
        "per_node": 3,
        "workers": 2,
        "policy": {"kind": "bind", "nodes": [1]},
        "region": [region],
    }
    data = {
        "simulation": {"seed": 5, "passes": 2, "windows_per_pass": 3},
        "machine": {"nodes": 2, "memory_per_node": "1GiB", "content": "bytes", "topology": "ring"},
        "ksm": {"kernel": "6.12", "pages_to_scan": 9, "merge_across_nodes": 0, "max_page_sharing": 3}
        | ADVISOR,
        "cost": {"visit_ns": 1, "checksum_ns": 2, "stable_level_ns": 3, "merge_ns": 4},
        "process": [process],
    }
    made = to_spec(load(data))
    assert (made.seed, made.passes, made.windows_per_pass) == (5, 2, 3)
    assert (made.machine.frames_per_node, made.machine.content) == (1 << 18, "bytes")
    assert made.ksm == spec.KsmSpec(
        "6.12", pages_to_scan=9, merge_across_nodes=0, max_page_sharing=3, **ADVISOR
    )
    assert made.cost == spec.CostSpec(visit=1, checksum=2, stable_level=3, merge=4)
    assert made.processes == (
        spec.ProcessSpec(
            "a",
            6,
            (
                spec.RegionSpec(
                    "r",
                    256,
                    spec.ContentModel.POOL,
                    mergeable=False,
                    pinned=True,
                    policy=spec.PolicySpec(spec.PolicyMode.INTERLEAVE, (0, 1)),
                    pool="p",
                    distinct=7,
                    law=spec.Law.ZIPF,
                    exponent=2.0,
                    writes=(spec.WriteSpec(2.0, 0.5, 1.0, 9.0, 3.0, 0.25, spec.Rewrite.REDRAW),),
                ),
            ),
            workers=2,
            policy=spec.PolicySpec(spec.PolicyMode.BIND, (1,)),
        ),
    )


def test_knobs_that_a_kernel_lacks_are_off_in_it() -> None:
    ksm = to_spec(load(small(ksm={"kernel": "4.8"}))).ksm
    assert (ksm.smart_scan, ksm.use_zero_pages) == (0, 0)
    assert ksm.advisor_mode == "none"
    old = resolved_toml(load(small(ksm={"kernel": "6.1"})))
    assert "smart_scan" not in old
    assert "advisor" not in old


@pytest.mark.parametrize("table", ["ksm", "migration"])
def test_a_kernel_without_quotes(table: str) -> None:
    """TOML reads 6.10 as 6.1, another kernel."""
    (line,) = message(small(**{table: {"kernel": 6.1}})).splitlines()
    assert line == (
        f"scenario: {table}.kernel: is a number, but TOML reads 6.10 as 6.1; "
        'write it in quotes: "6.1" or "6.10"'
    )


def test_a_kernel_on_the_command_line_is_text() -> None:
    assert load(small(), Overrides(settings=("ksm.kernel=6.1",))).ksm.kernel == "6.1"
    assert load(small(), Overrides(settings=("ksm.kernel=6.10",))).ksm.kernel == "6.1"


def test_the_names_of_kernels_are_those_of_the_profiles() -> None:
    assert get_args(Kernel) == tuple(PROFILES)


def test_a_full_release_is_taken_as_a_known_kernel() -> None:
    scenario = load(small(ksm={"kernel": "6.16.12"}))
    assert (scenario.ksm.kernel, scenario.notes) == ("6.16", ())
    assert load(small(ksm={"kernel": "7.3.4+deb13-cloud-amd64"})).ksm.kernel == "7.3"


def test_a_newer_kernel_is_taken_as_the_newest_with_a_note() -> None:
    scenario = load(small(), Overrides(settings=("ksm.kernel=9.1.2",)))
    assert scenario.ksm.kernel == "7.3"
    assert scenario.notes == (
        "scenario: kernel 9.1.2 is not known; it is taken as 7.3, the newest known one",
    )


@pytest.mark.parametrize("name", bundled())
@pytest.mark.parametrize("kernel", ["4.8", "6.1"])
def test_another_kernel_for_a_scenario_that_ships(name: str, kernel: str) -> None:
    """Knobs that the kernel lacks are left out, each with a note."""
    scenario = load(name, Overrides(settings=(f"ksm.kernel={kernel}",)))
    lacking = {"smart_scan"} | ({"use_zero_pages", "max_page_sharing"} if kernel == "4.8" else set())
    assert scenario.ksm.kernel == kernel
    assert all(getattr(scenario.ksm, knob) is None for knob in lacking)
    assert {note.partition(" = ")[0] for note in scenario.notes} == {
        f"{name}.toml: ksm.{knob}" for knob in lacking & load_raw(name).keys()
    }


def load_raw(name: str) -> dict[str, Any]:
    """The table [ksm] of a file that ships."""
    table: dict[str, Any] = tomllib.loads((REPOSITORY / "configs" / f"{name}.toml").read_text()).get(
        "ksm", {}
    )
    return table


def test_what_is_left_out_is_a_note() -> None:
    data = small(ksm={"smart_scan": 0, "run": 1})
    scenario = load(data, Overrides(settings=("ksm.kernel=6.1",)))
    assert scenario.notes == (
        'scenario: ksm.smart_scan = 0 is ignored: it has no meaning with kernel = "6.1", '
        'only with "6.12", "6.16", "6.17", "6.18.15", "6.18", "7.2", "7.3"',
    )
    ring = {"nodes": 2, "memory_per_node": "1MiB", "topology": {"kind": "ring", "hop": 7}}
    scenario = load(small(machine=ring), Overrides(settings=("machine.topology.kind=sockets",)))
    assert scenario.machine.topology.hop is None
    assert [note.partition(" is ")[0] for note in scenario.notes] == ["scenario: machine.topology.hop = 7"]
    assert load(data).notes == ()


def test_a_knob_of_the_command_line_that_the_kernel_lacks_is_refused() -> None:
    lines = message(small(ksm={"smart_scan": 0}), "ksm.kernel=4.8", "ksm.use_zero_pages=1")
    assert lines.startswith('--set ksm.use_zero_pages: has no meaning with kernel = "4.8"')
    assert "left out" not in lines


def test_a_file_that_contradicts_itself_is_refused() -> None:
    assert 'ksm.smart_scan: has no meaning with kernel = "6.1"' in message(
        small(ksm={"kernel": "6.1", "smart_scan": 1})
    )


def test_unset() -> None:
    assert load("default", Overrides(unset=("ksm.pages_to_scan",))).ksm.pages_to_scan == 100
    assert (
        load("tiny", Overrides(unset=("process[0].region[0]",))).process[0].region
        == (load("tiny").process[0].region[1:])
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "ksm.smart_scam",
            '--unset ksm.smart_scam: the scenario does not set it; did you mean "smart_scan"?',
        ),
        ("process[7]", "--unset process[7]: the scenario does not set it"),
        ("migration.mode", "--unset migration.mode: the scenario does not set it"),
        ("machine.nodes", "--unset machine.nodes: is missing"),
        ("..", "--unset ..: not a path of keys"),
        ("", "--unset : no key"),
    ],
)
def test_wrong_unset(name: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        load("default", Overrides(unset=(name,)))
    assert text in str(error.value)


# The end of a run


def test_how_a_run_ends() -> None:
    assert ends_of(small()) == (6, None, None)
    assert ends_of(small(simulation={"passes": 3})) == (3, None, None)
    assert ends_of(small(simulation={"seconds": 2.5})) == (None, 2.5, None)
    assert ends_of(small(simulation={"until": "converged"})) == (100, None, 0.001)
    bounded = {"until": "converged", "most_passes": 30, "tolerance": 0.5}
    assert ends_of(small(simulation=bounded)) == (30, None, 0.5)


def test_the_command_line_replaces_the_end_of_the_file() -> None:
    passes = small(simulation={"passes": 3})
    assert ends_of(passes, seconds=4.0) == (None, 4.0, None)
    assert ends_of(passes, until="converged") == (100, None, 0.001)
    assert ends_of(passes, settings=("simulation.seconds=4",)) == (None, 4.0, None)
    converged = small(simulation={"until": "converged", "tolerance": 0.1})
    assert ends_of(converged, passes=2) == (2, None, None)


def ends_of(data: Data, **options: Any) -> tuple[int | None, float | None, float | None]:
    made = to_spec(load(data, Overrides(**options)))
    return made.passes, made.seconds, made.tolerance


@pytest.mark.parametrize(
    ("simulation", "text"),
    [
        ({"passes": 3, "seconds": 2.0}, "simulation.seconds: says when the run ends, and so does passes"),
        ({"seconds": 2.0, "until": "converged"}, "simulation.until: says when the run ends, and so does"),
        ({"tolerance": 0.1}, 'simulation.tolerance: has no meaning without until = "converged"'),
        ({"most_passes": 9}, 'simulation.most_passes: has no meaning without until = "converged"'),
        ({"seconds": 0.0}, "simulation.seconds: must be at least 1e-09"),
        ({"until": "steady"}, 'simulation.until: "steady" is not one of "converged"'),
    ],
)
def test_wrong_ends(simulation: Data, text: str) -> None:
    assert text in message(small(simulation=simulation))


def test_two_ends_on_the_command_line() -> None:
    assert message(small(), passes=2, seconds=3) == (
        "--seconds: says when the run ends, and so does passes; give only one"
    )


def test_a_pool_is_called_as_its_region_unless_named() -> None:
    region = {"name": "cache", "size": "10 pages", "model": "pool", "distinct": 2}
    assert (
        load(small(), Overrides(settings=(f"process[0].region[0]={_inline(region)}",)))
        .process[0]
        .region[0]
        .pool
        == "cache"
    )


def _inline(table: Data) -> str:
    return "{" + ", ".join(f"{key} = {value!r}" for key, value in table.items()) + "}"


# Topologies


@pytest.mark.parametrize("form", ["distances.txt", {"kind": "file", "path": "distances.txt"}])
def test_a_file_of_distances_is_looked_for_beside_the_scenario(tmp_path: Path, form: object) -> None:
    (tmp_path / "distances.txt").write_text("10 30\n31 10\n")
    file = tmp_path / "scenario.toml"
    file.write_text(resolved_toml(load(small())))
    data = tomllib.loads(file.read_text())
    data["machine"]["topology"] = form
    file.write_text(_toml(data))
    scenario = load(file)
    assert to_spec(scenario).machine.distance.tolist() == [[10, 30], [31, 10]]
    # The matrix itself is in what is resolved, which therefore needs no file.
    assert load(tomllib.loads(resolved_toml(scenario))) == scenario


def _toml(data: Data) -> str:
    import tomli_w

    return tomli_w.dumps(data)


def test_one_side_of_a_grid_gives_the_other() -> None:
    data = small(machine={"nodes": 6, "memory_per_node": "1MiB", "topology": {"kind": "mesh", "columns": 2}})
    topology = load(data).machine.topology
    assert (topology.rows, topology.columns) == (3, 2)


@pytest.mark.parametrize(
    ("topology", "text"),
    [
        ("mash", 'machine.topology: "mash" is neither a topology nor an existing file; did you mean "mesh"?'),
        ({"kind": "mesh", "rows": 4}, "machine.topology: has 4 nodes, but machine.nodes is 2"),
        ({"kind": "matrix", "matrix": ["10"]}, "machine.topology: has 1 nodes, but machine.nodes is 2"),
        ({"kind": "matrix"}, 'machine.topology.matrix: is missing; kind = "matrix" needs it'),
        ({"kind": "matrix", "matrix": ["10 x", "1 10"]}, "machine.topology.matrix: "),
        ({"kind": "file"}, 'machine.topology.path: is missing; kind = "file" needs it'),
        ({"kind": "ring", "rows": 2}, 'machine.topology.rows: has no meaning with kind = "ring"'),
        (
            {"kind": "fully-connected", "remote": 10},
            "machine.topology: the distance from node 0 to node 1 is 10",
        ),
        (
            {"kind": "sockets", "groups": [1, 1], "distances": [12, 21]},
            "machine.topology: 2 levels of groups need 3 distances, not 2",
        ),
        (3, "machine.topology: must be a table, not 3"),
    ],
)
def test_wrong_topologies(topology: object, text: str) -> None:
    assert text in message(small(machine={"nodes": 2, "memory_per_node": "1MiB", "topology": topology}))


# Overrides


def test_options_override_the_file() -> None:
    scenario = load("tiny", Overrides(nodes=4, seed=9, passes=2))
    numbers = Overrides(nodes=np.int64(4), seed=np.uint8(9), passes=np.int32(2))  # type: ignore[arg-type]
    assert scenario == load("tiny", numbers)
    assert (scenario.machine.nodes, scenario.simulation.seed, scenario.simulation.passes) == (4, 9, 2)
    assert to_spec(scenario).processes[0].count == 8


@pytest.mark.parametrize(
    ("setting", "found", "value"),
    [
        ("ksm.max_page_sharing=16", lambda s: s.ksm.max_page_sharing, 16),
        ("ksm.kernel=6.1", lambda s: s.ksm.kernel, "6.1"),
        ("process[0].per_node=4", lambda s: s.process[0].per_node, 4),
        ("process[0].name=other", lambda s: s.process[0].name, "other"),
        ("process[0].region[0].size=12KiB", lambda s: s.process[0].region[0].size, 3),
        ("process[0].region[0].write[0].rate=3", lambda s: s.process[0].region[0].write[0].rate, 3.0),
        ("process[0].region[3].write[0].stop=inf", lambda s: s.process[0].region[3].write[0].stop, math.inf),
        ("machine.topology=ring", lambda s: s.machine.topology.kind, "ring"),
        ("machine.topology.remote=30", lambda s: s.machine.topology.remote, 30),
        ("process[0].policy.kind=interleave", lambda s: s.process[0].policy.nodes, ()),
        ("process[0].policy={kind='bind', nodes=[1]}", lambda s: s.process[0].policy.nodes, (1,)),
        ("simulation.title = a=b", lambda s: s.simulation.title, "a=b"),
    ],
)
def test_set(setting: str, found: Callable[[Scenario], object], value: object) -> None:
    assert found(load("tiny", Overrides(settings=(setting,)))) == value


def test_set_goes_into_short_forms() -> None:
    data = small(machine={"nodes": 2, "memory_per_node": "1MiB", "topology": "ring"})
    assert load(data, Overrides(settings=("machine.topology.hop=9",))).machine.topology.hop == 9


def test_loading_leaves_the_data_alone() -> None:
    data = small()
    load(data, Overrides(nodes=5, settings=("process[0].count=3",)))
    assert data == SMALL


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("ksm.run", "--set ksm.run: not of the form key=value"),
        ("=3", "--set =3: not of the form key=value"),
        ("ksm..run=1", "not a path of keys such as ksm.run or process[0].count"),
        ("process[3].count=1", "--set process[3].count: there is no process[3]; the last is process[0]"),
        ("process.count=1", "--set process.count: process is not a table"),
        ("machine[0]=1", "--set machine[0]: machine is not a list"),
        ("machine.nodes.x=1", "--set machine.nodes.x: machine.nodes is not a table"),
        ("ksm.smrt_scan=1", '--set ksm.smrt_scan: unknown key; did you mean "smart_scan"?'),
        ("ksm.pages_to_scan=many", '--set ksm.pages_to_scan: must be a whole number, not "many"'),
    ],
)
def test_wrong_settings(setting: str, text: str) -> None:
    assert text in message("tiny", setting)


def test_files_in_settings_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("distances").write_text("10 15\n15 10\n")
    scenario = load("tiny", Overrides(settings=("machine.topology=distances",)))
    assert scenario.machine.topology.matrix == ((10, 15), (15, 10))


# Scaling


def test_pages_per_node() -> None:
    scenario = load("tiny", Overrides(pages_per_node=3160))
    sizes = {region.name: region.size for region in scenario.process[0].region}
    assert sizes == {"libc": 400, "heap-zero": 300, "cache": 240, "state": 640}
    assert scenario.process[0].region[2].distinct == 80
    # 3160 pages and an eighth do not fit into the 1024 of the file.
    assert scenario.machine.memory_per_node == 3160 + 395


def test_pages_per_node_keeps_a_page_and_the_memory() -> None:
    scenario = load("tiny", Overrides(pages_per_node=1))
    assert {region.size for region in scenario.process[0].region} == {1}
    assert scenario.machine.memory_per_node == 1024


def test_pages_per_node_out_of_range() -> None:
    assert message("tiny", pages_per_node=0) == "--pages-per-node: must be at least 1, not 0"


# Memory


def test_more_memory_than_the_machine_has() -> None:
    text = message(small(), "process[0].count=21")
    assert text == (
        "scenario: machine.memory_per_node: too little for the machine: 210 pages are mapped before any "
        "merging, but only 200 fit; at least 420KiB is needed"
    )
    load(small(), Overrides(settings=("process[0].count=20",)))


def test_more_memory_than_the_bound_nodes_have() -> None:
    text = message(small(), "process[0].count=11", "process[0].policy={kind='bind', nodes=[1]}")
    assert "too little for the memory bound to node 1: 110 pages" in text


def test_sets_of_bound_nodes_add_up() -> None:
    def process(name: str, count: int, nodes: list[int]) -> Data:
        return SMALL["process"][0] | {
            "name": name,
            "count": count,
            "policy": {"kind": "bind", "nodes": nodes},
        }

    machine = {"nodes": 3, "memory_per_node": "100 pages"}
    data = {"machine": machine, "process": [process("a", 9, [0]), process("b", 12, [0, 1])]}
    assert "bound to nodes 0, 1: 210 pages" in message(data)


def test_untouched_memory_takes_what_is_written_of_it() -> None:
    sets = ["process[0].region[0].model=untouched", "process[0].region[0].size=1000 pages"]
    load(small(), Overrides(settings=tuple(sets)))
    write = "process[0].region[0].write=[{rate=1, hot_fraction=0.3}]"
    assert "300 pages are mapped" in message(small(), *sets, write)


# Mistakes


def test_all_mistakes_are_told_at_once() -> None:
    data = small(ksm={"run": True, "sleep_milisecs": 3}, simulation={"pages_to_scan": 5}, machin={})
    assert message(data).splitlines() == [
        "scenario: simulation.pages_to_scan: unknown key; it belongs to [ksm]",
        "scenario: ksm.run: must be a whole number, not true",
        'scenario: ksm.sleep_milisecs: unknown key; did you mean "sleep_millisecs"?',
        'scenario: machin: unknown key; did you mean "machine"?',
    ]


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        (["process[0].region[0].sze=1"], 'process[0].region[0].sze: unknown key; did you mean "size"?'),
        (["process[0].region[0].xyz=1"], "unknown key; the keys here are name, size, model, mergeable"),
        (["process=[]"], "process: is empty; add a [[process]]"),
        (["process={}"], "process: must be a list of tables"),
        (["process[0].region[0].model=pool"], 'region[0].distinct: is missing; model = "pool" needs it'),
        (["process[0].region[0].law=zipf"], 'law: has no meaning with model = "unique", only with "pool"'),
        (["process[0].region[0].model=uniq"], '"uniq" is not one of "zero", "unique"'),
        (["process[0].region[0].size=3"], 'region[0].size: a size is text with a unit: "3 pages" or "3MiB"'),
        (["process[0].region[0].write[0].rate=-1"], "write[0].rate: must be at least 0.0, not -1"),
        (["process[0].region[0].write[0].rate=inf"], "write[0].rate: must be at most 1000000000.0, not inf"),
        (["process[0].region[0].write[0].rate=nan"], "write[0].rate: must be "),
        (["process[0].region[0].write[0].hot_fraction=0.2"], "write[0].rate: is missing"),
        (["process[0].region[0].write=[{rate=1, start=5, stop=4}]"], "stop: must be after start = 5.0"),
        (["process[0].region[0].write=[{rate=1, hot_fraction=0}]"], "hot_fraction: must be above 0.0, not 0"),
        (["process[0].region[1]={name='r', size='4KiB', model='zero'}"], '"r" is already in use'),
        (["process[0].per_node=1"], "process[0].per_node: cannot be given together with count"),
        (["process[0].replay_interval=1"], "replay_interval: has no meaning without snapshot"),
        (["process[0].clones='identical'"], "clones: has no meaning without snapshot"),
        (
            ["process[0].region[0].model=untouched", "process[0].region[0].pinned=true"],
            'pinned: has no meaning with model = "untouched", only with "zero"',
        ),
        (["process[0].workers=-1"], "process[0].workers: must be at least 0, not -1"),
        (["process[0].snapshot=gone.parquet"], "process[0].snapshot: there is no file /"),
        (["process[0].policy=bind"], 'process[0].policy.nodes: is missing; kind = "bind" needs it'),
        (["process[0].policy={kind='bind', nodes=[2]}"], "policy.nodes: there is no node 2; the last is 1"),
        (["process[0].policy={kind='bind', nodes=[0, 0]}"], "policy.nodes: names a node twice"),
        (["process[0].policy={kind='preferred', nodes=[0, 1]}"], "only one node can be preferred"),
        (["process[0].region[0].policy={kind='bind', nodes=[-1]}"], "policy.nodes: there is no node -1"),
        (["ksm.kernel=4.8", "ksm.smart_scan=1"], 'smart_scan: has no meaning with kernel = "4.8", only with'),
        (["ksm.kernel=6.1", "ksm.advisor_mode=none"], 'advisor_mode: has no meaning with kernel = "6.1"'),
        (["ksm.advisor_mode=fast"], 'ksm.advisor_mode: "fast" is not one of "none", "scan-time"'),
        (["ksm.advisor_target_scan_time=0"], "ksm.advisor_target_scan_time: must be at least 1, not 0"),
        (["ksm.advisor_min_pages_to_scan=0"], "ksm.advisor_min_pages_to_scan: must be at least 1, not 0"),
        (["ksm.advisor_max_pages_to_scan=0"], "ksm.advisor_max_pages_to_scan: must be at least 1, not 0"),
        (["ksm.advisor_max_cpu=-1"], "ksm.advisor_max_cpu: must be at least 0, not -1"),
        (["ksm.threads=per-node"], 'ksm.threads: "per-node" needs merge_across_nodes = 0: with 1'),
        (
            ["ksm.threads=per-node", "ksm.merge_across_nodes=0", "ksm.advisor_mode=scan-time"],
            'ksm.threads: "per-node" needs advisor_mode = "none": the advisor supports only one ksmd',
        ),
        (["ksm.history=steady", "ksm.run=0"], 'ksm.history: "steady" needs run = 1'),
        (["ksm.history_passes=3"], 'ksm.history_passes: needs history = "steady"'),
        (["ksm.threads=two"], 'ksm.threads: "two" is not one of "one", "per-node"'),
        (["ksm.kernel=3.10"], 'ksm.kernel: "3.10" is not one of "4.8", "6.1", "6.12", "6.16", "6.17"'),
        (["ksm.max_page_sharing=1"], "ksm.max_page_sharing: must be at least 2, not 1"),
        (["machine.nodes=0"], "machine.nodes: must be at least 1, not 0"),
        (["machine.nodes=2.0"], "machine.nodes: must be a whole number, not 2.0"),
        (["machine.nodes=1025"], "machine.nodes: must be at most 1024, not 1025"),
        (["process[0].name=''"], "process[0].name: must be text without control characters, and not empty"),
        ([r'process[0].name="\u001b[31m"'], "process[0].name: must be text without control characters"),
        (["process[0].region[0].mergeable=1"], "mergeable: must be true or false, not 1"),
    ],
)  # fmt: skip
def test_mistakes(sets: list[str], text: str) -> None:
    assert text in message(small(), *sets)


@pytest.mark.parametrize(
    ("region", "frames"),
    [
        ({"model": "unique"}, 100),
        ({"model": "unique", "write": [{"rate": 1.0, "hot_fraction": 0.25}]}, 100 + 9 * 25),
        ({"model": "unique", "pinned": True}, 10 * 100),
        ({"model": "untouched", "write": [{"rate": 1.0, "hot_fraction": 0.5}]}, 10 * 50),
    ],
)
def test_workers_need_frames_for_what_they_write(region: Data, frames: int) -> None:
    region |= {"name": "heap", "size": "100 pages"}
    process = [{"name": "pool", "count": 1, "workers": 9, "region": [region]}]
    fits = {"nodes": 1, "memory_per_node": f"{4 * frames}KiB"}
    load({"machine": fits, "process": process})
    text = message({"machine": fits | {"memory_per_node": f"{4 * frames - 4}KiB"}, "process": process})
    assert f"{frames} pages are mapped before any merging, but only {frames - 1} fit" in text


def test_scaling_counts_the_pages_of_workers() -> None:
    process = [{"name": "pool", "count": 2, "workers": 4, "region": [small()["process"][0]["region"][0]]}]
    scenario = load(small(process=process), Overrides(pages_per_node=500))
    assert scenario.process[0].region[0].size == 500 * scenario.machine.nodes // 10


def test_pools_of_one_name_are_of_one_size() -> None:
    pool = "{name = '%s', size = '4KiB', model = 'pool', pool = 'p', distinct = %d}"
    sets = [f"process[0].region[{i + 1}]={pool % (i, 3 + i)}" for i in range(2)]
    assert 'region[2].distinct: pool "p" has distinct = 3 in process[0].region[1]' in message(small(), *sets)


def test_a_snapshot_takes_the_place_of_regions(tmp_path: Path) -> None:
    (tmp_path / "app.parquet").touch()
    (tmp_path / "scenario.toml").write_text(
        '[machine]\nnodes = 1\nmemory_per_node = "1MiB"\n'
        '[[process]]\nname = "app"\ncount = 2\nsnapshot = "app.parquet"\nreplay_interval = 2\n'
    )
    process = to_spec(load(tmp_path / "scenario.toml")).processes[0]
    assert process == spec.ProcessSpec(
        "app", 2, (), snapshot=str(tmp_path / "app.parquet"), replay_interval=2.0
    )
    assert load(tmp_path / "scenario.toml").process[0].clones == "distinct"
    identical = load(tmp_path / "scenario.toml", Overrides(settings=("process[0].clones=identical",)))
    assert to_spec(identical).processes[0].clones is spec.Clones.IDENTICAL
    both = message(tmp_path / "scenario.toml", "process[0].workers=2")
    assert "process[0].workers: cannot be given together with snapshot, which has the processes" in both
    text = message(tmp_path / "scenario.toml", pages_per_node=5)
    assert text == "--pages-per-node: the scenario has no regions to scale, only snapshots"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[machine\n", "not TOML: "),
        (b'title = "\xff"', "not UTF-8 text (byte 9)"),
        (b"", "machine: is missing"),
    ],
)
def test_files_that_are_no_scenario(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_bytes(content)
    assert f"{file}: {text}" in message(file)


def test_absent_files(tmp_path: Path) -> None:
    assert message("tny") == 'there is no scenario tny; did you mean "tiny"?'
    compactions = "compaction-drain, compaction-gpu, compaction-zram"
    names = f"{compactions}, containers, default, ksm-compaction, tiny, vm-farm"
    assert f"the bundled scenarios are {names}" in message("quite-another")
    assert message(tmp_path / "x.toml") == f"there is no file {tmp_path / 'x.toml'}; check the name"
    assert message(tmp_path) == f"cannot read {tmp_path}: Is a directory"


def test_huge_pages_that_are_not_simulated() -> None:
    region = {"name": "r", "size": "4MiB", "model": "unique", "huge_pages": 0.5}
    data = small(process=[{"name": "a", "count": 1, "region": [region]}])
    data["machine"]["memory_per_node"] = "64MiB"
    assert to_spec(load(data)).processes[0].regions[0].huge_pages == 0.5
    assert to_spec(load(data | {"migration": {}})).processes[0].regions[0].huge_pages == 0.5
    region["pinned"] = True
    assert to_spec(load(data)).processes[0].regions[0].huge_pages == 0.5
    region["model"] = "untouched"
    del region["pinned"]
    assert 'huge_pages: has no meaning with model = "untouched"' in message(data)


def test_huge_pages_of_a_snapshot(tmp_path: Path) -> None:
    """As captured by default, with [migration], too."""
    path = tmp_path / "s"
    path.touch()
    process: Data = {"name": "a", "count": 1, "snapshot": str(path)}
    data: Data = {"machine": {"nodes": 1, "memory_per_node": "64MiB"}, "process": [process]}
    assert load(data).process[0].huge_pages == "as-captured"
    assert to_spec(load(data)).processes[0].huge_pages
    assert load(data | {"migration": {}}).process[0].huge_pages == "as-captured"
    process["huge_pages"] = "none"
    assert not to_spec(load(data)).processes[0].huge_pages
    assert "huge_pages: has no meaning without snapshot" in message(
        small(process=[SMALL["process"][0] | {"huge_pages": "none"}])
    )


def test_costs_come_from_a_file_and_settings_change_them(tmp_path: Path) -> None:
    file = tmp_path / "cost.toml"
    file.write_text("[cost]\nvisit_ns = 1.5\nmerge_ns = 7\n")
    data = small() | {"cost": {"checksum_ns": 2, "visit_ns": 3}}
    overrides = Overrides(cost=file, settings=("cost.merge_ns=9",))
    assert to_spec(load(data, overrides)).cost == spec.CostSpec(visit=1.5, checksum=2, merge=9)
    assert load_cost(file) == spec.CostSpec(visit=1.5, merge=7)
    assert load_cost(None) == spec.CostSpec()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "No such file or directory; give a file that can be read"),
        ("cost", "not TOML"),
        ("[ksm]", "has no table [cost]; `ksmcluster calibrate` writes one"),
        ("cost = 3", "has no table [cost]"),
        ("[cost]\nvisit_ns = -1", "visit_ns: must be at least 0"),
        ("[cost]\nvisit = 1", 'visit: unknown key; did you mean "visit_ns"?'),
    ],
)
def test_costs_that_cannot_be_read(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "cost.toml"
    if text is not None:
        file.write_text(text)
    for read in (lambda: load(small(), Overrides(cost=file)), lambda: load_cost(file)):
        with pytest.raises(UserError) as error:
            read()
        assert str(error.value).startswith(f"--cost {file}: {problem}")
