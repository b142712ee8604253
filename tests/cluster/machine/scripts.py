"""Random scenario scripts of every operation, on small machines."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from cluster.script.runner import ScriptTopology
from cluster.spec.profile import PROFILES

KNOBS = {
    "max_page_sharing": (2, 3, 256),
    "merge_across_nodes": (0, 1),
    "use_zero_pages": (0, 1),
    "smart_scan": (0, 1),
    "stable_node_chains_prune_millisecs": (0, 2000),
}
ACTIONS = ["fill"] * 6 + ["batch"] * 6 + ["scan"] * 5 + ["move"] * 3 + ["read"] * 2 + ["new", "fork", "exit"]
PINNING = ["pin"] * 3
ACTIONS += ["dontneed", "unmap", "mergeable", "unmergeable", "pageout", "knob", "unmerge_all", "merge_any"]
#: The life of processes and frames.
LIFE = ["exec"] * 3 + ["poison"] * 4 + ["soft_offline"] * 2 + ["merge_any"] * 2 + ["merge_any_off"]


@dataclass(frozen=True)
class Script:
    """A script, and what it is to run on."""

    kernel: str
    topology: ScriptTopology
    text: str


@dataclass
class _Writer:
    """Writes lines; knows the processes, and which pages of their regions are mapped."""

    draw: st.DrawFn
    nodes: int
    pages: int
    lines: list[str] = field(default_factory=list)
    mapped: dict[str, dict[str, list[bool]]] = field(default_factory=dict)
    started: int = 0

    def write(self, *words: object) -> None:
        self.lines.append(" ".join(str(word) for word in words))

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def knob(self) -> None:
        knob = self.draw(st.sampled_from(sorted(KNOBS)))
        self.write("set", knob, self.draw(st.sampled_from(KNOBS[knob])))

    def pattern(self) -> str:
        kinds = (
            f"const {self.number(0, 4)}",
            f"mod 1 {self.number(1, 4)}",
            f"rand0 {self.number(0, 9)} {self.number(1, 6)}",
            "zero",
            f"seq {self.number(1, 9)}",
        )
        return self.draw(st.sampled_from(kinds))

    def name(self) -> str:
        self.started += 1
        return f"P{self.started}"

    def new(self) -> None:
        if len(self.mapped) == 5:
            return
        p = self.name()
        self.write("proc", p)
        self.map(p)

    def map(self, p: str) -> None:
        self.mapped[p] = {}
        for k in range(self.number(1, 2)):
            pages = self.number(1, self.pages)
            node = self.number(-1, self.nodes - 1)
            self.write("map", p, f"r{k}", pages, *(["node", node] if node >= 0 else []))
            self.mapped[p][f"r{k}"] = [True] * pages
            if self.number(0, 3):
                self.write("fill", p, f"r{k}", 0, pages, self.pattern())
            else:
                self.write("read", p, f"r{k}", 0, pages)
            advised = pages if self.number(0, 3) else self.number(1, pages)
            self.write("mergeable", p, f"r{k}", 0, advised)

    def act(self, action: str) -> None:
        match action:
            case "batch":
                self.write("batch", self.number(1, 2 * self.pages))
            case "scan":
                self.write("scan", self.number(1, 3))
            case "unmerge_all":
                self.write("unmerge_all")
            case "new" | "knob":
                getattr(self, action)()
            case _ if self.mapped:
                self.touch(action, self.draw(st.sampled_from(sorted(self.mapped))))

    def touch(self, action: str, p: str) -> None:
        match action:
            case "fork" if len(self.mapped) < 5:
                q = self.name()
                self.write("fork", p, q)
                self.mapped[q] = {r: list(mapped) for r, mapped in self.mapped[p].items()}
            case "exit":
                self.write("exit", p)
                del self.mapped[p]
            case "exec":
                self.write("exec", p)
                self.mapped[p] = {}
                if self.number(0, 3):
                    self.map(p)
            case "merge_any":
                self.write("merge_any", p)
            case "merge_any_off":
                self.write("merge_any", p, "off")
            case "fork":
                pass
            case _ if self.mapped[p]:
                self.touch_range(action, p, self.draw(st.sampled_from(sorted(self.mapped[p]))))

    def touch_range(self, action: str, p: str, r: str) -> None:
        mapped = self.mapped[p][r]
        start = self.number(0, len(mapped) - 1)
        count = self.number(1, len(mapped) - start)
        if action in ("fill", "read", "pin"):
            count = next((i for i in range(count) if not mapped[start + i]), count)
        if count == 0:
            return
        if action == "unmap":
            mapped[start : start + count] = [False] * count
        more = {"fill": [self.pattern()], "move": [self.number(0, self.nodes - 1)]}
        self.write(action, p, r, start, count, *more.get(action, []))


KERNELS = sorted(PROFILES)


@st.composite
def scripts(draw: st.DrawFn, actions: tuple[str, ...] = tuple(ACTIONS)) -> Script:
    topology = ScriptTopology(draw(st.integers(1, 3)), swap=draw(st.booleans()))
    writer = _Writer(draw, topology.nodes, pages=draw(st.sampled_from([4, 12])))
    for _ in range(draw(st.integers(0, 3))):
        writer.knob()
    for _ in range(draw(st.integers(1, 3))):
        writer.new()
    for action in draw(st.lists(st.sampled_from(actions), min_size=5, max_size=30)):
        writer.act(action)
    writer.write("scan 2")
    return Script(draw(st.sampled_from(KERNELS)), topology, "\n".join(writer.lines))


def life_scripts() -> st.SearchStrategy[Script]:
    """With exec, memory failure and soft offline."""
    return scripts((*ACTIONS, *LIFE))


@st.composite
def mid_pass_scripts(draw: st.DrawFn) -> Script:
    """One region whose pages change and go between small batches: much of it hangs on the shapes of trees."""
    topology = ScriptTopology(draw(st.integers(1, 2)))
    pages = 16
    lines = [f"set max_page_sharing {draw(st.sampled_from([2, 3, 256]))}"]
    lines += [f"set merge_across_nodes {draw(st.integers(0, 1))}"]
    lines += ["proc A", f"map A x {pages}", f"fill A x 0 {pages} rand 1 {draw(st.integers(2, 12))}"]
    lines += ["mergeable A x", "scan 2"]
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, pages - 1))
        where = f"A x {start} {draw(st.integers(1, pages - start))}"
        change = draw(st.sampled_from(["fill", "fill", "dontneed", "move"]))
        pattern = f"rand {draw(st.integers(1, 3))} {draw(st.integers(2, 12))}"
        more = {"fill": pattern, "dontneed": "", "move": topology.nodes - 1}[change]
        lines += [f"{change} {where} {more}", f"batch {draw(st.integers(1, pages))}"]
    lines += ["scan 2"]
    return Script(draw(st.sampled_from(KERNELS)), topology, "\n".join(lines))
