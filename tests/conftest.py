"""What holds for all tests."""

import signal

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
