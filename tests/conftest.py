"""What holds for all tests."""

import signal

from cluster.wire.mailbox import Outbox

# A shell's background jobs, and what they start, ignore the interrupt; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Every message that a test sends is checked against its schema.
Outbox.check = True
