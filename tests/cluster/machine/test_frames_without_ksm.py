"""The frames that would be in use without KSM, against a machine that has none: a set of frames, counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.machine.coordinator import Machine
from cluster.machine.fabric import InlineFabric
from cluster.spec.captured_pages import (
    CapturedMapping,
    CapturedMoment,
    CapturedPages,
    CapturedProcess,
    OutsideMappers,
    SharedFrames,
)
from cluster.spec.scenario import (
    CapturedLayout,
    Clones,
    KsmSpec,
    MachineSpec,
    PolicyMode,
    PolicySpec,
    ProcessSpec,
    SimulationSpec,
)
from cluster.spec.topology import ring
from tests.cluster.machine.random_workload import KNOBS

PROCESSES, PAGES = 3, 5
#: A page at a moment: its content, and whether it was written; None if it is not there.
Page = tuple[int, bool] | None
#: By process and page.
Moment = list[list[Page]]

#: By process and page: the number of a frame that processes share, -1 for one of the page's own.
frames = st.lists(st.permutations([0, 1, 2, 3, -1, -1]), min_size=PROCESSES, max_size=PROCESSES)
moments = st.lists(
    st.lists(
        st.lists(st.none() | st.tuples(st.integers(0, 2), st.booleans()), min_size=PAGES, max_size=PAGES),
        min_size=PROCESSES,
        max_size=PROCESSES,
    ),
    min_size=1,
    max_size=3,
)
steps = st.lists(st.sampled_from(["scan", "scan", "scan", "moment", "unmerge"]), max_size=12)


@dataclass
class WithoutKsm:
    """What maps which frame if there is no KSM."""

    #: By process and page: the name of the frame.
    mapped: dict[tuple[int, int], Any]
    outside: set[Any]
    contents: dict[tuple[int, int], int] = field(default_factory=dict)

    def go_on(self, moment: Moment) -> None:
        for process, pages in enumerate(moment):
            for vpn, page in enumerate(pages):
                self._go_on((process, vpn), page)

    def _go_on(self, where: tuple[int, int], page: Page) -> None:
        if page is None:
            self.mapped.pop(where, None)
            self.contents.pop(where, None)
        elif page[1] or self.contents.get(where) != page[0]:
            # A page that is written has a frame of its own from then on, whatever it had before.
            self.mapped[where], self.contents[where] = where, page[0]

    def frames_used(self) -> int:
        return len({*self.mapped.values(), *self.outside})


def _moment(pages: list[Page]) -> CapturedMoment:
    there = [(vpn, *page) for vpn, page in enumerate(pages) if page is not None]
    vpn, content, written = (np.array([row[i] for row in there]) for i in range(3))
    own = np.zeros(len(there), np.bool_)
    return CapturedMoment(vpn.astype(np.int64), content.astype(np.uint64), own, written.astype(np.bool_))


def _captured(first: Moment, later: list[Moment], names: list[list[int]], outside: set[int]) -> Any:
    """Return captured pages, and the machine without KSM at the first moment."""
    without = WithoutKsm({}, set())
    owners: dict[int, tuple[int, int]] = {}
    shared: list[list[tuple[int, int, int]]] = [[] for _ in range(PROCESSES)]
    mapped_outside: list[list[tuple[int, int]]] = [[] for _ in range(PROCESSES)]
    for process, pages in enumerate(first):
        for vpn, page in enumerate(pages):
            if page is None:
                continue
            number, where = names[process][vpn], (process, vpn)
            without.contents[where] = page[0]
            without.mapped[where] = where if number < 0 else ("frame", number)
            if number >= 0 and number in owners:
                shared[process].append((*owners[number], vpn))
            elif number >= 0:
                owners[number] = where
                if number in outside:
                    mapped_outside[process].append((vpn, 2))
                    without.outside.add(("frame", number))
    mapping = CapturedMapping("", 0, PAGES, advised=True)
    processes = tuple(
        CapturedProcess(
            "p",
            (mapping,),
            tuple(_moment(m[i]) for m in (first, *later)),
            family=0,
            shared=SharedFrames(*np.array(shared[i], np.int64).reshape(-1, 3).T),
            outside=OutsideMappers(*np.array(mapped_outside[i], np.int64).reshape(-1, 2).T),
        )
        for i in range(PROCESSES)
    )
    times = tuple(float(i) for i in range(len(later) + 1))
    return CapturedPages(processes, times), without


def _one_content_a_frame(first: Moment, names: list[list[int]]) -> None:
    contents: dict[int, int] = {}
    for process, pages in enumerate(first):
        for vpn, page in enumerate(pages):
            number = names[process][vpn]
            if page is not None and number >= 0:
                pages[vpn] = (contents.setdefault(number, page[0]), page[1])


def _twice(content: int, number: int) -> tuple[Moment, list[list[int]]]:
    """Three processes of which each maps one frame, and has a second of the same content."""
    return [[(content, False)] * 2 + [None] * 3] * 3, [[number, -1, -1, -1, -1]] * 3


@settings(max_examples=300, deadline=None)
@given(KNOBS, moments, frames, st.sets(st.integers(0, 3)), steps, st.booleans())
# Every path that a page can take out of a frame that was mapped outside and became a KSM frame.
@example(
    KsmSpec(smart_scan=0),
    [[[(1, False), *[None] * 4], [None] * 5, [(1, False), *[None] * 4]], [[None] * 5] * 3],
    [[-1] * 5, [-1] * 5, [0, *[-1] * 4]],
    {0},
    ["scan"] * 3 + ["moment"],
    False,
)
@example(KsmSpec(smart_scan=0), [_twice(1, 0)[0]], _twice(1, 0)[1], set(), ["scan"] * 3 + ["unmerge"], False)
def test_frames_without_ksm_are_those_of_a_machine_without_it(
    knobs: KsmSpec,
    captured: list[Moment],
    names: list[list[int]],
    outside: set[int],
    does: list[str],
    away: bool,
) -> None:
    first, *later = [[list(pages) for pages in moment] for moment in captured]
    _one_content_a_frame(first, names)
    pages, without = _captured(first, later, names, outside)
    policy = PolicySpec(PolicyMode.INTERLEAVE, (0, 1)) if away else PolicySpec()
    layout = CapturedLayout((0,) * PROCESSES, (True,) * PROCESSES, (0.0,), (0.0,) * PROCESSES)
    kind = ProcessSpec("k", 3, (), snapshot="s", layout=layout, policy=policy, clones=Clones.IDENTICAL)
    spec = SimulationSpec(MachineSpec(2, 40, ring(2)), knobs, (kind,))
    machine = Machine(InlineFabric(spec, {"s": pages}), knobs)
    machine.populate(spec.processes)
    time = 0
    for do in does:
        if do == "scan":
            machine.scan()
        elif do == "unmerge":
            machine.unmerge_all()
        elif time < len(later):
            machine.tick(time + 0.5, time + 1.5)
            without.go_on(later[time])
            time += 1
        assert machine.collect()["frames_without_ksm"].sum() == without.frames_used()
