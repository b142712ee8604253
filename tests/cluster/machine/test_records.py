"""The vectorised machine and the recorded kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest

from cluster.exact.reason import Reason
from cluster.exact.shape_reasons import ShapeReasons, shape_reasons
from cluster.script.engine import Engine
from cluster.script.parser import parse
from cluster.script.record import compare
from cluster.spec.profile import PROFILES
from tests.cluster.exact.oracle import documents
from tests.cluster.machine.engines import Json, again, exact, kernel_of, play, topology_of, vector
from tests.paths import DOCS

DOCUMENTS = documents()
#: The pass under way, and a full one in which nothing is disturbed.
QUIET = "\nscan 2"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_record_is_reproduced(name: str) -> None:
    """Every record, every field: with trees in the kernel's shape."""
    document = DOCUMENTS[name]
    engine = vector(kernel_of(document), topology_of(document))
    assert compare(again(document, engine), document) is None


@dataclass
class Replay:
    """A recorded script with a quiet end, on the machine without tree shapes and on the exact one."""

    document: Json

    @cached_property
    def without(self) -> list[Json]:
        kernel, topology = kernel_of(self.document), topology_of(self.document)
        return self._play(vector(kernel, topology, tree_shape=False))

    @cached_property
    def exact(self) -> list[Json]:
        return self._play(exact(kernel_of(self.document), topology_of(self.document)))

    def _play(self, engine: Engine) -> list[Json]:
        text = self.document["text"] + QUIET
        records: list[Json] = play(text, engine, topology_of(self.document))["records"]
        return records

    @cached_property
    def reasons(self) -> ShapeReasons:
        profile = PROFILES[kernel_of(self.document)]
        return shape_reasons(parse(self.document["text"]), profile, topology_of(self.document))

    def differing(self) -> list[str]:
        """Labels of the recorded steps at which the machine without shapes is wrong."""
        steps = len(self.document["records"])
        pairs = zip(self.without[:steps], self.exact[:steps], strict=True)
        return [theirs["label"] for ours, theirs in pairs if ours != theirs]

    def totals(self) -> list[tuple[int, ...]]:
        """What the quiet end leads to: pages shared, sharing, unshared and volatile, of either machine."""
        names = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
        ends = (self.without[-1], self.exact[-1])
        return [tuple(end["sysfs"][name] for name in names) for end in ends]


REPLAYS = {name: Replay(document) for name, document in DOCUMENTS.items()}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_without_shapes_only_what_hangs_on_a_shape_differs(name: str) -> None:
    """The product's reasons are a list of all records that the machine without `tree_shape` gets wrong."""
    replay = REPLAYS[name]
    labels = [record["label"] for record in replay.document["records"]]
    first = min((labels.index(steps[0]) for steps in replay.reasons.values()), default=len(labels))
    assert not set(replay.differing()) & set(labels[:first])


def test_how_many_records_hang_on_shapes() -> None:
    """The table of docs/explanation/vectorised.md."""

    def row(what: str, steps_of_records: list[int]) -> str:
        return f"| {what} | {sum(n > 0 for n in steps_of_records)} | {sum(steps_of_records):,} |"

    rows = [
        row("all", [len(replay.document["records"]) for replay in REPLAYS.values()]),
        *(
            row(
                f"depend on a shape: `{reason}`",
                [len(replay.reasons.get(reason, [])) for replay in REPLAYS.values()],
            )
            for reason in Reason
        ),
        row("either", [len(set().union(*replay.reasons.values())) for replay in REPLAYS.values()]),
        row("differ without shapes", [len(replay.differing()) for replay in REPLAYS.values()]),
    ]
    assert "\n".join(rows) in (DOCS / "explanation" / "vectorised.md").read_text()


def test_after_a_quiet_pass_totals_are_equal_again() -> None:
    """But for how pages of one content are spread over stable nodes, which is history by then."""
    unequal = 0
    for replay in REPLAYS.values():
        (shared, sharing, unshared, volatile), theirs = replay.totals()
        unequal += (shared, sharing, unshared, volatile) != theirs
        assert shared + sharing + unshared == sum(theirs[:3])
        assert volatile == theirs[3]
        assert sharing == theirs[1] or "max_page_sharing" in replay.document["text"]
    assert unequal < 0.03 * len(REPLAYS)
