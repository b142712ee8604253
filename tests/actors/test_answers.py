"""What comes out of an actor that fails."""

from __future__ import annotations

import numpy as np
import pytest
import ray

from actors.answers import answers


@ray.remote(num_cpus=0)
class Greedy:
    """Wants more than any machine has."""

    def want(self) -> None:
        np.zeros(1 << 60, np.uint8)


def test_want_of_memory_comes_out_as_itself(ray_cluster: str) -> None:
    with pytest.raises(MemoryError):
        answers(Greedy.remote().want.remote())  # type: ignore[attr-defined]
