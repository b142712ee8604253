"""What both engines share is covered by records of real kernels: break a rule, and a record differs.

docs/explanation/exact.md lists all records that find each of these mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import cluster.exact.engine
import cluster.script.sysfs
from cluster.arrays.rbtree import RIGHT, RbNode, RbTree
from cluster.mm.anon_vma import AnonVmas
from cluster.script.record import compare
from cluster.spec.content import mix
from cluster.spec.profile import PROFILES
from tests.paths import DOCS

from .oracle import KERNEL_RECORDS, LIFE_RECORDS, RECORDS, THP_RECORDS, documents, replay

FOLDERS = (RECORDS, THP_RECORDS, KERNEL_RECORDS, LIFE_RECORDS)
DOCUMENTS = {name: document for folder in FOLDERS for name, document in documents(folder).items()}
Break = Callable[[pytest.MonkeyPatch], None]


def _returns(owner: object, name: str, value: object) -> Break:
    """A function or method that returns the same whatever it is given."""
    return lambda patch: patch.setattr(owner, name, lambda *_, **__: value)


def _inverted(switch: str) -> Break:
    def break_it(patch: pytest.MonkeyPatch) -> None:
        for name, profile in list(PROFILES.items()):
            patch.setitem(PROFILES, name, replace(profile, **{switch: not getattr(profile, switch)}))

    return break_it


def _joins_without_anon_vma(patch: pytest.MonkeyPatch) -> None:
    def absorb(self: AnonVmas, at: int) -> None:
        self._vmas[at].end = self._vmas.pop(at + 1).end

    patch.setattr(AnonVmas, "_absorb", absorb)


def _splits_nothing(patch: pytest.MonkeyPatch) -> None:
    def madvise(self: AnonVmas, start: int, end: int, *, mergeable: bool, into_bare: bool) -> None:
        for vma in self._vmas:
            if vma.start < end and vma.end > start:
                vma.mergeable = mergeable

    patch.setattr(AnonVmas, "madvise", madvise)


def _merges_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AnonVmas, "_merge", lambda _, at, *, into_bare: at)


def _balances_nothing(patch: pytest.MonkeyPatch) -> None:
    for name in ("_balance_after_insert", "_balance_after_erase"):
        patch.setattr(RbTree, name, lambda *_: None)


def _predecessor_replaces(patch: pytest.MonkeyPatch) -> None:
    erase = RbTree.erase

    def other(self: RbTree[RbNode], node: RbNode) -> None:
        heir, right = node.child
        if heir is None or right is None:
            erase(self, node)
            return
        while (last := heir.child[RIGHT]) is not None:
            heir = last
        erase(self, heir)
        self.replace(node, heir)

    patch.setattr(RbTree, "erase", other)


def _little_endian(patch: pytest.MonkeyPatch) -> None:
    def page_key(contents: np.ndarray) -> list[int]:
        return [key if content else -1 for content, key in zip(contents, mix(contents).tolist(), strict=True)]

    patch.setattr(cluster.exact.engine, "page_key", page_key)


@pytest.mark.parametrize(
    ("break_it", "record"),
    [
        pytest.param(_returns(AnonVmas, "needs_copy", True), "host-6.18-vma/vma_read", id="fork"),
        pytest.param(_splits_nothing, "qemu-6.1.0-53-n1/vma_split", id="split"),
        pytest.param(_merges_nothing, "host-6.18-vma/vma_three", id="join"),
        pytest.param(_joins_without_anon_vma, "qemu-6.1.0-53-n1/vma_over", id="joined anon_vma"),
        pytest.param(_returns(AnonVmas, "lineage", ()), "qemu-6.18.15-n8/numa_mix_09", id="rmap of forks"),
        pytest.param(_returns(AnonVmas, "munmap", None), "host-6.18-vma/vma_unmap", id="munmap"),
        pytest.param(_returns(AnonVmas, "merge_any", None), "host-6.18-vma/vma_any", id="merge_any"),
        pytest.param(_balances_nothing, "host-6.18/zero_max", id="balance"),
        pytest.param(_predecessor_replaces, "host-6.18/mix_10", id="successor"),
        pytest.param(_little_endian, "host-6.18/unstable_corrupt", id="memcmp"),
        pytest.param(_inverted("checksum_first"), "qemu-6.1.0-50-n4/join_stable", id="checksum_first"),
        pytest.param(_inverted("chains"), "qemu-6.1.0-50-n4/max_sharing_3", id="chains"),
        pytest.param(
            _inverted("collapse_always"), "qemu-6.1.0-50-n4/numa_move_4_across0", id="collapse_always"
        ),
        pytest.param(_inverted("track_zero_pages"), "host-6.18/zero_on", id="track_zero_pages"),
        pytest.param(_inverted("fork_copies_counts"), "qemu-6.1.0-50-n4/fork_max", id="fork_copies_counts"),
        pytest.param(_inverted("merge_any"), "host-6.18/merge_any", id="PR_SET_MEMORY_MERGE"),
        pytest.param(_inverted("into_bare"), "qemu-6.1.0-53-n1/vma_left", id="into_bare"),
        pytest.param(
            _inverted("split_maps_zero_page"), "qemu-6.12.117-n4/thp_zero_on", id="split_maps_zero_page"
        ),
        pytest.param(
            _inverted("huge_zero_page_cow"), "qemu-6.12.117-n4/thp_huge_zero", id="huge_zero_page_cow"
        ),
        pytest.param(_inverted("collapse_read_only"), "host-6.18/thp_collapse", id="collapse_read_only"),
        pytest.param(
            _inverted("split_stops_at_pmd"), "qemu-6.18.15-n4/thp_fork_three", id="split_stops_at_pmd"
        ),
        pytest.param(_inverted("frees_page_tables"), "host-6.18-more/huge_refill", id="frees_page_tables"),
        pytest.param(_inverted("reuse_of_huge_page"), "host-6.18-more/huge_reuse", id="reuse_of_huge_page"),
        pytest.param(_inverted("leaving_forgets"), "qemu-7.3.4-n4/leave_smart", id="leaving_forgets"),
        pytest.param(
            _inverted("fork_misses_zero_pages"),
            "qemu-6.16.12-n4/fork_counts_zero",
            id="fork_misses_zero_pages",
        ),
        pytest.param(_inverted("memory_failure"), "qemu-6.1.0-56-n4/poison_ksm", id="memory_failure"),
        pytest.param(
            _inverted("refuses_huge_zero_page"), "qemu-7.2.12-n4/thp_poison_zero", id="refuses_huge_zero_page"
        ),
        pytest.param(
            _inverted("refuses_zero_page"), "qemu-7.3.4-n4/soft_offline_zero", id="refuses_zero_page"
        ),
        pytest.param(
            _inverted("split_stops_at_pmd"), "qemu-6.16.12-n4/thp_soft_offline_fork", id="splits before 6.18"
        ),
        pytest.param(
            _inverted("idle_loses_merge_any"), "qemu-6.17.13-n4/merge_any_idle", id="idle_loses_merge_any"
        ),
        pytest.param(
            _returns(cluster.script.sysfs.Sysfs, "_trees_in_use", False), "host-6.18/knob_busy", id="EBUSY"
        ),
        pytest.param(
            _returns(cluster.script.sysfs, "overflows", False),
            "host-6.18-more/knob_merge_across_nodes",
            id="ERANGE",
        ),
    ],
)
def test_a_record_finds_a_mistake(break_it: Break, record: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = DOCUMENTS[record]
    assert compare(replay(document), document) is None
    break_it(monkeypatch)
    assert compare(replay(document), document) is not None
    name = record.partition("/")[2]
    assert f"{name}`" in (DOCS / "explanation" / "exact.md").read_text()
