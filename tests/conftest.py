"""What holds for all tests."""

import signal

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process, since they share actors, and so do all that use the host's ksmd."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
