"""What holds for all tests."""

import signal

from cluster.mm.page_table import PageTable

# A shell's background jobs, and what they start, ignore the interrupt; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Nodes check after every step, and page tables at every transition, that their states may be.
PageTable.validating = True
