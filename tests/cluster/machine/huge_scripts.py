"""Random scripts with huge pages, on small machines."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from cluster.script.runner import ScriptTopology
from cluster.spec.profile import PROFILES
from tests.cluster.machine.scripts import Script

KERNELS = tuple(PROFILES)
KNOBS = {
    "max_page_sharing": (2, 3, 4, 256),
    "merge_across_nodes": (0, 1),
    "use_zero_pages": (0, 1),
    "smart_scan": (0, 1),
    "stable_node_chains_prune_millisecs": (0, 2000),
}
ACTIONS = ["fill"] * 5 + ["scan"] * 5 + ["fork", "fork", "collapse", "collapse", "dontneed", "unmap", "move"]
ACTIONS += ["read", "pageout", "mergeable", "unmergeable", "unmerge_all", "exit", "knob", "merge_any", "huge"]
#: The life of processes and frames.
LIFE = ["exec", "soft_offline"] + ["poison"] * 3


@dataclass
class _Writer:
    """Writes lines; knows the processes, and how many pages of their regions are mapped, from page 0."""

    draw: st.DrawFn
    nodes: int
    lines: list[str] = field(default_factory=list)
    regions: dict[str, dict[str, int]] = field(default_factory=dict)
    started: int = 0

    def write(self, *words: object) -> None:
        self.lines.append(" ".join(str(word) for word in words))

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def one_of(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))

    def pattern(self) -> object:
        seed = self.number(0, 9)
        return self.one_of(
            "zero",
            f"const {self.number(0, 4)}",
            f"mod 1 {self.number(1, 40)}",
            f"rand0 {seed} {self.number(1, 60)}",
            f"rand {seed} 400",
            f"seq {self.number(1, 900)}",
        )

    def knob(self) -> None:
        knob = str(self.one_of(*sorted(KNOBS)))
        self.write("set", knob, self.one_of(*KNOBS[knob]))

    def name(self) -> str:
        self.started += 1
        return f"P{self.started}"

    def new(self) -> None:
        p = self.name()
        self.write("proc", p)
        self.map(p)

    def map(self, p: str) -> None:
        self.regions[p] = {}
        for r in ("x", "y"):
            huge = self.number(0, 3) > 0
            pages = int(str(self.one_of(512, 600, 1024))) if huge else self.number(1, 40)
            lazy = ["lazy"] if huge and self.number(0, 3) == 0 else []
            self.write(
                "hugemap" if huge else "map", p, r, pages, *lazy, "node", self.number(0, self.nodes - 1)
            )
            self.regions[p][r] = pages
            start = int(str(self.one_of(0, 0, self.number(0, pages - 1))))
            self.write("fill", p, r, start, pages - start, self.pattern())
            self.write("mergeable", p, r)

    def act(self, action: str) -> None:
        if action == "scan":
            self.write("scan", self.number(1, 2))
        elif action == "batch":
            self.write("batch", self.one_of(1, 1, 5, self.number(1, 1500)))
        elif action == "unmerge_all":
            self.write(action)
        elif action == "knob":
            self.knob()
        elif self.regions:
            self.touch(action, str(self.one_of(*sorted(self.regions))))

    def touch(self, action: str, p: str) -> None:
        if action == "fork":
            if len(self.regions) < 4:
                q = self.name()
                self.write("fork", p, q)
                self.regions[q] = dict(self.regions[p])
        elif action == "exit":
            self.write("exit", p)
            del self.regions[p]
        elif action == "merge_any":
            self.write("merge_any", p)
        elif action == "exec":
            self.write("exec", p)
            self.map(p)
        else:
            self.touch_range(action, p, str(self.one_of(*self.regions[p])))

    def touch_range(self, action: str, p: str, r: str) -> None:
        pages = self.regions[p][r]
        if pages == 0:
            return
        start = int(str(self.one_of(0, 0, self.number(0, pages - 1))))
        count = int(str(self.one_of(min(512, pages - start), self.number(1, pages - start))))
        if action in LIFE:
            count = self.number(1, min(3, pages - start))
        if action == "unmap":
            # From the end, so that what is left has no hole.
            count, self.regions[p][r] = pages - start, start
        more = {"fill": [self.pattern()], "move": [self.number(0, self.nodes - 1)]}
        self.write(action, p, r, start, count, *more.get(action, []))


@st.composite
def huge_scripts(draw: st.DrawFn, *, quiet: bool = False, life: bool = False) -> Script:
    """With `quiet`, nothing happens between batches in the middle of a pass.

    With `life`, there are exec, memory failure and soft offline.
    """
    topology = ScriptTopology(draw(st.integers(1, 3)), swap=draw(st.booleans()))
    writer = _Writer(draw, topology.nodes)
    for _ in range(draw(st.integers(0, 3))):
        writer.knob()
    for _ in range(draw(st.integers(1, 2))):
        writer.new()
    actions = ACTIONS if quiet else ACTIONS + ["batch"] * 6
    actions = actions + LIFE if life else actions
    for action in draw(st.lists(st.sampled_from(actions), min_size=3, max_size=12)):
        writer.act(action)
    writer.write("scan 2")
    return Script(draw(st.sampled_from(KERNELS)), topology, "\n".join(writer.lines))
