"""Scenarios as TOML data, all of them valid."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cluster.spec.profile import PROFILES

Data = dict[str, Any]

names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
counts = st.integers(1, 5)
rates = st.floats(0, 1e6)
shares = st.floats(0, 1, exclude_min=True)
seconds = st.floats(0, 1e6)


def some(
    required: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]
) -> st.SearchStrategy[Data]:
    return st.fixed_dictionaries(required, optional=optional)


writes = some(
    {"rate": rates},
    hot_fraction=shares,
    start=seconds,
    stop=st.floats(2e6, exclude_min=True),
    period=seconds,
    duty=shares,
    content=st.sampled_from(["unique", "original", "redraw", "same"]),
)


def policies(nodes: int) -> st.SearchStrategy[Any]:
    node = st.integers(0, nodes - 1)
    several = st.lists(node, min_size=1, unique=True)
    return st.one_of(
        st.sampled_from(["local", "interleave"]),
        st.fixed_dictionaries({"kind": st.just("bind"), "nodes": several}),
        st.fixed_dictionaries({"kind": st.just("interleave"), "nodes": several}),
        st.fixed_dictionaries({"kind": st.just("preferred"), "nodes": st.tuples(node).map(list)}),
    )


def models(pool: str) -> st.SearchStrategy[Data]:
    """Pools have names of their own, so that no two differ in size."""
    zipf = some({"law": st.just("zipf")}, exponent=st.floats(0.01, 5))
    drawn = some({"model": st.just("pool"), "distinct": counts}, pool=st.just(pool))
    return st.one_of(
        st.fixed_dictionaries({"model": st.sampled_from(["zero", "untouched"])}),
        some({"model": st.just("unique")}, copies=counts),
        some({"model": st.just("replicated")}, scope=st.sampled_from(["machine", "node"])),
        st.builds(lambda a, b: a | b, drawn, zipf | st.fixed_dictionaries({"law": st.just("uniform")})),
    )


@st.composite
def regions(draw: st.DrawFn, nodes: int, name: str) -> Data:
    data = draw(models(f"pool of {name}"))
    if draw(st.booleans()):
        data["policy"] = draw(policies(nodes))
    if data["model"] != "untouched" and draw(st.booleans()):
        data["pinned"] = draw(st.booleans())
    if draw(st.booleans()):
        data["write"] = draw(st.lists(writes, max_size=2))
    return {
        "name": name,
        "size": draw(st.integers(1, 100).map("{} pages".format) | counts.map("{}MiB".format)),
        "mergeable": draw(st.booleans()),
        **data,
    }


@st.composite
def processes(draw: st.DrawFn, nodes: int, name: str) -> Data:
    own = [draw(regions(nodes, f"{name} {i}")) for i in range(draw(st.integers(1, 3)))]
    return {
        "name": name,
        draw(st.sampled_from(["count", "per_node"])): draw(counts),
        "policy": draw(policies(nodes)),
        "workers": draw(st.integers(0, 2)),
        "region": own,
    }


def topologies(nodes: int) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.sampled_from(["fully-connected", "ring", "mesh", "torus"]),
        some({"kind": st.just("ring")}, hop=counts),
        some({"kind": st.just("fully-connected")}, remote=st.integers(11, 200)),
        st.builds(sockets, full_groups(nodes), st.booleans()),
    )


def full_groups(nodes: int) -> st.SearchStrategy[list[int]]:
    """Up to three levels of groups, of which each is full, or has all nodes and room for more."""
    divisors = st.sampled_from([size for size in range(1, nodes + 1) if nodes % size == 0])
    sizes = st.lists(divisors, max_size=2).map(sorted).filter(lambda s: len(s) < 2 or s[1] % s[0] == 0)
    groups = sizes.map(lambda s: [s[0], s[1] // s[0]] if len(s) == 2 else s)
    return st.one_of(groups, st.just([nodes + 1]), groups.map(lambda g: [*g, nodes]))


def sockets(groups: list[int], beyond: bool) -> Data:
    distances = [12 + i for i in range(len(groups) + 1)]
    return {"kind": "sockets", "groups": groups} | (
        {"distances": distances} if beyond or len(groups) > 2 else {}
    )


#: How a run may end.
ENDS: list[dict[str, Any]] = [
    {},
    {"passes": counts},
    {"seconds": st.floats(1e-3, 1e6)},
    {"until": st.just("converged")},
]

#: Tables that only go together.
migrations = st.fixed_dictionaries(
    {
        "migration": some(
            {},
            trigger=st.sampled_from(["compact_memory", "proactive", "none"]),
            kernel=st.sampled_from(["4.8", "6.1"]),
            order=st.integers(0, 10),
            compactors=counts,
            unmovable=st.floats(0, 0.3),
            cost=some({}, scan_ns=rates),
        ),
        "driver": st.just([{"name": "gpu", "kind": "gpu", "share": 0.5, "settings": {"busy": 0.1}}]),
    }
)


@st.composite
def scenarios(draw: st.DrawFn) -> Data:
    nodes = draw(st.integers(1, 9))
    title = draw(names)
    return {
        "simulation": draw(
            some(
                {},
                title=st.just(title),
                seed=st.integers(0, 2**63 - 1),
                **draw(st.sampled_from(ENDS)),
                windows_per_pass=counts,
            )
        ),
        "machine": {"nodes": nodes, "memory_per_node": "1TiB", "topology": draw(topologies(nodes))},
        "ksm": draw(some({}, kernel=st.sampled_from(list(PROFILES)), pages_to_scan=counts)),
        "cost": draw(some({}, visit_ns=rates, merge_ns=rates, cached_tree=rates)),
        **(draw(migrations) if draw(st.booleans()) else {}),
        "process": [draw(processes(nodes, draw(names) + str(i))) for i in range(draw(st.integers(1, 3)))],
    }
