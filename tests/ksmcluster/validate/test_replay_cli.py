"""`ksmcluster replay`, through typer's test runner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from cluster.script.record import compare, load
from ksmcluster.commands.replay import replay
from tests.cluster.exact.oracle import KERNEL_RECORDS, RECORDS

app = typer.Typer()
app.command()(replay)
runner = CliRunner()

SCRIPT = """\
proc A
map A x 4
fill A x 0 4 const 5
mergeable A x
set max_page_sharing 0
scan 2
"""


def run(*arguments: object) -> Result:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "small.scn"
    path.write_text(SCRIPT)
    return path


def test_table(script: Path) -> None:
    result = run(script)
    assert result.exit_code == 0
    assert result.output == (
        "small (kernel 6.18, 1 node)\n"
        "step      full_scans  general_profit  scanned  shared  sharing  volatile\n"
        "scan@6.1           1            -256        4       0        0         4\n"
        "scan@6.2           2           12032        8       1        3         0\n"
        "line 5: set EINVAL\n"
    )


def test_json_of_a_folder(script: Path) -> None:
    script.with_name("other.scn").write_text("require nodes 3\nrecord here")
    result = run(script.parent, "--json", "--kernel", "4.8")
    other, one = [json.loads(line) for line in result.stdout.splitlines()]
    assert (one["scenario"], one["kernel"], one["topology"]["nodes"]) == ("small", "4.8", 1)
    assert one["text"] == SCRIPT
    assert other["topology"]["nodes"] == 3
    assert [record["label"] for record in one["records"]] == ["scan@6.1", "scan@6.2"]


def test_nodes(script: Path) -> None:
    document = json.loads(run(script, "--json", "--nodes", 4).stdout)
    assert document["records"][0]["regions"][0]["node"] == "0*4"
    skipped = script.with_name("skipped.scn")
    skipped.write_text("require nodes 8\nscan")
    assert run(skipped, "--nodes", 2).output == "skipped (kernel 6.18, 2 nodes): skipped, it requires nodes\n"


def test_output_compares_equal_to_itself(script: Path) -> None:
    document = json.loads(run(script, "--json").stdout)
    record = script.with_name("small.json")
    record.write_text(json.dumps({**document, "kernel": "6.18.44"}))
    result = run("--compare", record)
    assert (result.exit_code, result.output) == (0, "small ok\n1 of 1 equal\n")


def test_compare_names_the_first_difference(tmp_path: Path) -> None:
    documents = load(RECORDS / "qemu-6.1.0-50-n4.json.xz")
    documents[0]["records"][1]["sysfs"]["pages_shared"] += 1
    (tmp_path / "all.json").write_text(json.dumps(documents))
    (tmp_path / "speed.json").write_text('{"pages_per_second": 1}')
    result = run("--compare", tmp_path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("all/alternate differs: ")
    assert lines[0].split()[3] == "sysfs.pages_shared"
    assert lines[1] == "all/batch_end ok"
    assert lines[-1] == "11 of 12 equal"
    assert "speed.json: no records, skipped" in result.stderr

    as_data = run("--compare", tmp_path, "--json")
    assert as_data.exit_code == 1
    found = json.loads(as_data.stdout)
    assert (found["equal"], found["total"]) == (11, 12)
    assert found["records"][0]["difference"]["field"] == "sysfs.pages_shared"
    assert found["records"][1] == {"name": "all/batch_end", "equal": True, "difference": None}


STALE = """\
proc A
map A x 3
fill A x 0 1 const 1
fill A x 1 2 const 2
mergeable A x
scan 2
dontneed A x 1 2
batch 1
"""


def test_compare_says_what_hangs_on_the_shape_of_a_tree(script: Path) -> None:
    script.write_text(STALE)
    record = script.with_name("small.json")
    record.write_text(run(script, "--json").stdout)

    equal = json.loads(run("--compare", record, "--engine", "inline", "--json").stdout)
    assert equal["records"] == [
        {"name": "small", "equal": True, "difference": None, "reasons": {"stale-stable": ["batch@8"]}}
    ]

    without = ("--compare", record, "--engine", "inline", "--no-tree-shape")
    [line, _] = run(*without).stdout.splitlines()
    assert line == "small differs: batch@8 sysfs.general_profit 3904 -192 (stale-stable since batch@8)"
    [differing] = json.loads(run(*without, "--json").stdout)["records"]
    assert differing["reasons"] == {"stale-stable": ["batch@8"]}
    assert differing["difference"]["reasons"] == ["stale-stable"]


def test_a_difference_before_the_reason_has_none(script: Path) -> None:
    script.write_text(STALE)
    document = json.loads(run(script, "--json").stdout)
    document["records"][0]["sysfs"]["pages_shared"] = 7
    record = script.with_name("small.json")
    record.write_text(json.dumps(document))
    assert run("--compare", record).stdout.splitlines()[0] == "small differs: scan@6.1 sysfs.pages_shared 0 7"
    [differing] = json.loads(run("--compare", record, "--json").stdout)["records"]
    assert differing["difference"]["reasons"] == []


def test_names_from_records_stay_on_their_line(script: Path) -> None:
    document = json.loads(run(script, "--json").stdout)
    record = script.with_name("x.json")
    record.write_text(json.dumps([{**document, "scenario": name} for name in ("a\nb", "\ud800")]))
    assert run("--compare", record).stdout == "x/a\\nb ok\nx/\\ud800 ok\n2 of 2 equal\n"


def test_compare_a_folder_of_archives() -> None:
    result = run("--compare", RECORDS / "qemu-6.18.15-n2.json.xz")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "3 of 3 equal"


def test_mistakes_in_scripts(script: Path) -> None:
    script.write_text("proc A\nmap A x 4\nfill A x 0 9 zero\n")
    result = run(script)
    assert result.exit_code == 2
    assert result.stderr == f"{script}:3:12: the number of pages cannot be 9; write 0 to 4\n"
    script.write_bytes(b"proc A\nproc \xff\n")
    assert run(script).stderr == f"{script}:2:6: this byte is not UTF-8; save the script as text\n"
    script.write_text("proc A\nmap A x 4\nunmap A x 0 4\nread A x")
    assert run(script).stderr.startswith(f"{script}:4:1: page 0 of A x is not mapped")


def test_a_record_on_another_kernel() -> None:
    """A page written with the same content merges at once up to 7.2, and one pass later on 7.3."""
    records = KERNEL_RECORDS / "qemu-7.2.13-n4.json.xz"
    assert run("--compare", records).output.endswith("15 of 15 equal\n")
    other = run("--compare", records, "--kernel", "7.3.4")
    assert other.exit_code == 1
    assert "leave_ways differs: scan@" in other.output
    assert "  sysfs.pages_sharing: " in other.output
    newer = run("--compare", records, "--kernel", "9.0")
    assert newer.stderr == "kernel 9.0 is not known; it is taken as 7.3, the newest known one\n"
    assert newer.stdout == other.stdout


def test_on_another_kernel_every_difference_is_listed(script: Path) -> None:
    """6.12 lacks two fields of ksm_stat; else these kernels do the same."""
    text = "proc A\nmap A x 4\nfill A x 0 2 const 5\nmergeable A x\nscan 2\nfill A x 2 2 const 5\nscan 2"
    script.write_text(text)
    record = script.with_name("small.json")
    record.write_text(run(script, "--json", "--kernel", "6.18").stdout)
    arguments = ("--compare", record, "--kernel", "6.17")
    assert run(*arguments).output == "small ok\n1 of 1 equal\n"
    arguments = ("--compare", record, "--kernel", "6.12")
    lines = run(*arguments).stdout.splitlines()
    assert lines[0].startswith("small differs: scan@5.1 procs.A.ksm_merge")
    missing = [line for line in lines if line.startswith("  ")]
    assert missing == [
        '  procs.A.ksm_merge_any: - "no" at scan@5.1 and 3 more',
        '  procs.A.ksm_mergeable: - "yes" at scan@5.1 and 3 more',
    ]
    [found] = json.loads(run(*arguments, "--json").stdout)["records"]
    assert len(found["differences"]) == 8
    assert found["differences"][0].items() <= found["difference"].items()


def test_what_is_chance_is_not_compared(script: Path) -> None:
    document = json.loads(run(script, "--json").stdout)
    document["records"][1]["sysfs"]["pages_shared"] = 7
    record = script.with_name("small.json")
    record.write_text(json.dumps(document | {"nondeterministic": ["records[1].sysfs.pages_shared"]}))
    result = run("--compare", record)
    chance = "(chance, not compared: records[1].sysfs.pages_shared)"
    assert (result.exit_code, result.output) == (0, f"small ok {chance}\n1 of 1 equal\n")


def test_measured_times_are_not_compared(tmp_path: Path) -> None:
    times = tmp_path / "bench.json"
    times.write_text(json.dumps({"kernel": "6.18.44", "cpu": "AMD EPYC", "results": []}))
    result = run("--compare", times)
    assert result.exit_code == 0
    assert result.stderr == f"{times}: measured times, which are chance: nothing is compared\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "steam"], "no such engine; choose exact"),
        (["--kernel", "2.6"], "no such kernel; choose one of 4.8, 6.1, 6.12, 6.16, 6.17, 6.18"),
        (["--nodes", "0"], "not possible; choose 1 to 1024"),
        (["--compare", "--nodes", "2"], "leave out --nodes"),
        (["--compare"], "not JSON"),
        (["--no-tree-shape"], "choose --engine inline or ray"),
        (["missing.scn"], "missing.scn: no such file or folder"),
    ],
)
def test_mistakes_in_arguments(script: Path, arguments: list[str], says: str) -> None:
    result = run(*arguments, script)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_mistakes_in_records(tmp_path: Path) -> None:
    [document, *_] = load(RECORDS / "qemu-6.18.15-n2.json.xz")
    path = tmp_path / "x.json"
    broken = {
        '{"a": 1}': "no records; give files or folders of records",
        json.dumps({**document, "kernel": "abacus"}): "not a kernel release",
        json.dumps({**document, "topology": {"nodes": 0, "swap": False}}): "it must have 1 to 1024",
        json.dumps({**document, "text": "proc A\nfly"}): ":2:1: fly is not a known operation",
    }
    for text, says in broken.items():
        path.write_text(text)
        result = run("--compare", path)
        assert result.exit_code == 2
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_folders_without_anything_to_do(tmp_path: Path) -> None:
    assert "no *.scn in this folder" in run(tmp_path).stderr
    assert "no *.json or *.json.xz in this folder" in run("--compare", tmp_path).stderr


LINES = st.sampled_from(
    [
        *SCRIPT.splitlines(),
        "proc B",
        "map B y 3 node 1",
        "fill B y 0 3 rand0 7 4 step 2",
        "fill A x 1 2 mod 3 2 if 9 2",
        "fork A B",
        "exit A",
        "mergeable B",
        "unmergeable A x 1 2",
        "unmap A x 2",
        "dontneed A x",
        "pageout A x 0 3",
        "read A x",
        "move A x 0 4 1",
        "merge_any A",
        "merge_any A off",
        "exec A",
        "poison A x 0 4",
        "soft_offline A x",
        "unmerge_all",
        "batch 3",
        "record here",
        "require swap",
        "set use_zero_pages 1",
        "scan 9999999",
        "",
    ]
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(LINES | st.text(max_size=12), max_size=25).map("\n".join))
def test_no_script_gives_a_traceback(script: Path, text: str) -> None:
    script.write_text(text, newline="")
    result = run(script, "--json")
    assert result.exit_code in (0, 2)
    if result.exit_code == 2:
        assert result.stderr.startswith(f"{script}:")
        assert len(result.stderr.splitlines()) == 1
    else:
        document = json.loads(result.stdout)
        assert compare(document, document) is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_no_bytes_give_a_traceback(script: Path, data: bytes) -> None:
    script.write_bytes(data)
    assert run(script).exit_code in (0, 2)
    record = script.with_name("x.json")
    record.write_bytes(data)
    assert run("--compare", record).exit_code in (0, 2)
