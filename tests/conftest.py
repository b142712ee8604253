"""What holds for all tests."""

import signal

# A shell's background jobs, and what they start, ignore the interrupt; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
