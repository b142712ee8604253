"""Tracks which pages other processes write, even if the bytes do not change (Linux 6.7 and later).

May import numpy, the standard library, `pagemap`, and for `tracker` the process and the snapshot.
Changes other processes while a PtraceWrites is open.
From the outside in: writes, tracked, userfaultfd, ptrace, threads, registers.
"""

from ksmcluster.capture.tracing.tracked import Skipped
from ksmcluster.capture.tracing.writes import Pauses, PtraceWrites, can_trace

__all__ = ["Pauses", "PtraceWrites", "Skipped", "can_trace"]
