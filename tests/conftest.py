"""What holds for all tests."""

import fcntl
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cluster.mm.page_table import PageTable
from cluster.wire.mailbox import Outbox

# A shell's background jobs, and what they start, ignore the interrupt, and those of nohup the hang-up; some
# tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The machine that runs the tests may be busy: how long an example takes says nothing.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
# Page tables check the states before each transition, and nodes their invariants after each step.
PageTable.validating = True
# Every message that a test sends is checked against its schema.
Outbox.check = True


@pytest.fixture(autouse=True)
def _host_ksmd(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that use the host's ksmd, or memory that it scans, wait for each other in all processes."""
    if not request.node.get_closest_marker("host_ksmd"):
        yield
        return
    with (Path(tempfile.gettempdir()) / "ksmcluster-tests-of-ksmd.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
