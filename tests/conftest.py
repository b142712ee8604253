"""What holds for all tests."""

import signal

from hypothesis import settings

# A shell's background jobs, and what they start, ignore the interrupt; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The machine that runs the tests may be busy: how long an example takes says nothing.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
