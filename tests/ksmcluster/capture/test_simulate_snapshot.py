"""Captured memory, simulated: what ksmd would save on real processes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, pairwise, repeat
from pathlib import Path
from threading import Event

from actors.run_options import INLINE
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from cluster.spec.scenario import KsmSpec, MachineSpec, ProcessSpec, SimulationSpec
from cluster.spec.topology import fully_connected
from ksmcluster.snapshot import Snapshot
from ksmcluster.snapshot.load import load_pages, with_layouts
from tests.ksmcluster.capture.conftest import Child, Run, started

NO_LIMIT = 1 << 20


def simulated(snapshot: Path, processes: int, passes: int = 3, **replay: float) -> list[PassResult]:
    """The snapshot's processes on a machine of three nodes, nothing limiting the sharing."""
    spec = SimulationSpec(
        machine=MachineSpec(3, 1 << 17, fully_connected(3)),
        ksm=KsmSpec(max_page_sharing=NO_LIMIT, smart_scan=0, pages_to_scan=1000),
        processes=(ProcessSpec("captured", processes, (), snapshot=str(snapshot), **replay),),
        passes=passes,
    )
    snapshots = load_pages([str(snapshot)])
    return list(run_passes(with_layouts(spec, snapshots), INLINE, snapshots=snapshots))


def total(result: PassResult, name: str) -> int:
    return int(result.nodes[name].sum())


def test_three_processes_merge_as_counted_by_hand(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "three.parquet"
    with ExitStack() as stack:
        children = [stack.enter_context(started(tmp_path / f"child{i}")) for i in range(3)]
        pids = [arg for c in children for arg in ("--pid", c.pid)]
        assert run(*pids, "--output", output, "--quiet").exit_code == 0

    with Snapshot.open(output) as snapshot:
        counts: Counter[int] = Counter()
        for index in range(3):
            counts.update(snapshot.pages(index)[1].tolist())
            vpns, contents = snapshot.pages(index)
            start = children[index].vpn["known"]
            known = contents[(vpns >= start) & (vpns < start + 16)]
            # Four equal pages, three different ones, two of zeros; the rest was never written.
            assert sorted(Counter(known.tolist()).values()) == [1, 1, 1, 2, 4]
            # 1024 different pages, each the same in all three processes.
            start = children[index].vpn["large"]
            assert len(set(contents[(vpns >= start) & (vpns < start + 1024)].tolist())) == 1024

    first, second, third = simulated(output, 3)
    assert total(first, "pages_volatile") == total(first, "rmap_items") == sum(counts.values())
    assert total(second, "pages_shared") == sum(1 for n in counts.values() if n > 1)
    assert total(second, "pages_sharing") == sum(n - 1 for n in counts.values() if n > 1) >= 2 * 1024 + 3 * 3
    assert total(second, "pages_unshared") == sum(1 for n in counts.values() if n == 1)
    assert {k: v.tolist() for k, v in third.nodes.items() if k.startswith("pages_sh")} == {
        k: v.tolist() for k, v in second.nodes.items() if k.startswith("pages_sh")
    }


def changing(child: Child, folder: Path, ended: Event) -> None:
    """What the process does while it is captured into that folder, as long as it takes."""
    while not any(folder.iterdir()) and not ended.wait(0.01):
        pass
    for command in chain(("write", "write", "unmap"), repeat("write")):
        if ended.wait(0.2):
            return
        child.tell(command)


def test_moments_replay_as_writes(child: Child, run: Run, tmp_path: Path) -> None:
    output = tmp_path / "captured" / "moments.parquet"
    output.parent.mkdir()
    ended = Event()
    with ThreadPoolExecutor() as threads:
        changes = threads.submit(changing, child, output.parent, ended)
        try:
            done = run("--pid", child.pid, "--output", output, "--quiet", "--interval", 0.5, "--count", 3)
        finally:
            ended.set()
        changes.result()
    assert done.exit_code == 0
    with Snapshot.open(output) as snapshot:
        moments = [dict(zip(*(a.tolist() for a in snapshot.pages(0, m)), strict=True)) for m in range(3)]
    written = [
        sum(1 for vpn, content in now.items() if before.get(vpn) != content)
        for before, now in pairwise(moments)
    ]
    assert moments[0] != moments[-1]
    results = simulated(output, 1, passes=4, replay_interval=1e-3)
    assert sum(total(r, "pages_written") for r in results) == sum(written)
    assert total(results[-1], "pages_mapped") == len(moments[-1])
