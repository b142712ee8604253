"""The vectorised machine and the recorded kernels."""

from __future__ import annotations

import pytest

from cluster.record import compare, unfold
from tests.exact.oracle import documents
from tests.vector.engines import Json, again, exact, kernel_of, topology_of, vector
from tests.vector.shapeless import shapeless

DOCUMENTS = documents()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_record_is_reproduced(name: str) -> None:
    """Every record, every field: with trees in the kernel's shape."""
    document = DOCUMENTS[name]
    engine = vector(kernel_of(document), topology_of(document))
    assert compare(again(document, engine), document) is None


def differing(ours: Json, theirs: Json) -> set[str]:
    """Labels of the steps at which two documents differ."""
    pairs = zip(ours["records"], unfold(theirs)["records"], strict=True)
    return {mine["label"] for mine, yours in pairs if mine != yours}


def test_without_shapes_only_what_hangs_on_a_shape_differs() -> None:
    """The two classes of records that the machine without `tree_shape` may get wrong, computed.

    A model of ksmd, sequential and exact but for trees without shape, says what hangs on shapes: the machine
    agrees with it everywhere, and so with the kernel wherever the model does. Contents that changed or went
    while they waited are class A, what searches do in passing to stable nodes of other contents is class B.
    """
    steps = others = 0
    classes: dict[str, set[str]] = {}
    for name, document in DOCUMENTS.items():
        kernel, topology = kernel_of(document), topology_of(document)
        ours = again(document, vector(kernel, topology, tree_shape=False))
        with shapeless():
            model = again(document, exact(kernel, topology))
        assert compare(ours, model) is None, name
        steps += len(document["records"])
        other = differing(model, document)
        others += len(other)
        if other:
            classes[name] = reasons(document)
    assert all(classes.values())
    assert others < 0.15 * steps


def reasons(document: Json) -> set[str]:
    """The classes whose rule alone changes a document."""
    found = set()
    for reason, unstable in (("A", True), ("B", False)):
        with shapeless(stable=not unstable, unstable=unstable):
            model = again(document, exact(kernel_of(document), topology_of(document)))
        if differing(model, document):
            found.add(reason)
    return found
