"""Records of kernels that differ, and of exec and memory failure, on the exact and the vectorised machine."""

from __future__ import annotations

import pytest

from cluster.script.record import compare
from tests.cluster.exact.oracle import KERNEL_RECORDS, LIFE_RECORDS, documents, replay
from tests.cluster.machine.engines import again, kernel_of, topology_of, vector

DOCUMENTS = documents(KERNEL_RECORDS) | documents(LIFE_RECORDS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_record_is_reproduced(name: str) -> None:
    document = DOCUMENTS[name]
    assert compare(replay(document), document) is None
    ours = again(document, vector(kernel_of(document), topology_of(document)))
    assert compare(ours, document) is None
