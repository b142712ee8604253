"""What may be wrong with the options of a run, from the command line or from Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ksmcluster
from actors.run_options import RunOptions
from cluster.spec.errors import SimulationError
from tests.ksmcluster.conftest import Run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes_per_actor": 0}, "nodes_per_actor: must be a whole number, at least 1, not 0"),
        ({"nodes_per_actor": 1.5}, "nodes_per_actor: must be a whole number"),
        ({"migration_actors": 0}, "migration_actors: must be a whole number, at least 1"),
        ({"max_failures": -1}, "max_failures: must be a whole number, at least 0"),
        ({"max_failures": True}, "max_failures: must be a whole number"),
        ({"stall_timeout": 0.1}, "stall_timeout: must be from 10 to 1,000,000 seconds"),
        ({"stall_timeout": float("inf")}, "stall_timeout: must be from 10 to"),
        ({"connect_timeout": float("nan")}, "connect_timeout: must be from 0.1 to"),
        ({"connect_timeout": "30"}, "connect_timeout: must be from 0.1 to"),
        ({"address": ""}, "address: it is empty; give HOST:PORT"),
        ({"checkpoint_every": "5p"}, "--checkpoint-every: without --checkpoint"),
        ({"checkpoint": "d", "checkpoint_every": 5}, "checkpoint_every: must be text"),
    ],
)
def test_what_is_no_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        RunOptions(**options)
    with pytest.raises(ksmcluster.UserError, match=message):
        ksmcluster.simulate("tiny", engine="inline", **options)


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"nodes_per_actor": np.int64(2), "max_failures": np.uint8(0), "stall_timeout": np.float32(20)}
    assert ksmcluster.simulate("tiny", engine="inline", **given).passes  # type: ignore[arg-type]


def test_an_address_needs_ray() -> None:
    calls = (
        lambda: ksmcluster.simulate("tiny", engine="inline", address="auto"),
        lambda: ksmcluster.compact(engine="inline", address="auto"),
        lambda: ksmcluster.sweep("tiny", {"nodes": [1]}, address="auto"),
    )
    for call in calls:
        with pytest.raises(ksmcluster.UserError, match="the inline engine does not use Ray"):
            call()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--stall-timeout", "inf"), "stall_timeout: must be from 10"),
        (("--connect-timeout", "1e10"), "connect_timeout: must be from 0.1"),
        (("--address", ""), "address: it is empty"),
        (("--checkpoint-every", "5p"), "--checkpoint-every: without --checkpoint"),
    ],
)
def test_on_the_command_line_it_is_one_line(run: Run, given: tuple[str, ...], message: str) -> None:
    ran = run("simulate", "tiny", *given)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith(f"error: {message}")
